"""The process that commands are forked from; see `commands.py`. Speaks JSON lines."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import resource
import signal
import sys
import time
import traceback
from typing import Any

HEAVY = (
    "numpy",
    "torch",
    "torchvision",
    "open_clip",
    "PIL.Image",
    "yaml",
    "rich.table",
    "rich.progress",
    "pydantic",
    "safetensors.torch",
    "peft",
    "clipalign.cli.app",
    "clipalign.training.train",
    "clipalign.tasks.prepare",
    "clipalign.evals.evaluate",
    "clipalign.evals.retention",
    "clipalign.transforms.transform",
    "clipalign.comparison.compare",
)
_WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")
_ended: dict[int, int] = {}


class Writes:
    """Counts what changes files, and kills the command before a certain one of it.

    The moments between two writes are short: a random time hardly ever meets one.
    """

    def __init__(self, die_before: int) -> None:
        self.count, self.die_before = 0, die_before
        sys.addaudithook(self.heard)

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit event of Python, before it takes effect."""
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in _WRITES:
            return
        if self.count == self.die_before:
            os.killpg(0, signal.SIGKILL)
        self.count += 1


def child(asked: dict[str, Any]) -> None:
    """Become `clipalign ARGV…`, or call a function on strings; never returns."""
    os.setsid()
    # a campaign that was started in the background has Ctrl-C ignored, and its children would too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(asked["cwd"])
    os.environ.update(asked["env"])
    sys.path[:0] = filter(None, asked["env"].get("PYTHONPATH", "").split(os.pathsep))
    for number, path in ((1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(path, os.O_WRONLY), number)
    # new ones: those of the parent remember whether what they wrote to was a file or a terminal
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, closefd=False)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, value in asked["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    writes = None if asked.get("die_before") is None else Writes(asked["die_before"])
    code = 1
    try:
        if asked.get("call"):
            module, name = asked["call"].split(":")
            getattr(importlib.import_module(module), name)(*asked["argv"])
        else:
            from clipalign.__main__ import main

            sys.argv = ["clipalign", *asked["argv"]]
            main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
    finally:
        if writes is not None:
            with open(asked["writes"], "w") as file:
                file.write(str(writes.count))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, timeout: float) -> int | None:
    """The exit code of `pid`, or None when it goes on after `timeout` seconds."""
    until = time.monotonic() + timeout
    while pid not in _ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            _ended[pid] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() >= until:
            return None
        else:
            time.sleep(0.002)
    return _ended[pid]


def serve() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import prints is no answer
    for name in HEAVY:
        if importlib.util.find_spec(name.partition(".")[0]):  # peft is an extra
            importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        if "argv" in asked:
            pid = os.fork()
            if pid == 0:
                child(asked)
            answer = {"pid": pid}
        else:
            answer = {"code": wait(asked["wait"], asked["timeout"])}
            if not asked.get("keep"):
                _ended.pop(asked["wait"], None)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
