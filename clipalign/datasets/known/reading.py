"""The rows of a known dataset: from lists, tables, JSON, MATLAB files or the names of files."""

from __future__ import annotations

import csv
import functools
import importlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clipalign.datasets.known.description import Part
from clipalign.errors import DataError

__all__ = ["Found", "found_in", "present", "wordnet_names"]

Found = tuple[str, dict[str, str] | None]
"""What a row is called, and its fields (`image` among them); None where it cannot be read."""


def present(base: Path, part: Part) -> bool:
    """Whether what lists the images of a part is there."""
    if part.huggingface:
        saved = ("state.json", "dataset_dict.json")
        return any((base / name).is_file() for name in saved) or any(base.rglob("*.parquet"))
    pattern = part.index or part.files
    return any(True for _ in _matching(base, str(pattern)))


def found_in(base: Path, part: Part) -> Iterator[Found]:
    """The rows of one part, in a stable order.

    Raises:
        DataError: a list cannot be read.
    """
    if part.files is not None:
        yield from _from_files(base, part)
        return
    index = list(_matching(base, str(part.index)))[-1]
    try:
        if part.mat is not None:
            yield from _from_mat(base, index, part)
        elif part.lines is not None:
            yield from _from_lines(index, part)
        elif part.table is not None:
            yield from _from_table(index, part)
        else:
            yield from _from_json(index, part)
    except (OSError, UnicodeDecodeError, ValueError, KeyError, csv.Error) as error:
        words = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(f"{index} cannot be read as the list of images: {words}.") from None


def _matching(base: Path, pattern: str) -> Iterator[Path]:
    """Files and folders that a pattern names, sorted."""
    if pattern == ".":
        yield base
        return
    yield from sorted(base.glob(pattern))


def _from_files(base: Path, part: Part) -> Iterator[Found]:
    assert part.files is not None
    assert part.pattern is not None
    for folder in _matching(base, part.files):
        for where, folders, files in os.walk(folder):
            folders.sort()
            for file in sorted(files):
                name = (Path(where) / file).relative_to(base).as_posix()
                if match := part.pattern.fullmatch(name):
                    yield name, {**match.groupdict(), "image": name}


def _from_lines(index: Path, part: Part) -> Iterator[Found]:
    assert part.pattern is not None
    for number, line in enumerate(index.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            match = part.pattern.fullmatch(line.strip())
            yield _named(f"{index.name}#{number}", match and match.groupdict(), part)


def _from_table(index: Path, part: Part) -> Iterator[Found]:
    with index.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t" if index.suffix.lower() == ".tsv" else ",")
        wanted = [*part.columns.values()]
        if missing := [name for name in wanted if name not in (rows.fieldnames or ())]:
            raise ValueError(f"it has no column {', '.join(missing)}")
        for number, row in enumerate(rows, 2):
            cells = {name: cell or "" for name, cell in row.items() if isinstance(name, str)}
            yield _named(f"{index.name}#{number}", cells, part)


def _from_json(index: Path, part: Part) -> Iterator[Found]:
    tree = json.loads(index.read_text(encoding="utf-8"))
    if not isinstance(tree, dict):
        raise ValueError("it is no JSON object")
    for key, row in tree.items():
        whole = isinstance(row, dict)
        cells = {**{n: str(c) for n, c in row.items()}, "key": key} if whole else None
        yield _named(key, cells, part)


def _named(name: str, cells: Mapping[str, str] | None, part: Part) -> Found:
    """The fields of a row; None where it lacks one."""
    if cells is None:
        return name, None
    try:
        fields = {field: cells[column].strip() for field, column in part.columns.items()}
        image = (part.image or "{image}").format_map(cells)
    except KeyError:
        return name, None
    if not part.columns:
        fields = {field: cell for field, cell in cells.items() if field != "image"}
    return name, {**fields, "image": image}


def _from_mat(base: Path, index: Path, part: Part) -> Iterator[Found]:
    try:
        load: Any = importlib.import_module("scipy.io").loadmat
    except ImportError:
        raise DataError(f"Reading {index} needs scipy: `pip install 'clipalign[mat]'`.") from None
    if part.mat == "cars":
        names = load(base / "devkit" / "cars_meta.mat", squeeze_me=True)["class_names"].tolist()
        for row in load(index, squeeze_me=True)["annotations"].reshape(-1):
            cells = {"image": str(row["fname"]), "label": str(names[int(row["class"]) - 1])}
            yield _named(cells["image"], cells, part)
        return
    labels = load(base / "imagelabels.mat", squeeze_me=True)["labels"].tolist()
    flowers = _flower_names()
    for number in load(index, squeeze_me=True)[part.part].tolist():
        cells = {"image": f"{number:05}", "label": flowers[labels[number - 1] - 1]}
        yield _named(f"image {number}", cells, part)


def _flower_names() -> list[str]:
    """The names that go with the numbers, as torchvision has them."""
    flowers: Any = importlib.import_module("torchvision.datasets").Flowers102
    names = getattr(flowers, "classes", None)
    if names is None:
        raise DataError("The names of the flowers need torchvision 0.22 or newer: update it.")
    return [str(name).rstrip("?") for name in names]


@functools.cache
def wordnet_names() -> Mapping[str, str]:
    """WordNet id → the class name that CLIP is asked for, of the 1,000 classes of ImageNet."""
    ids = importlib.import_module("timm.data").ImageNetInfo().label_names()
    names = importlib.import_module("open_clip").IMAGENET_CLASSNAMES
    return dict(zip(ids, names, strict=True))
