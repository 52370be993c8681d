"""Dataset `webdataset`: images in tar shards, each beside what is known of it."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from clipalign.datasets.base import Example, dated
from clipalign.datasets.images import MAX_BYTES, UnreadableImage, read_image
from clipalign.datasets.options import (
    DEFAULT_TEMPLATES,
    SPLIT_NAMES,
    Label,
    Template,
    in_order,
    label_problem,
    label_text,
    of_split,
    split_name,
)
from clipalign.datasets.shards import Member, Sample, read_at, samples
from clipalign.errors import DataError
from clipalign.files import canonical_json, parse_json, read_regular, sha256_bytes
from clipalign.option_flags import dataset_option

__all__ = ["WebDataset"]

_IMAGES = ("jpg", "jpeg", "png", "webp")
_TEXTS = ("txt", "cls")
_MAX_TEXT = 1 << 20  # bytes
_NO_ATTRIBUTES: Mapping[str, str] = {}
NAMES = "classnames.txt"
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_MOST_SHARDS = 1_000_000


class WebDataset:
    """Images in tar shards: `000042.jpg` beside `000042.json`, `000042.cls` or `000042.txt`.

    The class is what the JSON calls `label`, or else what `cls` says: a name, or a number that
    counts the names from 0 (option `classnames`, or a file classnames.txt beside the shards, one a
    line). All other values of the JSON and the `txt` are attributes. A shard belongs to the split
    that a part of its name or its folder names (`train-000001.tar`, `test/0.tar`), else to `train`.

    Only headers and texts are read when the dataset is opened; an image is read in its place when
    it is wanted. Samples that cannot be used are passed over and counted (`skipped`).

    Raises:
        DataError: no shards, a shard that is damaged or compressed, no images, numbers as labels
            without names.
    """

    name = "webdataset"

    class Options(BaseModel):
        """Options of the dataset."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        path: Path = Field(
            description="A folder of .tar files, one of them, or a pattern with * or {000..012}."
        )
        label: str | None = Field(
            None, description="Value of the JSON, cls or txt, for the class; null for label or cls."
        )
        classnames: tuple[Label, ...] | None = Field(
            None, min_length=2, description="Names that numbers stand for, from 0."
        )
        templates: tuple[Template, ...] = Field(
            DEFAULT_TEMPLATES, min_length=1, description="Prompts with one {}; the first is used."
        )
        licence: str = Field("not stated", description="Of the images; goes into the manifest.")

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)
        self.licence = self.options.licence
        self.templates: Sequence[str] = self.options.templates
        self.shards = _shards(self.options.path)
        self._root = _root(self.options.path, self.shards)
        self._names = self.options.classnames or _names_beside(self.shards[0])
        self._examples: dict[str, list[Example]] = {}
        self._skipped: dict[str, list[tuple[str, str]]] = {}
        digest = hashlib.sha256()
        for number, shard in enumerate(self.shards):
            for identity in self._read(number, _split(shard.relative_to(self._root))):
                digest.update(canonical_json(identity))
        examples = [e for split in self._examples.values() for e in split]
        if not examples:
            raise DataError(self._no_images())
        found = {e.label for e in examples if e.label}
        self.classnames: Sequence[str] = self._names or tuple(sorted(found))
        self._same_columns()
        self.fingerprint = sha256_bytes(
            canonical_json([digest.hexdigest(), self.classnames, self.templates])
        )
        changed = [shard.stat().st_mtime_ns for shard in self.shards]
        self.cache_key, self.changed = dated(self.fingerprint, changed), max(changed)

    def splits(self) -> Sequence[str]:
        """The names of the splits: train, validation, test, then others."""
        return in_order(self._examples)

    def examples(self, split: str) -> Sequence[Example]:
        """The images of a split, shard by shard."""
        return of_split(self._examples, split, self.options.path)

    def skipped(self, split: str) -> Sequence[tuple[str, str]]:
        """Samples of a split that were passed over, each with the reason."""
        return self._skipped.get(split, ())

    def image(self, example: Example) -> Image.Image:
        """Read one image as upright RGB."""
        number, offset, size = example.source
        shard = self.shards[number]
        try:
            data = read_at(shard, Member(offset, size))
        except (OSError, EOFError):
            raise UnreadableImage(example.key, f"{shard} is gone or was changed") from None
        return read_image(data, name=example.key)

    # --- Parts ----------------------------------------------------------------------------------

    def _read(self, number: int, split: str) -> Iterator[list[Any]]:
        """Index one shard; gives what identifies each sample."""
        shard = self.shards[number]
        name = shard.relative_to(self._root).as_posix()  # shards of two folders may be called alike
        for sample in samples(shard):
            key = f"{name}/{sample.key}"
            try:
                example = self._example(sample, key, number)
            except ValueError as error:
                self._skipped.setdefault(split, []).append((key, str(error)))
                continue
            self._examples.setdefault(split, []).append(example)
            yield [key, example.source, example.label, dict(example.attributes)]

    def _example(self, sample: Sample, key: str, number: int) -> Example:
        """One sample.

        Raises:
            ValueError: it cannot be used; the message is the reason.
        """
        if sample.problems:
            raise ValueError("; ".join(sample.problems))
        images = [member for ending, member in sample.members.items() if ending in _IMAGES]
        if not images:
            raise ValueError(f"it has no image ({', '.join(_IMAGES)})")
        if len(images) > 1:
            raise ValueError("it has two images")
        if images[0].size > MAX_BYTES:
            raise ValueError(f"its image is larger than {MAX_BYTES >> 20} MiB")
        cells = self._cells(sample, number)
        wanted = ("label", "cls") if self.options.label is None else (self.options.label,)
        column = next((name for name in wanted if name in cells), None)
        label = None if column is None else self._label(cells[column])
        cells = {name: cell for name, cell in cells.items() if name not in (column, "cls")}
        return Example(
            key, label, (number, images[0].offset, images[0].size), key, cells or _NO_ATTRIBUTES
        )

    def _cells(self, sample: Sample, number: int) -> dict[str, str]:
        """What its texts and its JSON say."""
        cells: dict[str, str] = {}
        for ending, member in sample.members.items():
            if ending not in (*_TEXTS, "json"):
                continue
            if member.size > _MAX_TEXT:
                raise ValueError(f"its {ending} is larger than {_MAX_TEXT >> 20} MiB")
            try:
                text = read_at(self.shards[number], member).decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"its {ending} is not UTF-8 text") from None
            if ending != "json":
                cells[ending] = text.strip()
                continue
            try:
                tree = parse_json(text)
            except ValueError:
                tree = None
            if not isinstance(tree, dict):
                raise ValueError("its json is not a JSON object")
            cells |= {name: _cell(value) for name, value in tree.items()}
        return cells

    def _label(self, text: str) -> str | None:
        text = label_text(text)
        if text.isdecimal():
            if self._names is None:
                raise DataError(
                    f"{self.options.path}: classes are numbers, such as {text}. Name them in "
                    f"a file {NAMES} beside the shards, one a line, or with "
                    f"{dataset_option('classnames=[NAME,NAME]')}."
                )
            if int(text) >= len(self._names):
                raise ValueError(f"its class is {text}, and there are {len(self._names)} names")
            text = self._names[int(text)]
        if text and (problem := label_problem(text)):
            raise ValueError(problem)
        return text or None

    def _same_columns(self) -> None:
        """Give every image the same attributes, as the rows of a table have."""
        names = {n for split in self._examples.values() for e in split for n in e.attributes}
        for examples in self._examples.values():
            for i, e in enumerate(examples):
                if len(e.attributes) < len(names):
                    cells = {name: e.attributes.get(name, "") for name in sorted(names)}
                    examples[i] = Example(e.key, e.label, e.source, e.group, cells)

    def _no_images(self) -> str:
        reasons = [reason for split in self._skipped.values() for reason in split][:10]
        lines = "".join(f"\n  {name}: {reason}" for name, reason in reasons)
        return f"There is no image that can be used in {self.options.path}.{lines}"


