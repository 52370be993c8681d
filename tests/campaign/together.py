"""Two commands at once in one place: one waits or refuses, and both end right."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.campaign.cases import Broken, Trial, case
from tests.campaign.commands import ROOT, Finished
from tests.campaign.jobs import (
    EVAL,
    JOBS,
    LAST,
    STEPS,
    TRAIN,
    Job,
    compare_output,
    done,
    enter_world,
    undisturbed,
)

_REFUSED = 7
_MINUTE = 60


def _both(trial: Trial, first: Job, second: Job) -> tuple[Finished, Finished]:
    """Run two jobs in the trial's folder, the second a little or no time after the first."""
    enter_world(trial)
    begun = trial.zygote.start(first.line, cwd=trial.folder)
    apart = trial.rng.choice((0.0, trial.rng.uniform(0, undisturbed(trial, first).seconds)))
    begun.goes_on(apart)
    other = trial.zygote.start(second.line, cwd=trial.folder)
    ended = begun.wait(100), other.wait(100)
    for finished in ended:
        trial.check(finished)
        if finished.code not in (0, _REFUSED):
            raise Broken("lost", f"{finished.line}: code {finished.code}: {finished.err[-500:]}")
    if all(finished.code for finished in ended):
        raise Broken("lost", f"both refused: {ended[0].err[-300:]} {ended[1].err[-300:]}")
    return ended


@case("two in one place", long=200, short=1)
def one_place(trial: Trial) -> None:
    """The same command twice, with one output."""
    job = trial.turn(JOBS)
    whole = undisturbed(trial, job)
    _both(trial, job, job)
    compare_output(job, trial.folder, whole)


@case("two on one cache", long=100, short=0)
def one_cache(trial: Trial) -> None:
    """Two trainings or evaluations that want the same features, with outputs of their own."""
    job = trial.turn((*TRAIN, *EVAL))
    whole = undisturbed(trial, job)
    output = job.line.index("-o") + 1
    other = (*job.line[:output], "other", *job.line[output + 1 :])
    for finished in _both(trial, job, replace(job, line=other)):
        done(finished)
    compare_output(job, trial.folder, whole)
    (trial.folder / job.output).rename(trial.folder / "first")
    (trial.folder / "other").rename(trial.folder / job.output)
    if job.run:  # the configuration and the card say another name of the run
        compare_output(
            job, trial.folder, whole, but=("config.yaml", "SHA256SUMS", "model/README.md")
        )
    else:
        compare_output(job, trial.folder, whole)


@case("a rank dies", long=5, short=0)
def rank_dies(trial: Trial) -> None:
    """kill -9 of one of two torchrun processes: the other stops and says so; resume works."""
    line = ("train", "--trainable", "last:1", *LAST.line[3:], "--set", "train.peer_timeout=20")

    def make(place: Path) -> None:
        enter_world(trial, place)
        _torchrun(place, line, None)

    job = Job("two ranks", line, "run", run=True)
    whole = trial.once("undisturbed-two-ranks", make)
    enter_world(trial)
    step = trial.rng.randrange(1, STEPS - 1)
    said = _torchrun(trial.folder, line, (trial.rng.randrange(2), step))
    if "no longer hears another one" not in said:
        raise Broken("lost", f"the other rank does not say so: {said[-600:]}")
    _torchrun(trial.folder, job.again(trial.folder), None)
    compare_output(job, trial.folder, replace(undisturbed(trial, LAST), folder=whole))


def _torchrun(folder: Path, line: tuple[str, ...], kill: tuple[int, int] | None) -> str:
    """Run a command in two processes, started as torchrun starts them; returns what they said.

    Args:
        folder: where it runs.
        line: its arguments.
        kill: a rank, and the step after whose line in the log it is killed; None for none.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {k: v for k, v in os.environ.items() if not k.startswith("CLIPALIGN_")}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    shared |= {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    shared |= {"CLIPALIGN_CACHE": str(folder / ".cache")}
    command = [sys.executable, "-m", "clipalign", *line]
    processes = [
        subprocess.Popen(
            command, cwd=folder, env={**shared, "RANK": str(i), "LOCAL_RANK": str(i)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    if kill is not None:
        log = folder / "run" / "metrics.jsonl"
        while not (log.is_file() and len(re.findall("\n", log.read_text())) >= kill[1]):
            if processes[0].poll() is not None:
                raise Broken("lost", f"ended early: {processes[0].communicate()[1][-600:]}")
            time.sleep(0.002)
        processes[kill[0]].send_signal(signal.SIGKILL)
    said = []
    for i, process in enumerate(processes):
        try:
            said.append(process.communicate(timeout=None if kill is None else _MINUTE)[1])
        except subprocess.TimeoutExpired:
            process.kill()
            raise Broken("hang", f"rank {i} goes on a minute after the other died") from None
    codes = [process.returncode for process in processes]
    if "Traceback" in "".join(said):
        raise Broken("traceback", "".join(said)[-600:])
    if kill is None and codes != [0, 0]:
        raise Broken("lost", f"two ranks ended with {codes}: {said}")
    if kill is not None and codes[1 - kill[0]] not in (0, 8):
        raise Broken("lost", f"the other rank ended with {codes[1 - kill[0]]}: {said}")
    return "".join(said)
