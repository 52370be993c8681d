"""Preference sets that somebody changed, with and without putting the hashes right."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import yaml

from clipalign.files import canonical_json
from tests.campaign import broken_images as make
from tests.campaign.cases import Broken, Trial, case
from tests.campaign.hostile import attempt, canary

WILD: tuple[Any, ...] = (
    None, True, -1, 0, 10**400, 1.5, "", "x", "\x1b[31m", "\u202e", "\ud800", [], {}, [[]],
    {"a": 1},
    "../../canary/secret.png", "/etc/passwd", "/dev/zero", "images", "images/out.png",
    "images/pipe.png",
    "a" * 5000, "images/../../../canary/secret.png", "\0", 2**63, "train/../..", "images/none.png",
)  # fmt: skip


def make_set(folder: Path) -> None:
    """A set of eight rows, loose and in tar shards."""
    from clipalign import prepare

    for label in ("apple", "pear"):
        (folder / "photos" / label).mkdir(parents=True)
        for i in range(2):
            (folder / "photos" / label / f"{i}.png").write_bytes(make.picture("png", "RGB", 40))
    for form in ("imagefolder", "webdataset"):
        prepare("typographic", folder / "photos", folder / form, format=form)  # type: ignore[arg-type]


def reseal(folder: Path, tree: dict[str, Any]) -> None:
    """Write a manifest with its hashes put right, as far as it can have any."""
    files = tree.get("files")
    for name in files if isinstance(files, dict) else ():
        if isinstance(name, str) and (folder / name).is_file():
            files[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    defaults = {"scope": "all", "shard_rows": None}
    content = {
        k: v
        for k, v in tree.items()
        if k != "content_sha256" and (k not in defaults or v != defaults[k])
    }
    try:
        tree["content_sha256"] = hashlib.sha256(canonical_json(content)).hexdigest()
        text = yaml.safe_dump(tree, sort_keys=False)
    except (TypeError, ValueError, yaml.YAMLError):
        return
    (folder / "manifest.yaml").write_text(text)


def spoil(rng: random.Random, folder: Path, outside: Path) -> None:
    """Change one thing or several, then most often put the hashes right."""
    table = folder / "train" / "metadata.jsonl"
    tree = yaml.safe_load((folder / "manifest.yaml").read_text())
    kind = rng.randrange(12)
    if kind < 5:
        rows = [json.loads(line) for line in table.read_bytes().splitlines()]
        for _ in range(rng.choice((1, 2, 5))):
            row = rng.choice(rows)
            row[rng.choice([*row, "file_name", "clean_file_name", "sha256", "chosen"])] = (
                rng.choice(WILD)
            )
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == 5:
        extra = rng.choice(
            (b"[" * 99_999, b"null", b"\xff", b"{}", b"9" * 5000, b"{" * 9, b"x" * (1 << 21))
        )
        table.write_bytes(table.read_bytes() + extra + b"\n")
    elif kind == 6:
        table.write_bytes(rng.choice(make.DAMAGES)(rng, table.read_bytes()))
    elif kind == 7:
        file = folder / rng.choice(("train/metadata.jsonl", "manifest.yaml", "train/images", "x"))
        if file.is_dir():
            shutil.rmtree(file)
            file.symlink_to(outside)
        else:
            file.unlink(missing_ok=True)
            rng.choice((os.mkfifo, lambda f: f.symlink_to("/dev/zero"), Path.mkdir))(file)
            tree["files"]["x"] = "0" * 64
    elif kind == 8:
        images = sorted((folder / "train").rglob("*.*g")) or sorted(folder.rglob("*.tar"))
        image = rng.choice(images)
        data = image.read_bytes()
        image.unlink()
        rng.choice((
            lambda: image.symlink_to(outside / "secret.png"), lambda: os.mkfifo(image),
            lambda: image.write_bytes(make.damaged(rng)[0]), lambda: image.write_bytes(data[:-9]),
        ))()  # fmt: skip
    else:
        for _ in range(rng.choice((1, 1, 3))):
            inner = rng.choice([tree, tree["counts"], tree["files"], tree["counts"].get("train")])
            if not isinstance(inner, dict):  # spoilt before, or gone
                inner = tree
            key = rng.choice([*inner, "../x", "\u202e", "train/../../x"]) if inner else "x"
            inner[key] = rng.choice(WILD)
            tree.setdefault("counts", {}), tree.setdefault("files", {})
            if not all(isinstance(tree[k], dict) for k in ("counts", "files")):
                break
    if (folder / "manifest.yaml").is_file() and rng.random() < 0.8:
        reseal(folder, tree)


@case("changed sets", long=24)
def changed_sets(trial: Trial) -> None:
    """`train --data` on tables and manifests that were changed: noticed, and named."""
    made = trial.once("set", make_set)
    outside = canary(trial)
    model = trial.folder / "model"  # is looked at after the set
    model.mkdir()
    (model / "open_clip_config.json").write_text("{}")
    trial.inputs = 8 if trial.number == 0 else 30
    for number in range(trial.inputs):
        form = trial.rng.choice(("imagefolder", "webdataset"))
        folder = trial.folder / f"set-{number}"
        shutil.copytree(made / form, folder, symlinks=True)
        spoil(trial.rng, folder, outside)
        done = attempt(
            trial, "train", "--data", folder.name, "--model", "local-dir:model", "-o",
            f"out-{number}"
        )  # fmt: skip
        if done.code == 0:
            raise Broken("lost", f"{done.line}: trained a model that is none")
        if done.code not in (5, 6):
            raise Broken("lost", f"{done.line}: code {done.code}: {done.err[-300:]}")
        if done.code == 5 and folder.name not in done.err:
            raise Broken("lost", f"{done.line}: does not name the set: {done.err[-300:]}")
