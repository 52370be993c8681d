"""SIGTERM and Ctrl-C at any moment: what was done is kept, and a line says how to go on."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

from tests.campaign.cases import Broken, Trial, case
from tests.campaign.commands import ROOT, Finished
from tests.campaign.jobs import (
    JOBS,
    TOWER,
    Job,
    compare_output,
    done,
    enter_world,
    undisturbed,
    whole_checkpoint,
)

_HOW = re.compile(
    r"clipalign (train --resume|compare|eval) \S+|(R|r)un the same command|the same command goes on"
)
_TWICE = 0.3  # seconds within which an impatient user presses Ctrl-C again


def _said_how_to_go_on(finished: Finished) -> None:
    """The end of an interrupted command: 0 where it was over, else 130 and one line."""
    if finished.code == 0:
        return
    if finished.code != 130:
        raise Broken("lost", f"{finished.line}: code {finished.code}: {finished.err[-600:]}")
    errors = [line for line in finished.err.splitlines() if line.startswith("Error: ")]
    if len(errors) != 1 or not _HOW.search(errors[0]):
        raise Broken("lost", f"{finished.line} does not say how to go on: {finished.err[-600:]}")


def _saved(finished: Finished, trial: Trial, job: Job) -> None:
    """A training that says after which step it stopped has a checkpoint of that step."""
    said = re.search(r"Stopped after step (\d+)", finished.err)
    if said and whole_checkpoint(trial.folder / job.output) != int(said[1]):
        raise Broken("lost", f"{job.name}: {said[0]}, and there is no checkpoint of that step")


def _interrupted(trial: Trial, job: Job, number: int, *, twice: bool = False) -> None:
    """Interrupt a job, see how it ends, and go on."""
    whole = undisturbed(trial, job)
    enter_world(trial)
    running = trial.zygote.start(job.line, cwd=trial.folder)
    everybody = number == signal.SIGINT
    while not _attends(running.pid, signal.SIGTERM) and running.goes_on(0.002):
        pass  # Python itself is not ours to answer for
    if running.goes_on(trial.rng.uniform(0, whole.seconds)):
        running.signal(number, everybody=everybody)
        if twice and running.goes_on(trial.rng.uniform(0, _TWICE)):
            running.signal(number, everybody=everybody)
    finished = running.wait(60)
    trial.check(finished)
    _said_how_to_go_on(finished)
    if not twice:
        _saved(finished, trial, job)
    if left := running.left_over(within=10):
        running.kill()
        raise Broken("lost", f"{job.name}: {len(left)} processes outlived it")
    done(trial.run(*job.again(trial.folder)))
    compare_output(job, trial.folder, whole)


@case("SIGTERM", long=300, short=1)
def sigterm(trial: Trial) -> None:
    """SIGTERM to the own process of any command; the next attempt needs no human."""
    _interrupted(trial, trial.turn(JOBS), signal.SIGTERM)


@case("Ctrl-C", long=300, short=0)
def ctrl_c(trial: Trial) -> None:
    """SIGINT to all processes of any command, as a terminal sends it."""
    _interrupted(trial, trial.turn(JOBS), signal.SIGINT)


@case("Ctrl-C twice", long=200, short=0)
def ctrl_c_twice(trial: Trial) -> None:
    """A second SIGINT within 0.3 s."""
    _interrupted(trial, trial.turn(JOBS), signal.SIGINT, twice=True)


@case("stopped while starting", long=40, short=0)
def while_starting(trial: Trial) -> None:
    """SIGTERM or SIGINT to a process of its own, which is still importing."""
    enter_world(trial)
    number = trial.rng.choice((signal.SIGTERM, signal.SIGINT))
    line = [sys.executable, "-m", "clipalign", *TOWER.line]
    environment = {**os.environ, "CLIPALIGN_CACHE": str(trial.folder / ".cache")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    with subprocess.Popen(
        line,
        cwd=trial.folder,
        env=environment,
        stdout=-1,
        stderr=-1,
        text=True,
        preexec_fn=_heed_ctrl_c,
    ) as process:
        while process.poll() is None and not _attends(process.pid, signal.SIGTERM):
            time.sleep(0.005)
        try:
            process.wait(trial.rng.uniform(0, 4))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        out, err = process.communicate(timeout=100)
    # CPython ends itself by SIGINT where that met an import written in C; a shell sees 130 as well
    code = 130 if process.returncode == -signal.SIGINT else process.returncode
    finished = Finished(" ".join(line[2:]), code, out, err, time.monotonic() - began)
    trial.check(finished)
    _said_how_to_go_on(finished)


def _heed_ctrl_c() -> None:
    """A campaign that was started in the background has Ctrl-C ignored, and so had its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _attends(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal by now."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        caught = next(line for line in file if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
    return False  # it has ended
