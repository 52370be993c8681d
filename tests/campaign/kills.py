"""kill -9 at random moments: the next attempt ends as if nothing had happened."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

from tests.campaign.cases import Broken, Trial, case
from tests.campaign.commands import Finished
from tests.campaign.jobs import (
    COMPARE,
    EVAL,
    HEAD,
    LAST,
    LORA,
    PREPARE,
    TOWER,
    TRANSFORM,
    Job,
    compare_output,
    done,
    enter_world,
    stamp,
    undisturbed,
    whole_checkpoint,
)

_MOST_KILLS = 3


def _killed_and_gone_on(trial: Trial, job: Job) -> None:
    """Kill a job once or a few times, let it end, and compare with the undisturbed one."""
    whole = undisturbed(trial, job)
    cache = whole.folder / ".cache"
    warm = trial.rng.random() < 0.5 and cache.is_dir()
    enter_world(trial, cache=cache if warm else None)
    for _ in range(trial.rng.randint(1, _MOST_KILLS)):
        line = job.again(trial.folder)
        moment: dict[str, Any]
        if trial.rng.random() < 0.5:
            moment = {"kill_after": trial.rng.uniform(0, whole.seconds)}
        else:
            moment = {"die_before": trial.rng.randrange(whole.writes)}
        before = _finished_work(job, trial.folder)
        killed = trial.run(*line, **moment)
        if killed.code not in (0, -signal.SIGKILL):
            raise Broken("lost", f"{line} after a kill: {killed.code}: {killed.err[-600:]}")
        _kept(before, job, trial.folder)
        _goes_on(job, killed, before)
    before = _finished_work(job, trial.folder)
    last = done(trial.run(*job.again(trial.folder)))
    _kept(before, job, trial.folder)
    _goes_on(job, last, before)
    compare_output(job, trial.folder, whole)


def _finished_work(job: Job, folder: Path) -> dict[str, Any]:
    """What need not be done again: cache entries, records, results, and the step of a run."""
    files = [*(folder / job.output).rglob("results/*.json")]
    if job not in COMPARE:  # in it a training with activations writes the features beside them anew
        files += (folder / ".cache").glob("*/*")
    found = {path: stamp(path) for path in files if not path.name.startswith(".")}
    if job.output == "set" and (folder / "set" / "manifest.yaml").is_file():
        found[folder / "set" / "manifest.yaml"] = stamp(folder / "set" / "manifest.yaml")
    return {"files": found, "step": whole_checkpoint(folder / job.output) if job.run else 0}


def _kept(before: dict[str, Any], job: Job, folder: Path) -> None:
    """No finished file was made again.

    Raises:
        Broken: naming one.
    """
    for path, facts in before["files"].items():
        if not path.exists() or stamp(path) != facts:
            raise Broken("lost", f"{job.name}: {path.relative_to(folder)} was made again")


def _goes_on(job: Job, finished: Finished, before: dict[str, Any]) -> None:
    """A resumed training begins at the newest checkpoint, if it came so far as to say so."""
    said = re.search(r"Going on from step (\d+)", finished.err)
    if job.run and said and int(said[1]) != before["step"]:
        raise Broken("lost", f"{job.name}: {said[0]}, and step {before['step']} had been saved")
    over = "has finished" in finished.out
    if job.run and finished.code == 0 and before["step"] and not (said or over):
        raise Broken("lost", f"{job.name}: began anew, and step {before['step']} had been saved")


def _main_process_killed(trial: Trial, job: Job) -> None:
    """Kill a command's own process alone: what it started goes away by itself."""
    whole = undisturbed(trial, job)
    enter_world(trial)
    running = trial.zygote.start(job.line, cwd=trial.folder)
    if running.goes_on(trial.rng.uniform(0, whole.seconds)):
        running.signal(signal.SIGKILL)
    running.wait(30)
    if left := running.left_over(within=10):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        raise Broken("lost", f"{job.name}: {len(left)} processes outlived a kill of their parent")
    done(trial.run(*job.again(trial.folder)))
    compare_output(job, trial.folder, whole)


@case("kill image-encoder training", long=100, short=0)
def kill_image_encoder(trial: Trial) -> None:
    """train --trainable image-encoder, killed 1 to 3 times, cold and warm caches."""
    _killed_and_gone_on(trial, TOWER)


@case("kill last:K training", long=100, short=0)
def kill_last(trial: Trial) -> None:
    """train --trainable last:1, killed 1 to 3 times, cold and warm caches."""
    _killed_and_gone_on(trial, LAST)


@case("kill lora:R training", long=100, short=0)
def kill_lora(trial: Trial) -> None:
    """train --trainable lora:2, killed 1 to 3 times, cold and warm caches."""
    _killed_and_gone_on(trial, LORA)


@case("kill head training", long=100, short=1)
def kill_head(trial: Trial) -> None:
    """train --trainable head, killed 1 to 3 times, cold and warm caches."""
    _killed_and_gone_on(trial, HEAD)


@case("kill prepare", long=100, short=1)
def kill_prepare(trial: Trial) -> None:
    """prepare: loose files, shards, by workers, in parts; killed 1 to 3 times."""
    _killed_and_gone_on(trial, trial.turn(PREPARE))


@case("kill prepare's main process", long=100, short=0)
def kill_main_of_prepare(trial: Trial) -> None:
    """Workers of a prepare whose own process was killed end by themselves."""
    _main_process_killed(trial, PREPARE[1])


@case("kill eval", long=100, short=0)
def kill_eval(trial: Trial) -> None:
    """eval, killed 1 to 3 times, cold and warm caches."""
    _killed_and_gone_on(trial, trial.turn(EVAL))


@case("kill transform", long=100, short=1)
def kill_transform(trial: Trial) -> None:
    """transform by power and by interpolation, killed 1 to 3 times."""
    _killed_and_gone_on(trial, trial.turn(TRANSFORM))


@case("kill compare", long=100, short=0)
def kill_compare(trial: Trial) -> None:
    """compare of a model, two trainings and an edit, killed 1 to 3 times."""
    _killed_and_gone_on(trial, COMPARE[0])
