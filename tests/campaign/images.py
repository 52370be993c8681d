"""Hostile images, in folders and tables, through `prepare` and `eval`."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.campaign import broken_images as make
from tests.campaign.cases import Broken, Trial, case
from tests.campaign.hostile import accounted, attempt, canary, quarantine, rows, write_jsonl

CLASSES = ("apple", "pear")


def folder_of(place: Path, rng: random.Random, count: int) -> int:
    """Fill folders of classes with damaged images; a sound one in each. How many there are."""
    for name in CLASSES:
        (place / name).mkdir(parents=True)
        (place / name / "sound.png").write_bytes(make.picture("png", "RGB"))
    for number in range(count):
        data, ending = make.damaged(rng)
        if rng.random() < 0.2:
            ending = rng.choice(make.ENDINGS).lstrip(".")
        (place / rng.choice(CLASSES) / f"{number:04}.{ending}").write_bytes(data)
    return count + len(CLASSES)


def prepare(trial: Trial, dataset: str, *more: str, given: int) -> None:
    """`prepare typographic` of it: every image is used or quarantined."""
    done = attempt(trial, "prepare", "typographic", "--dataset", dataset, "-o", "out", *more)
    accounted(trial, done, "out", given)
    if done.code:
        raise Broken("lost", f"{done.line}: sound images were refused too: {done.err[-400:]}")


@case("damaged images prepare", long=24)
def damaged_images(trial: Trial) -> None:
    """A folder of damaged images: each is used or quarantined with a reason."""
    count = 30 if trial.number == 0 else 250
    trial.inputs = count
    prepare(trial, "in", given=folder_of(trial.folder / "in", trial.rng, count))


@case("damaged images eval", long=6)
def damaged_images_eval(trial: Trial) -> None:
    """The same for `eval`: it measures what can be read, and says what cannot."""
    count = 20 if trial.number == 0 else 150
    trial.inputs = count
    given = folder_of(trial.folder / "in", trial.rng, count)
    done = attempt(trial, "eval", "emoji-tiny", "--dataset", "in", "-o", "out")
    if done.code:
        raise Broken("lost", f"{done.line}: sound images were refused too: {done.err[-400:]}")
    [file] = (trial.folder / "out").glob("*.rows.jsonl")
    said = {row["key"]: row.get("unreadable") for row in map(json.loads, file.open())}
    if len(said) != given or "" in said.values():
        raise Broken("lost", f"{done.line}: {given} images, and rows of {len(said)}")


@case("damaged images table", long=8)
def damaged_images_table(trial: Trial) -> None:
    """The same, named by a table, for either task."""
    count = 20 if trial.number == 0 else 150
    trial.inputs = count
    given = folder_of(trial.folder / "in", trial.rng, count)
    files = [p for c in CLASSES for p in sorted((trial.folder / "in" / c).iterdir())]
    own = trial.number % 2 == 1
    write_jsonl(
        trial.folder / "in" / "table.jsonl",
        (
            {"image": f"{p.parent.name}/{p.name}"}
            | ({"chosen": p.parent.name, "rejected": "a plum"} if own else {"label": p.parent.name})
            for p in files
        ),
    )
    task = "preferences" if own else "typographic"
    done = attempt(trial, "prepare", task, "--dataset", "in/table.jsonl", "-o", "out")
    accounted(trial, done, "out", given)


@case("every cut", long=4)
def every_cut(trial: Trial) -> None:
    """One image cut at every place, in the formats by turns."""
    ending = ("png", "jpg", "gif", "webp")[trial.number % 4]
    data = make.picture(ending, make.FORMATS[ending][1][0], 8)
    place = trial.folder / "in"
    folder_of(place, trial.rng, 0)
    step = 8 if trial.number == 0 else 1
    cuts = range(0, len(data), step)
    trial.inputs = len(cuts)
    for end in cuts:
        (place / "apple" / f"cut-{end:04}.{ending}").write_bytes(data[:end])
    prepare(trial, "in", given=len(cuts) + 2)


@case("enormous images", long=2)
def enormous_images(trial: Trial) -> None:
    """Decompression bombs, 30,000 × 30,000 pixels, headers that lie: little memory, little time."""
    place = trial.folder / "in"
    folder_of(place, trial.rng, 0)
    for name, data in make.bombs().items():
        (place / "apple" / name).write_bytes(data)
    trial.inputs = len(make.bombs())
    done = attempt(
        trial, "prepare", "typographic", "--dataset", "in", "-o", "out",
        limits={"RLIMIT_AS": 7 << 30}, timeout=90,
    )  # fmt: skip
    accounted(trial, done, "out", trial.inputs + 2)
    refused = {Path(row["file"]).name for row in quarantine(trial.folder / "out")}
    if missing := {"30000x30000.png", "30000x30000-rgb.png", "line.png", "claims.jpg"} - refused:
        raise Broken("lost", f"not refused: {missing}")


@case("odd images", long=4)
def odd_images(trial: Trial) -> None:
    """Every mode, rotation and animation; no images; odd names; pipes, devices, links."""
    place = trial.folder / "in"
    given = folder_of(place, trial.rng, 0)
    apple = place / "apple"
    for ending, (_, modes) in make.FORMATS.items():
        for mode in modes:
            (apple / f"mode-{mode.replace(';', '')}.{ending}").write_bytes(
                make.picture(ending, mode)
            )
            (apple / f"one-{mode.replace(';', '')}.{ending}").write_bytes(
                make.picture(ending, mode, 1)
            )
    for orientation in (*range(10), 65535):
        (apple / f"turned-{orientation}.jpg").write_bytes(make.turned(orientation))
    for ending in ("gif", "webp", "png"):
        (apple / f"animated.{ending}").write_bytes(make.animated(ending))
        (apple / f"animated-{ending}.jpg").write_bytes(make.animated(ending))
    good = len(list(apple.iterdir())) - 1
    for name, data in make.STRANGE.items():
        (apple / name).write_bytes(data)
    odd = make.odd_files(place / "pear", canary(trial), trial.rng)
    trial.inputs = good + len(make.STRANGE) + odd
    prepare(trial, "in", given=given + trial.inputs)
    used = {row["source_key"] for row in rows(trial.folder / "out")}
    kept = {f"apple/{p.name}" for p in apple.iterdir() if not p.name.startswith("one-")}
    if lost := kept - used - {f"apple/{name}" for name in make.STRANGE}:
        raise Broken("lost", f"sound images were not used: {sorted(lost)}")
    if leaked := used & {f"pear/{n}.png" for n in ("out", "device", "text", "pipe", "nowhere")}:
        raise Broken("escape", f"read through a link or a pipe: {leaked}")
