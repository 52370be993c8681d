"""Check a dataset on disk: what is there, what is missing, and what cannot be read."""

from __future__ import annotations

import hashlib
import importlib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from clipalign.datasets.base import Dataset, Example, rgb_image
from clipalign.datasets.known.description import Description
from clipalign.errors import DataError
from clipalign.files import storage_errors
from clipalign.progress import Reporter

__all__ = ["Checked", "SharedPictures", "SplitCheck", "check_dataset", "download"]

_PROBLEMS = 20  # kept of each split
_SHARED = 5  # pictures that are named, of two splits that share some

_Digests: TypeAlias = npt.NDArray[np.uint64]
"""[N] of the pixels of a split's images, 8 bytes each, so that millions fit; 0 where unreadable."""


@dataclass(frozen=True)
class SplitCheck:
    """What one split came to.

    Attributes:
        images: that are listed and there.
        classes: of them.
        smallest, largest: images of the smallest and of the largest class; 0 without classes.
        expected: images of a whole copy, where that is known.
        unusable: how many were passed over or cannot be read.
        problems: the first of them, each with its reason.
        attributes: names of the further columns.
    """

    images: int
    classes: int
    smallest: int
    largest: int
    expected: int | None
    unusable: int
    problems: list[str]
    attributes: list[str]


@dataclass(frozen=True)
class SharedPictures:
    """Pictures that two splits have in common, pixel for pixel.

    Attributes:
        splits: the two; the later one is what the count is of.
        images: of the later split that are in the earlier one too.
        examples: keys of the first of them: in the earlier split, in the later one.
    """

    splits: tuple[str, str]
    images: int
    examples: list[tuple[str, str]]


@dataclass(frozen=True)
class Checked:
    """What a dataset came to.

    Attributes:
        splits: by name.
        missing: splits of a whole copy that are not there.
        differences: of a whole copy, one sentence each.
        shared: by two splits: what was trained on is then tested on. Known where images were read.
        decoded: whether every image was read.
    """

    splits: dict[str, SplitCheck]
    missing: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    shared: list[SharedPictures] = field(default_factory=list)
    decoded: bool = True

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with what is there; a split may be missing, or share some."""
        return not self.differences and not any(s.unusable for s in self.splits.values())


def check_dataset(
    dataset: Dataset, say: Reporter, *, decode: bool = True, workers: int = 2
) -> Checked:
    """Count, compare with a whole copy where one is known, and read and compare every image.

    Args:
        dataset: any.
        say: hears the progress.
        decode: read every image; False looks at names and sizes alone.
        workers: threads that read.
    """
    known: Description | None = getattr(dataset, "description", None)
    counts = known.counts if known else {}
    splits, digests = {}, {}
    for split in dataset.splits():
        broken: list[tuple[str, str]] = []
        if decode:
            broken, digests[split] = _read(dataset, split, say, workers)
        splits[split] = _check_split(dataset, split, counts.get(split), broken)
    missing = [s for s in (known.split_names if known else ()) if s not in splits]
    differences = [
        f"{split}: {found.images:,} images, and a whole copy has {found.expected:,}"
        for split, found in splits.items()
        if found.expected is not None and found.images != found.expected
    ]
    totals = {"images": sum(s.images for s in splits.values()), "classes": len(dataset.classnames)}
    for what, found_count in totals.items():
        wanted = counts.get(what)
        if wanted is not None and wanted != found_count:
            differences.append(f"{found_count:,} {what}, and a whole copy has {wanted:,}")
    if not any(s.images for s in splits.values()):
        differences.append("there is no image")
    return Checked(splits, missing, differences, _shared(dataset, digests), decode)


def _check_split(
    dataset: Dataset, split: str, expected: int | None, broken: list[tuple[str, str]]
) -> SplitCheck:
    examples = dataset.examples(split)
    of_dataset: Any = getattr(dataset, "skipped", None)
    skipped = list(of_dataset(split)) if of_dataset else []
    problems = [f"{name}: {reason}" for name, reason in [*skipped, *broken]]
    sizes = Counter(e.label for e in examples if e.label)
    return SplitCheck(
        images=len(examples),
        classes=len(sizes),
        smallest=min(sizes.values(), default=0),
        largest=max(sizes.values(), default=0),
        expected=expected,
        unusable=len(problems),
        problems=problems[:_PROBLEMS],
        attributes=sorted({name for e in examples for name in e.attributes}),
    )


def _read(
    dataset: Dataset, split: str, say: Reporter, workers: int
) -> tuple[list[tuple[str, str]], _Digests]:
    """Images of a split that cannot be read, each with the reason; and the digests of all."""
    examples = dataset.examples(split)
    digests, broken = np.zeros(len(examples), np.uint64), []

    def look(example: Example) -> tuple[int, str | None]:
        try:
            image = rgb_image(dataset, example)
        except DataError as error:
            return 0, str(getattr(error, "reason", error))
        content = f"{image.size}".encode() + image.tobytes()
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big"), None

    with (
        ThreadPoolExecutor(workers) as pool,
        say.progress(f"Reading {split}", len(examples)) as bar,
    ):
        for start in range(0, len(examples), 1024):  # a few at a time: flat memory
            part = examples[start : start + 1024]
            for i, (digest, reason) in enumerate(pool.map(look, part), start):
                bar.advance()
                digests[i] = digest
                if reason is not None:
                    broken.append((examples[i].key, reason))
    return broken, digests


def _shared(dataset: Dataset, digests: Mapping[str, _Digests]) -> list[SharedPictures]:
    """What each two splits have in common."""
    found = []
    for (one, there), (other, here) in combinations(digests.items(), 2):
        both = np.intersect1d(there, here)
        [rows] = np.isin(here, both[both > 0]).nonzero()
        if not len(rows):
            continue
        first, later = dataset.examples(one), dataset.examples(other)
        names = [
            (first[int((there == here[row]).argmax())].key, later[row].key)
            for row in rows[:_SHARED].tolist()
        ]
        found.append(SharedPictures((one, other), len(rows), names))
    return found


def download(description: Description, root: Path, say: Reporter) -> None:
    """Let torchvision download a dataset into a folder. Says what and where before it starts.

    Raises:
        DataError: torchvision does not offer it, or it could not be downloaded.
    """
    if description.torchvision is None:
        raise DataError(
            f"{description.title} cannot be downloaded by clipalign. It comes from "
            f"{description.source}; expected is {description.layout}."
        )
    say.note(
        f"Downloading {description.title} into {root} with torchvision, from its authors "
        f"({description.source}). Licence: {description.licence}."
    )
    kind: Any = getattr(importlib.import_module("torchvision.datasets"), description.torchvision)
    try:
        with storage_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            kind(root=str(root), download=True)
    except (OSError, RuntimeError, ValueError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{description.title} could not be downloaded: {words}. Fetch it from "
            f"{description.source} by hand."
        ) from None
