"""Small jobs of every command, each with what it comes to when nobody disturbs it."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from clipalign.files import SUMS, changed_file
from tests.campaign.cases import Broken, Trial
from tests.campaign.commands import Finished

_WORDS = ("anchor", "candle", "guitar", "hammer")
_PICTURES = 4  # of each word and split
_CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {
            "layers": 2, "width": 32, "head_width": 16, "image_size": 32, "patch_size": 8
        },
        "text_cfg": {
            "context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1
        },
    },
    "preprocess_cfg": {"size": 32},
}  # fmt: skip
_RECIPE = """\
base: {model: "local-dir:tiny", data: prefs, train: {steps: 4, batch_size: 4, averaging: none}}
seeds: [0]
methods:
  reference: {model: base}
  head: {set: {trainable: head, train.checkpoint_every_steps: 2}}
  tower: {set: {trainable: "last:1"}}
  half: {of: tower, transform: {method: interpolate, alpha: 0.5}}
evaluate:
  - {suite: retention, dataset: pictures, splits: [test], options: {resamples: 100}}
"""
STEPS = 9
_TRAINING = (
    "--method", "dpo", "--model", "local-dir:tiny", "--data", "prefs", "--steps", str(STEPS),
    "--batch-size", "4", "--no-eval", "--set", "train.checkpoint_every_steps=2", "--set",
    "train.log_every=1", "-o", "run",
)  # fmt: skip
_SET = ("prepare", "typographic", "--dataset", "pictures", "-o", "set")


@dataclass(frozen=True)
class Job:
    """A command line and what it makes.

    Attributes:
        name: of the job.
        line: its arguments.
        output: what is compared, in the folder where it runs.
        run: whether `output` is a run, which goes on with --resume.
    """

    name: str
    line: tuple[str, ...]
    output: str
    run: bool = False

    def again(self, folder: Path) -> tuple[str, ...]:
        """What a user, or a scheduler's script, says after a stop."""
        if self.run and (folder / self.output / "config.yaml").is_file():
            return "train", "--resume", self.output, "--no-eval"
        return self.line


def _train(name: str, trainable: str, *more: str) -> Job:
    return Job(name, ("train", "--trainable", trainable, *_TRAINING, *more), "run", run=True)


HEAD = _train("head", "head", "--set", "train.validate_every=3")
TOWER = _train("image-encoder", "image-encoder")
LAST = _train("last:1", "last:1")
LORA = _train("lora:2", "lora:2", "--set", "train.averaging=ema")
TRAIN = (HEAD, TOWER, LAST, LORA)
PREPARE = (
    Job("loose", _SET, "set"),
    Job("loose by workers", (*_SET, "--workers", "2"), "set"),
    Job("shards", (*_SET, "--format", "webdataset", "--shard-size", "7"), "set"),
    Job("one part", (*_SET, "--shard", "0/1"), "set"),
)
_SMALL = ("--dataset", "pictures", "--split", "test", "--set", "resamples=100")
EVAL = (Job("eval", ("eval", "done", "--suite", "retention", *_SMALL, "-o", "results"), "results"),)
TRANSFORM = (
    Job("power", ("transform", "done", "--t", "0.4", "-o", "model"), "model"),
    Job(
        "interpolate",
        ("transform", "tower", "--method", "interpolate", "--alpha", "0.5", "-o", "model"),
        "model",
    ),
)
COMPARE = (Job("compare", ("compare", "recipe.yaml", "-o", "study"), "study"),)
JOBS = (*TRAIN, *PREPARE, *EVAL, *TRANSFORM, *COMPARE)


@dataclass(frozen=True)
class Undisturbed:
    """What a job comes to: its folder, its seconds, and how many writes it takes."""

    folder: Path
    seconds: float
    writes: int


def enter_world(trial: Trial, folder: Path | None = None, cache: Path | None = None) -> Path:
    """Put what jobs read into a folder, as links: a model, pictures, preferences, two runs.

    Args:
        trial: which makes the world where it is the first to want it.
        folder: the trial's own if left out.
        cache: of another folder, to begin with what it holds.
    """
    folder = folder or trial.folder
    world = trial.once("world", lambda place: _make_world(trial, place))
    for path in world.iterdir():
        (folder / path.name).symlink_to(path)
    if cache is not None:
        shutil.copytree(cache, folder / ".cache")
    return folder


def undisturbed(trial: Trial, job: Job) -> Undisturbed:
    """Run a job once for all trials."""

    def make(place: Path) -> None:
        enter_world(trial, place)
        (place / ".cache").mkdir()
        cold = done(trial.run(*job.line, cwd=place))
        warm = place / "warm"  # with the caches filled it takes another time
        warm.mkdir()
        enter_world(trial, warm, place / ".cache")
        counted = done(trial.run(*job.line, cwd=warm, die_before=-1))
        shutil.rmtree(warm)
        facts = {"seconds": cold.seconds, "writes": counted.writes}
        (place / "facts.json").write_text(json.dumps(facts))

    folder = trial.once(f"undisturbed-{job.name.replace(' ', '-')}", make)
    facts = json.loads((folder / "facts.json").read_text())
    return Undisturbed(folder, facts["seconds"], facts["writes"])


