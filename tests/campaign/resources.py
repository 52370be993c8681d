"""A machine runs out of room, files, memory or workers: said in words, and nothing is lost."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign.cases import Broken, Trial, case
from tests.campaign.commands import ROOT, Finished
from tests.campaign.jobs import (
    EVAL,
    JOBS,
    PREPARE,
    TRAIN,
    Job,
    compare_output,
    contents,
    done,
    enter_world,
    undisturbed,
)

_MOST = 1 << 21  # bytes that the largest file of any job takes, about


def _refused(finished: Finished, *words: str) -> None:
    """A command that could not do it says so: a documented code, one message, no bug.

    Raises:
        Broken: otherwise.
    """
    if finished.hung:
        raise Broken("hang", f"{finished.line}: no end after {finished.seconds:.0f} s")
    if "Traceback (most recent call last)" in finished.err or "is a bug in" in finished.err:
        raise Broken("traceback", f"{finished.line}: {finished.err[-600:]}")
    said = not words or any(word in finished.err for word in words)
    # a comparison names what failed cell by cell
    in_words = "Error: " in finished.err or " failed: " in finished.err
    if finished.code not in range(1, 10) or not said or not in_words:
        raise Broken("lost", f"{finished.line}: code {finished.code}: {finished.err[-600:]}")


def _short_of(trial: Trial, job: Job, limits: dict[str, int]) -> None:
    """Run a job short of something, then with plenty, and compare."""
    whole = undisturbed(trial, job)
    enter_world(trial)
    finished = trial.run(*job.line, check=False, limits=limits)
    if finished.code != 0:
        _refused(finished)
    done(trial.run(*job.again(trial.folder)))
    compare_output(job, trial.folder, whole)


@case("no file may be larger", long=100, short=1)
def file_size(trial: Trial) -> None:
    """RLIMIT_FSIZE, as a quota or an old file system: any command stops at some file."""
    job = trial.turn(JOBS)
    limit = int(_MOST ** trial.rng.uniform(0.6, 1))  # what it says is a file, too
    _short_of(trial, job, {"RLIMIT_FSIZE": limit})


@case("no more open files", long=100, short=0)
def open_files(trial: Trial) -> None:
    """RLIMIT_NOFILE of 8 to 40."""
    job = trial.turn(JOBS)
    limit = trial.rng.randint(8, 40)
    _short_of(trial, job, {"RLIMIT_NOFILE": limit})


@case("no more memory", long=50, short=0)
def memory(trial: Trial) -> None:
    """RLIMIT_AS a little above what a started command has (ulimit -v)."""
    job = trial.turn(JOBS)
    with open(f"/proc/{trial.zygote.process.pid}/statm") as file:
        started = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = started + trial.rng.randint(1, 120) * 2**20
    _short_of(trial, job, {"RLIMIT_AS": limit})


@case("a full disk", long=60, short=0)
def full_disk(trial: Trial) -> None:
    """Any command on a small tmpfs; it goes on when there is room."""
    job = trial.turn(JOBS)
    whole = undisturbed(trial, job)
    with _mounted(trial.folder / "disk", f"size={trial.rng.randint(4, 700)}k") as disk:
        enter_world(trial, disk)
        finished = trial.run(*job.line, cwd=disk, check=False)
        if finished.code != 0:
            _refused(finished, "disk is full", "No space left", "no room")
        _remount(disk, "size=64m")
        done(trial.run(*job.again(disk), cwd=disk))
        compare_output(job, disk, whole)


@case("a small /dev/shm", long=20, short=0)
def small_shared_memory(trial: Trial) -> None:
    """prepare by workers in a container that has next to no shared memory: none is needed."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    job = PREPARE[1]
    whole = undisturbed(trial, job)
    enter_world(trial)
    kilobytes = trial.turn((4, 16, 64, 1024))
    command = shlex.join([sys.executable, "-m", "clipalign", *job.line])
    small = f"mount -t tmpfs -o size={kilobytes}k tmpfs /dev/shm && exec {command}"
    began = time.monotonic()
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", small],
        cwd=trial.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CLIPALIGN_CACHE": str(trial.folder / "c")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    seconds = time.monotonic() - began
    done(Finished(command, ended.returncode, ended.stdout, ended.stderr, seconds))
    compare_output(job, trial.folder, whole)


@case("a read-only disk", long=30, short=0)
def read_only(trial: Trial) -> None:
    """Any command where nothing can be written, its cache included."""
    job = trial.turn(JOBS)
    with _mounted(trial.folder / "disk", "size=64m") as disk:
        enter_world(trial, disk)
        before = contents(disk)
        _remount(disk, "ro")
        finished = trial.run(*job.line, cwd=disk)
        _refused(finished, "read-only")
        if contents(disk) != before:
            raise Broken("escape", "something was written to a read-only disk")


@case("a read-only cache", long=30, short=0)
def read_only_cache(trial: Trial) -> None:
    """A cache that cannot be written is done without, and changes nothing."""
    job = trial.turn((*TRAIN, *EVAL))
    whole = undisturbed(trial, job)
    enter_world(trial)
    with _mounted(trial.folder / "disk", "size=1m") as disk:
        _remount(disk, "ro")
        done(trial.run(*job.line, env={"CLIPALIGN_CACHE": str(disk / "cache")}))
    shutil.rmtree(trial.folder / "disk")
    compare_output(job, trial.folder, whole)


@case("a worker dies", long=60, short=0)
def worker_dies(trial: Trial) -> None:
    """kill -9 of one worker of prepare, as the kernel's out-of-memory killer does it."""
    job = PREPARE[1]
    whole = undisturbed(trial, job)
    enter_world(trial)
    running = trial.zygote.start(job.line, cwd=trial.folder)
    until = time.monotonic() + trial.rng.uniform(0, whole.seconds)
    while running.goes_on(0.01):
        workers = _spawned(running.left_over())
        if time.monotonic() > until and workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(trial.rng.choice(workers), signal.SIGKILL)
            break
    finished = running.wait(60)
    if finished.code != 0:
        _refused(finished, "A worker process died")
    if left := running.left_over(within=10):
        running.kill()
        raise Broken("lost", f"{len(left)} processes outlived it")
    done(trial.run(*job.line))
    compare_output(job, trial.folder, whole)


def _spawned(pids: list[int]) -> list[int]:
    """Those that multiprocessing started to work, and not to keep count of resources."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


@contextlib.contextmanager
def _mounted(place: Path, options: str) -> Iterator[Path]:
    """A tmpfs, which only root may mount."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        ctypes.CDLL(None).sync()
        subprocess.run(["umount", "-l", str(place)], check=True)


def _remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)
