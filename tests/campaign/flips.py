"""One flipped byte in any file that clipalign wrote: noticed and named, or made again; never used.

What a command makes of a changed file is compared with what it makes of the whole one. Either it
refuses and names the file (or, where the flip is in a list of hashes, the file of the hash), or it
comes to the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.campaign.cases import Broken, Trial, case
from tests.campaign.commands import Finished
from tests.campaign.jobs import (
    COMPARE,
    EVAL,
    HEAD,
    PREPARE,
    TRAIN,
    TRANSFORM,
    Job,
    comparable,
    contents,
    done,
    enter_world,
    undisturbed,
)

_REFUSALS = range(2, 10)
_LISTS = ("SHA256SUMS", "manifest.yaml", "metadata.jsonl", "state.json")
"""Files that hold hashes of others."""


@dataclass(frozen=True)
class Reader:
    """A command that reads what clipalign wrote.

    Attributes:
        name: of the reader.
        line: its arguments.
        written: the folder whose files may be flipped.
        output: what it makes.
        make: puts `written` into an empty folder.
        skip: files of `written` that it writes itself.
    """

    name: str
    line: tuple[str, ...]
    written: str
    output: str
    make: Callable[[Trial, Path], None]
    skip: tuple[str, ...] = ()


def _copy_of(job: Job, *without: str) -> Callable[[Trial, Path], None]:
    """What a job made, less some of it."""

    def make(trial: Trial, folder: Path) -> None:
        enter_world(trial, folder)
        whole = undisturbed(trial, job).folder
        shutil.copytree(whole / job.output, folder / job.output)
        for name in without:
            path = folder / job.output / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return make


def _own(name: str) -> Callable[[Trial, Path], None]:
    """A copy of a folder of the world, in place of the link to it."""

    def make(trial: Trial, folder: Path) -> None:
        enter_world(trial, folder)
        source = (folder / name).resolve()
        (folder / name).unlink()
        shutil.copytree(source, folder / name)

    return make


def _shards(trial: Trial, folder: Path) -> None:
    """A set in shards in place of the one in loose files."""
    enter_world(trial, folder)
    (folder / "prefs").unlink()
    shutil.copytree(undisturbed(trial, PREPARE[2]).folder / "set", folder / "prefs")


def _cached(job: Job) -> Callable[[Trial, Path], None]:
    """The caches that a job filled."""

    def make(trial: Trial, folder: Path) -> None:
        enter_world(trial, folder, undisturbed(trial, job).folder / ".cache")

    return make


_RESUME = ("train", "--resume", "run", "--no-eval")
_UNFINISHED = ("model", "checkpoints/step-00000009")
READERS = {
    "run": [
        Reader(f"resume {job.name}", _RESUME, "run", "run", _copy_of(job, *_UNFINISHED))
        for job in TRAIN
    ],
    "model": [
        Reader("eval a run", EVAL[0].line, "done", "results", _own("done")),
        Reader("transform", TRANSFORM[0].line, "done", "model", _own("done")),
        Reader(
            "eval a transform",
            ("eval", "model", *EVAL[0].line[2:]),
            "model",
            "results",
            _copy_of(TRANSFORM[1]),
        ),
    ],
    "set": [
        Reader("train on files", HEAD.line, "prefs", "run", _own("prefs")),
        Reader("train on shards", HEAD.line, "prefs", "run", _shards),
    ],
    "cache": [
        Reader(f"cache of {job.name}", job.line, ".cache", job.output, _cached(job))
        for job in (*TRAIN, *EVAL)
    ],
    "results": [
        Reader(
            "report",
            ("report", "results", "-o", "page.html"),
            "results",
            "page.html",
            _copy_of(EVAL[0]),
        ),
        Reader("compare", ("compare", "study"), "study", "study", _copy_of(COMPARE[0])),
        Reader(
            "report on a run",
            ("report", "done", "-o", "page.html"),
            "done",
            "page.html",
            _own("done"),
        ),
    ],
}


def _flip(trial: Trial, folder: Path, reader: Reader) -> Path:
    """Change one byte of one file."""
    root = folder / reader.written
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and p.suffix != ".lock"]
    if reader.name == "compare":  # of what it goes on from; the models of finished cells rest
        files = [p for p in files if p.parent.name in ("study", "cells") or "results" in p.parts]
    path = trial.rng.choice([p for p in files if p.stat().st_size])
    data = bytearray(path.read_bytes())
    place = trial.rng.randrange(len(data))
    data[place] ^= 1 << trial.rng.randrange(8)
    path.write_bytes(data)
    return path


def _made(folder: Path, reader: Reader) -> dict[str, bytes]:
    path = folder / reader.output
    files = contents(path) if path.is_dir() else {path.name: path.read_bytes()}
    if reader.name == "compare":
        files = {n: b for n, b in files.items() if "/" not in n or "/results/" in n}
    if reader.output == "run":  # what was not read may differ: it is older, or the flipped file
        files = {n: b for n, b in files.items() if not n.startswith("checkpoints/")}
    return files


def _names(finished: Finished, path: Path) -> bool:
    said = (finished.err + finished.out).replace("\n", " ")
    return any(name in said for name in (path.name, str(path.parent.name))) or (
        path.name in _LISTS and any(part in said for part in path.parts[-3:-1])
    )


def _flipped(trial: Trial, reader: Reader) -> None:
    name = f"read-{reader.name.replace(' ', '-')}"

    def make(place: Path) -> None:
        reader.make(trial, place)
        done(trial.run(*reader.line, cwd=place))

    whole = trial.once(name, make)
    reader.make(trial, trial.folder)
    path = _flip(trial, trial.folder, reader)
    what = f"{reader.name}: {path.relative_to(trial.folder)}"
    finished = trial.run(*reader.line)
    if finished.code == 0:
        got, wanted = (comparable(_made(f, reader)) for f in (trial.folder, whole))
        differing = [n for n in sorted(got.keys() | wanted.keys()) if got.get(n) != wanted.get(n)]
        if differing:
            raise Broken("lost", f"{what} was used: {differing[:4]} differ. {finished.err[-300:]}")
    elif finished.code not in _REFUSALS or not _names(finished, path):
        raise Broken("lost", f"{what}: code {finished.code}: {finished.err[-500:]}")


@case("flip in a run", long=300, short=1)
def flip_in_run(trial: Trial) -> None:
    """A byte of a checkpoint, configuration, log or manifest, before --resume."""
    _flipped(trial, trial.turn(READERS["run"]))


@case("flip in a model", long=300, short=0)
def flip_in_model(trial: Trial) -> None:
    """A byte of a trained or edited model or of its map, before eval or transform."""
    _flipped(trial, trial.turn(READERS["model"]))


@case("flip in a preference set", long=300, short=0)
def flip_in_set(trial: Trial) -> None:
    """A byte of a manifest, table, image or shard, before train."""
    _flipped(trial, trial.turn(READERS["set"]))


@case("flip in the cache", long=300, short=1)
def flip_in_cache(trial: Trial) -> None:
    """A byte of cached features, activations or preferences, before train or eval."""
    _flipped(trial, trial.turn(READERS["cache"]))


@case("flip in results", long=300, short=0)
def flip_in_results(trial: Trial) -> None:
    """A byte of a result, its rows, or a comparison's records, before report or compare."""
    _flipped(trial, trial.turn(READERS["results"]))