def _shards(path: Path) -> tuple[Path, ...]:
    """The shards that a path stands for, sorted.

    Raises:
        DataError: there are none, or one that braces name is not there.
    """
    if path.is_dir():
        found = {p for p in path.rglob("*.tar") if p.is_file()}
    elif path.is_file():
        found = {path}
    else:
        found = set()
        for pattern in _expanded(str(path)):
            matching = {p for p in map(Path, glob.glob(pattern, recursive=True)) if p.is_file()}
            if not matching and pattern != str(path):
                raise DataError(f"There is no shard {pattern}, which {path.name} names.")
            found |= matching
    if not found:
        raise DataError(f"There are no shards (.tar) in {path}.")
    return tuple(sorted(found))


def _expanded(pattern: str) -> Iterator[str]:
    """What the braces of a pattern stand for, as in a shell: {000..012} and {train,test}."""
    if (braces := _BRACES.search(pattern)) is None:
        yield pattern
        return
    first, last, words = braces.groups()
    if words is None:
        low, high = int(first), int(last)
        if not low <= high < low + _MOST_SHARDS:
            raise DataError(f"{braces[0]} must count up, to {_MOST_SHARDS:,} shards at most.")
        choices: Iterable[str] = (f"{n:0{len(first)}}" for n in range(low, high + 1))
    else:
        choices = words.split(",")
    for choice in choices:
        yield from _expanded(pattern[: braces.start()] + choice + pattern[braces.end() :])


def _root(path: Path, shards: Sequence[Path]) -> Path:
    """The folder that was named, or the one that all shards lie in."""
    return path if path.is_dir() else Path(os.path.commonpath([shard.parent for shard in shards]))


def _split(shard: Path) -> str:
    """The split that a shard's name names, or else a folder between the root and it."""
    parts = shard.stem.replace(".", "-").replace("_", "-").split("-")
    for word in [*parts, *reversed(shard.parts[:-1])]:
        if word.lower() in SPLIT_NAMES:
            return split_name(word)
    return "train"


def _names_beside(shard: Path) -> tuple[str, ...] | None:
    for folder in (shard.parent, shard.parent.parent):
        if (folder / NAMES).is_file():
            try:
                lines = read_regular(folder / NAMES).decode("utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{folder / NAMES} cannot be read as text: {error}.") from None
            return tuple(label_text(line) for line in lines if line.strip())
    return None


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
