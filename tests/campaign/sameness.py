"""The same bytes again: of a configuration alone, from any folder, by any number of workers."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import yaml
from PIL import Image

from clipalign.tasks.concepts.file import concept_path
from tests.campaign.cases import Broken, Trial, case

STEPS = ("--no-eval", "--set=train.steps=3", "--set=train.batch_size=6", "--set=train.log_every=1")
EMOJI = "--set=dataset_options={concepts: 12, train_views: 1}"
PEOPLE = "--set=dataset_options={views: 1}"


def photos(folder: Path, *splits: str) -> None:
    """Three classes of patterned pictures, a few of each."""
    for split in splits or ("train", "validation", "test"):
        for c, name in enumerate(("apple", "pear", "plum")):
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(4):
                rng = random.Random(f"{split}/{name}/{i}")
                image = Image.new("RGB", (48, 40), (80 * c, 30 * i, 90))
                for _ in range(200):
                    image.putpixel((rng.randrange(48), rng.randrange(40)), (255, 9 * i, 80 * c))
                image.save(place / f"{i}.png")


def judgements(folder: Path) -> None:
    """A table of preferences beside its images."""
    photos(folder / "pictures", "train")
    rows = ["image,chosen,rejected"]
    for path in sorted((folder / "pictures").rglob("*.png")):
        label = path.parent.name
        other = {"apple": "pear", "pear": "plum", "plum": "apple"}[label]
        rows.append(f"{path.relative_to(folder)},a {label}.,a {other}.")
    (folder / "my.csv").write_text("\n".join(rows) + "\n")


Prepare = Callable[[Trial, Path], None]


def _photos(trial: Trial, folder: Path) -> None:
    photos(folder / "photos")


def _table(trial: Trial, folder: Path) -> None:
    judgements(folder)


def _set(trial: Trial, folder: Path) -> None:
    photos(folder / "photos")
    trial.run("prepare", "typographic", "--dataset", "photos", "-o", "prefs", cwd=folder)


def _shards(trial: Trial, folder: Path) -> None:
    photos(folder / "photos")
    line = ("prepare", "typographic", "--dataset", "photos", "-o", "prefs", "--format=webdataset")
    trial.run(*line, cwd=folder)


def _model(trial: Trial, folder: Path) -> None:
    trial.run("train", *STEPS, EMOJI, "--trainable=head", "-o", "first", cwd=folder)


def _recipe(trial: Trial, folder: Path) -> None:
    photos(folder / "photos")
    recipe = {"method": "dpo", "dataset": "photos", "train": {"epochs": 1}, "trainable": "head"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def _concept(trial: Trial, folder: Path) -> None:
    (folder / "mine.yaml").write_text(concept_path("gender").read_text())


def _nothing(trial: Trial, folder: Path) -> None:
    pass


SUM = "--set=objective=[{dpo: {weight: 0.7, beta: 0.2}}, {kto: {weight: 0.3}}]"
CONCEPT = (
    *("--task=concept", "--set=task_options={concept: mine.yaml}", "--dataset=emoji-people"),
    *(PEOPLE, "--trainable=head"),
)
EVERYTHING = (
    *(EMOJI, "--method=dpo", "--set=method_options.beta=0.3", "--regulariser=js"),
    *("--set=train.accumulate=2", "--set=train.optimizer=adamax", "--averaging=none"),
    *("--set=train.validate_every=1", "--set=train.early_stopping_patience=1"),
    *("--set=train.layer_decay=0.7", "--set=train.workers=1", "--regulariser-weight=0.4"),
)
RUNS: dict[str, tuple[Prepare, tuple[str, ...]]] = {
    "photos, head": (_photos, ("--dataset", "photos", "--trainable=head")),
    "a sum": (_nothing, (EMOJI, "--trainable=head", SUM)),
    "a prepared set": (_set, ("--data", "prefs", "--trainable=head")),
    "a table": (_table, ("--task=preferences", "--data", "my.csv", "--trainable=head")),
    "gender": (_nothing, ("--task=gender", PEOPLE)),
    "last blocks": (_nothing, (EMOJI, "--trainable=last:1", "--averaging=ema")),
    "lora": (_nothing, (EMOJI, "--trainable=lora:2", "--method=ipo")),
    "image encoder": (_nothing, (EMOJI, "--trainable=image-encoder", "--precision=bf16")),
    "tar shards": (_shards, ("--data", "prefs", "--trainable=last:1")),
    "a local model": (_model, ("--model", "local-dir:first/model", EMOJI, "--trainable=head")),
    "a run as model": (_model, ("--model", "first", EMOJI, "--trainable=last:1")),
    "a recipe": (_recipe, ("--config", "recipe.yaml", "--lr=0.002", "--seed=7")),
    "a concept file": (_concept, CONCEPT),
    "gender, image encoder": (_nothing, ("--task=gender", PEOPLE, "--trainable=image-encoder")),
    "a table, lora": (_table, ("--task=preferences", "--data", "my.csv", "--trainable=lora:1")),
    "images by options": (
        _photos,
        ("--dataset=folder", "--set=dataset_options={root: photos}", "--trainable=head"),
    ),
    "images by name and path": (_photos, ("--dataset=folder:photos", "--trainable=head")),
    "everything set": (_nothing, EVERYTHING),
}


RECIPE = {
    "methods": {"kto": {"set": {"method": "kto"}}, "dpo": {"set": {"method": "dpo"}}},
    "seeds": [0, 1],
    "base": {
        "trainable": "head",
        "dataset_options": {"concepts": 12, "train_views": 1},
        "train": {"steps": 2, "batch_size": 6},
    },
}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def same(one: Path, two: Path, what: str, *but: str) -> None:
    """Two folders hold the same files, byte for byte."""
    first, second = contents(one), contents(two)
    names = {n for n in {*first, *second} if n not in but}
    if not names:
        raise Broken("lost", f"{what}: nothing was written")
    if differing := sorted(n for n in names if first.get(n) != second.get(n)):
        raise Broken("lost", f"{what}: other bytes in {', '.join(differing[:5])}")


def again(trial: Trial, name: str) -> None:
    """Train; then from another folder, with nothing but the run's config.yaml, once more."""
    prepare, options = RUNS[name]
    here, elsewhere = trial.folder / "here", trial.folder / "else" / "where"
    here.mkdir()
    elsewhere.mkdir(parents=True)
    env = {"CLIPALIGN_CACHE": str(trial.shared / "cache")}
    prepare(trial, here)
    lines = [
        (here, ("train", *STEPS, *options, "-o", "run")),
        (elsewhere, ("train", "--no-eval", "--config", str(here / "run/config.yaml"), "-o", "run")),
    ]
    for cwd, line in lines:
        done = trial.run(*line, cwd=cwd, env=env, timeout=400)
        if done.code != 0:
            raise Broken("lost", f"{name}: {done.line}: {done.err[-400:]}")
    same(here / "run", elsewhere / "run", name)