def done(finished: Finished) -> Finished:
    """The command, which must have ended well."""
    if finished.code != 0:
        raise Broken("lost", f"{finished.line} ended with {finished.code}: {finished.err[-600:]}")
    return finished


def compare_output(job: Job, folder: Path, whole: Undisturbed, but: Collection[str] = ()) -> None:
    """The job's output is the undisturbed one, byte for byte, with nothing left beside it.

    Args:
        job: which was done.
        folder: where.
        whole: what it comes to.
        but: files that may differ.
    """
    got, wanted = (comparable(contents(f / job.output)) for f in (folder, whole.folder))
    if broken := _broken_sums(folder / job.output):
        raise Broken("lost", f"{job.name}: {broken}")
    if job.run:  # a stop leaves a checkpoint at a step of its own; the last is of the last step
        got, wanted = (_newest_checkpoint(each) for each in (got, wanted))
    names = sorted(got.keys() | wanted.keys())
    differing = [n for n in names if got.get(n) != wanted.get(n) and n not in but]
    if differing:
        missing = [n for n in differing if n not in got]
        extra = [n for n in differing if n not in wanted]
        raise Broken(
            "lost", f"{job.name}: differs in {differing[:5]}; missing {missing}; extra {extra}"
        )
    beside = sorted(
        p.name for p in folder.iterdir() if p.name.startswith(".") and p.name != ".cache"
    )
    if left := [name for name in beside if not name.endswith(".lock")]:
        raise Broken("lost", f"{job.name}: {left} left behind")


def contents(root: Path) -> dict[str, bytes]:
    """All files below, by name; but for locks, and what `clipalign.files` says may be deleted."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and not path.name.endswith(".lock")
        and not (path.name.startswith(".clipalign-") and path.parent.name != "checkpoints")
    }


def comparable(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files without the place where they were made, which configurations record whole."""
    place = re.compile(rb"/[^\s\"'`]*?/(?:work|shared)/[^/\s\"'`]+/(?:disk/)?")
    digest = re.compile(rb'"sha256": "[0-9a-f]{64}"')
    found = {}
    for name, data in files.items():
        if name.endswith("SHA256SUMS"):
            continue
        if name.endswith((".json", ".yaml", ".md", ".jsonl", ".csv")) and place.search(data):
            data = digest.sub(b"", place.sub(b"", data))
        elif name.endswith("linear_map.safetensors"):  # its header names the model that it is for
            data = data[8 + int.from_bytes(data[:8], "little") :]
        found[name] = data
    return found


def _broken_sums(root: Path) -> str | None:
    """What a list of hashes says of a file that is not what was written."""
    lists = sorted(root.rglob(SUMS)) if root.is_dir() else []
    for sums in lists:
        names = [line.split(maxsplit=1)[1] for line in sums.read_text().splitlines()]
        if changed := changed_file(sums.parent, names):
            return changed
    return None


def _newest_checkpoint(files: Mapping[str, bytes]) -> dict[str, bytes]:
    newest = max(
        (n.split("/")[1] for n in files if n.startswith("checkpoints/step-")), default="none"
    )
    old = "checkpoints/step-"
    return {n: b for n, b in files.items() if not n.startswith(old) or n.split("/")[1] == newest}


def whole_checkpoint(run: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    steps = [int(p.name.removeprefix("step-")) for p in (run / "checkpoints").glob("step-*")]
    return max(steps, default=0)


# --- The world ------------------------------------------------------------------------------------


def _make_world(trial: Trial, place: Path) -> None:
    # where torch is imported already
    running = trial.zygote.start([str(place)], cwd=place, call="tests.campaign.jobs:make_inputs")
    done(running.wait(100))
    (place / "recipe.yaml").write_text(_RECIPE)
    done(trial.run(*_SET[:-1], "prefs", cwd=place))
    for name, part in (("done", "head"), ("tower", "last:1")):
        done(trial.run("train", "--trainable", part, *_TRAINING[:-1], name, cwd=place))
    shutil.rmtree(place / ".cache")


def make_inputs(folder: str) -> None:
    """Make the pictures and the model of a world."""
    _pictures(Path(folder) / "pictures")
    _tiny_model(Path(folder) / "tiny")


def _pictures(folder: Path) -> None:
    from clipalign.datasets.emoji import compose, emoji_table, sprite

    for split in ("train", "validation", "test"):
        for emoji in (e for e in emoji_table() if e.label in _WORDS):
            target = folder / split / emoji.label
            target.mkdir(parents=True)
            for view, style in zip(range(_PICTURES), emoji.styles, strict=False):
                rng = random.Random(f"{split}{emoji.label}{view}")
                compose(sprite(emoji.index, style), rng, split).save(target / f"{view}.png")


def _tiny_model(folder: Path) -> None:
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip = open_clip.CLIP(**_CONFIG["model_cfg"])
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(_CONFIG))


def stamp(path: Path) -> tuple[int, int]:
    """What changes when a file is written again."""
    facts = os.stat(path)
    return facts.st_ino, facts.st_mtime_ns
