"""The real command, thousands of times: each in a process of its own, forked from a warm one.

Importing torch takes seconds, a trial a fraction of one. So one process (`zygote.py`) imports what
commands import and then does nothing but fork: a child sets its own session, folder, environment
and limits, runs `clipalign.cli.app.run` on its arguments and exits with its code.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Finished:
    """A command that ended, or was ended."""

    line: str
    code: int | None
    """The exit code; minus the signal for one that died of it; None for one that hung."""
    out: str
    err: str
    seconds: float
    writes: int | None = None
    """Writes to the disk, where they were counted."""

    @property
    def hung(self) -> bool:
        """Whether it had to be killed because its time was up."""
        return self.code is None


class Running:
    """A command that goes on."""

    def __init__(self, zygote: Zygote, pid: int, line: str, files: Sequence[str]) -> None:
        self.zygote, self.pid, self.line, self.files = zygote, pid, line, files
        self.began = time.monotonic()

    def signal(self, number: int, *, everybody: bool = False) -> None:
        """Send a signal to the command's own process, as a scheduler or `kill` does.

        With `everybody` also to what it started, as a terminal's Ctrl-C does.
        """
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if everybody else os.kill)(self.pid, number)

    def kill(self) -> None:
        """kill -9 the command with all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def goes_on(self, seconds: float) -> bool:
        """Whether it still runs after so many seconds more."""
        asked = {"wait": self.pid, "timeout": seconds, "keep": True}
        return self.zygote.ask(asked)["code"] is None

    def wait(self, timeout: float) -> Finished:
        """Wait for the end; after `timeout` seconds all its processes are killed."""
        code = self.zygote.ask({"wait": self.pid, "timeout": timeout})["code"]
        if code is None:
            self.kill()
            self.zygote.ask({"wait": self.pid, "timeout": 30})
        took = time.monotonic() - self.began
        out, err, writes = (Path(f).read_bytes().decode("utf-8", "replace") for f in self.files)
        for file in self.files:
            os.unlink(file)
        return Finished(self.line, code, out, err, took, int(writes) if writes else None)

    def left_over(self, within: float = 0) -> list[int]:
        """Processes of the command's session that outlive it by more than `within` seconds."""
        until = time.monotonic() + within
        while (left := self._others()) and time.monotonic() < until:
            time.sleep(0.1)
        return left

    def _others(self) -> list[int]:
        listing = subprocess.run(
            ["ps", "-o", "pid=,stat=", "-s", str(self.pid)], capture_output=True, text=True
        ).stdout
        rows = [line.split() for line in listing.splitlines()]
        return [int(pid) for pid, stat in rows if not stat.startswith("Z")]


class Zygote:
    """The warm process; a context manager."""

    def __init__(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CLIPALIGN_")}
        environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)

    def ask(self, request: dict[str, object]) -> dict[str, int]:
        """Send one request, read one answer."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def start(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
        die_before: int | None = None,
        call: str | None = None,
    ) -> Running:
        """Start `clipalign ARGUMENTS…` without waiting for it.

        Args:
            arguments: without the program's name.
            cwd: where it runs.
            env: added to the environment; the cache lies in `cwd` unless this says otherwise.
            limits: of the process, by the names of the module resource: {"RLIMIT_FSIZE": 4096}.
            die_before: number, from 0, of a write (a file opened for writing, renamed, removed, a
                directory made, …) before which the command is killed with kill -9; with −1 the
                writes are only counted.
            call: "module:function" to call with the arguments instead of the command.
        """
        files = _files("out", "err", "writes")
        asked = {
            "argv": list(arguments),
            "cwd": str(cwd),
            "env": {"CLIPALIGN_CACHE": str(cwd / ".cache"), **(env or {})},
            "limits": dict(limits or {}),
            "die_before": die_before,
            "call": call,
            "out": files[0],
            "err": files[1],
            "writes": files[2],
        }
        pid = self.ask(asked)["pid"]
        return Running(self, pid, shlex.join(["clipalign", *arguments]), files)

    def run(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
        timeout: float = 60,
        kill_after: float | None = None,
        interrupt_after: tuple[int, float] | None = None,
        die_before: int | None = None,
    ) -> Finished:
        """Run one command to its end, to its `timeout` (seconds), or to the end made for it.

        Args:
            kill_after: seconds after which it is killed with kill -9, with all that it started.
            interrupt_after: a signal and the seconds after which it is sent.
            die_before: see `start`.
        """
        running = self.start(arguments, cwd=cwd, env=env, limits=limits, die_before=die_before)
        if kill_after is not None and running.goes_on(kill_after):
            running.kill()
        if interrupt_after is not None and running.goes_on(interrupt_after[1]):
            running.signal(interrupt_after[0])
        return running.wait(timeout)


def _files(*kinds: str) -> list[str]:
    """Empty files for what a command says."""
    found = []
    for kind in kinds:
        handle, path = tempfile.mkstemp(suffix=f".{kind}")
        os.close(handle)
        found.append(path)
    return found