@case("the same run of its config alone", long=2 * len(RUNS))
def config_alone(trial: Trial) -> None:
    """`train --config RUN/config.yaml` elsewhere gives the same directory, byte for byte."""
    again(trial, list(RUNS)[trial.number % len(RUNS)])


@case("the same preference set", long=12)
def preference_set(trial: Trial) -> None:
    """Workers, parts and their order change no byte of a preference set, loose or in shards."""
    photos(trial.folder / "photos")
    form = ("imagefolder", "webdataset")[trial.number % 2]
    common = ("prepare", "typographic", "--dataset", "photos", "--format", form)

    def prepared(name: str, *more: str) -> Path:
        done = trial.run(*common, *more, "-o", name, timeout=120)
        if done.code != 0:
            raise Broken("lost", f"{done.line}: {done.err[-400:]}")
        return trial.folder / name

    first = prepared("first")
    parts = trial.rng.randrange(2, 5)
    order = list(range(parts))
    trial.rng.shuffle(order)
    for part in order:
        shared = prepared("shared", "--shard", f"{part}/{parts}")
    same(first, shared, f"{form}, parts {order}")
    if trial.number:  # processes of their own take seconds
        for workers in (1, 2, 3):
            same(first, prepared(f"by-{workers}", f"--workers={workers}"), f"{workers} workers")


@case("the same results, report and card", long=4)
def results(trial: Trial) -> None:
    """Measured twice, shown twice: equal bytes, whatever is cached and wherever it is."""
    env = {"CLIPALIGN_CACHE": str(trial.shared / "cache")}
    places = trial.folder / "one", trial.folder / "two"
    for number, place in enumerate(places):
        place.mkdir()
        photos(place / "photos")
        (place / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
        kept = () if number else ("--no-cache",)
        suites = ("--suite=typographic", "--suite=retention")
        lines = [
            ("train", *STEPS, EMOJI, "--trainable=head", "-o", "run"),
            ("transform", "run", "--t", "0.4", "-o", "turned"),
            ("export", "run", "-o", "exported"),
            ("retrieve", "a pear.", "run", "--dataset", "photos", "-o", "found.png"),
        ]
        if trial.number:  # minutes on a busy machine
            lines += [
                ("eval", "run", "--dataset", "photos", "--split=test", *suites, *kept),
                ("report", "run", "-o", "first.html"),
                ("report", "run", "-o", "report.html"),
                ("compare", "recipe.yaml", "-o", "compared"),
            ]
        for line in lines:
            done = trial.run(*line, cwd=place, env=env, timeout=600)
            if done.code != 0:
                raise Broken("lost", f"{done.line}: {done.err[-400:]}")
        shown = [place / name for name in ("first.html", "report.html") if trial.number]
        if len({page.read_bytes() for page in shown}) > 1:
            raise Broken("lost", "a report of the same results differs when it is made again")
    same(*places, "results, report and card")
