"""The part of `prepare` that runs in worker processes: read, draw, encode, write, hash.

What an image becomes depends on its example and the recipe alone, so the number of workers and the
order in which they finish change no byte. Nothing here imports torch.
"""

from __future__ import annotations

import io
import pickle
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from clipalign.datasets.base import Dataset, Example, rgb_image
from clipalign.errors import ClipAlignError, DataError, PluginError, UsageError
from clipalign.files import sha256_bytes, storage_errors
from clipalign.plugins import blamed, owner_of
from clipalign.tasks.base import PreparedRow, Task
from clipalign.tasks.processes import Processes

__all__ = ["LOOSE", "Outcome", "Recipe", "Workers", "example_number", "shrink"]

PNG_SIDE = 128  # pixels; a PNG of a larger photograph takes ten times as long as its JPEG
_CHUNK = 8  # examples that a worker takes at a time
_AHEAD = 4  # chunks under way for each worker: what bounds the memory

LOOSE = ("images", "clean")
"""Folders of a split's image files."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """What a worker needs to know.

    Attributes:
        task, dataset: picklable.
        seed: of the set.
        max_side: larger images are shrunk to this many pixels; None for never.
        folder: where the set is being written.
    """

    task: Task
    dataset: Dataset
    seed: int
    max_side: int | None
    folder: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one example: rows, or a row of the quarantine."""

    rows: tuple[Row, ...] = ()
    quarantined: Row | None = None


class Workers:
    """Processes that work on a recipe; with 0 of them this process does it."""

    def __init__(self, recipe: Recipe, count: int) -> None:
        self._recipe, self._count = recipe, count
        self._pool: Processes | None = None

    def __enter__(self) -> Workers:
        if self._count:
            try:
                begin = pickle.dumps((_begin, (self._recipe,), {}))
            except Exception as error:
                raise UsageError(
                    f"This task or dataset cannot be sent to worker processes ({error}). Prepare "
                    "with workers=0."
                ) from error
            self._pool = Processes(self._count, begin)
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if self._pool is not None:
            self._pool.close(at_once=error is not None)

    def outcomes(
        self, split: str, examples: Sequence[Example], first: int = 0
    ) -> Iterator[Outcome]:
        """What became of each example, in their order; `first` is the number of the first one.

        Raises:
            StorageError: the disk is full or not writable.
            ClipAlignError: a worker died.
        """
        numbered = enumerate(examples, first)
        if self._pool is None:
            for number, example in numbered:
                yield _work(self._recipe, split, number, example)
            return
        chunks = iter(lambda: list(islice(numbered, _CHUNK)), [])
        under_way: deque[Future[list[Outcome]]] = deque()
        for chunk in islice(chunks, _AHEAD * self._count):
            under_way.append(self._pool.submit(_work_chunk, split, chunk))
        while under_way:
            done = under_way.popleft().result()
            for chunk in islice(chunks, 1):
                under_way.append(self._pool.submit(_work_chunk, split, chunk))
            yield from done


# --- In a worker --------------------------------------------------------------------------------

_recipe: Recipe


def _begin(recipe: Recipe) -> None:
    global _recipe
    _recipe = recipe


def _work_chunk(split: str, chunk: Sequence[tuple[int, Example]]) -> list[Outcome]:
    try:
        return [_work(_recipe, split, number, example) for number, example in chunk]
    except ClipAlignError:
        raise
    except BaseException as error:  # its traceback, which says whose it is, stays in this process
        raise blamed(error) or error from None


def _work(recipe: Recipe, split: str, number: int, example: Example) -> Outcome:
    rng = random.Random(f"{recipe.seed}/{split}/{example.key}")
    try:
        image = shrink(rgb_image(recipe.dataset, example), recipe.max_side)
        rows = _checked(recipe.task.rows(example, image, recipe.dataset, split, rng), recipe.task)
    except DataError as error:
        reason = getattr(error, "reason", str(error))
        name = str(getattr(error, "name", example.key))
        return Outcome((), {"split": split, "key": example.key, "file": name, "reason": reason})
    files = _Files(f"{recipe.folder}/{split}")
    return Outcome(
        tuple(_row(files, example, f"{number:06}-{i}", row) for i, row in enumerate(rows))
    )


def _checked(rows: Any, task: Task) -> list[PreparedRow]:
    """The rows of one image; refuses what could not be written, or not be read again.

    Raises:
        PluginError: a row is none; names whose task it is.
    """
    if not isinstance(rows, Iterable):
        raise PluginError(
            f"The task {task.name!r} of {owner_of(task)} gives {rows!r:.60} for rows."
        )
    made = []
    for row in rows:
        if not isinstance(row, PreparedRow):
            raise PluginError(
                f"The task {task.name!r} of {owner_of(task)} gives {row!r:.60} for a PreparedRow."
            )
        _check_image(row.image, task)
        if row.clean_image is not None:
            _check_image(row.clean_image, task)
        texts = (row.chosen, row.rejected, *row.columns, *row.columns.values())
        if wrong := [t for t in texts if not isinstance(t, str | None)]:
            raise PluginError(
                f"The task {task.name!r} of {owner_of(task)} gives {wrong[0]!r:.60} for a text."
            )
        made.append(row)
    return made


def _check_image(image: Any, task: Task) -> None:
    if not isinstance(image, Image.Image) or image.mode != "RGB":
        given = f"a {image.mode} image" if isinstance(image, Image.Image) else f"{image!r:.60}"
        raise PluginError(
            f"The task {task.name!r} of {owner_of(task)} gives {given} where an RGB image is "
            "wanted."
        )


def example_number(row: Row) -> str:
    """Which example of its split a row was made of, by the name of its file."""
    return str(row["file_name"]).rpartition("/")[2].partition("-")[0]


def _row(files: _Files, example: Example, stem: str, row: PreparedRow) -> Row:
    """Write the images of a row; return what the table says of it."""
    image, clean = row.image, row.clean_image
    name, digest = files.write(image, f"images/{stem}")
    clean_name, clean_digest = (
        (None, None) if clean is None else files.write(clean, f"clean/{stem}")
    )
    own = {
        "file_name": name,
        "clean_file_name": clean_name,
        "chosen": row.chosen,
        "rejected": row.rejected,
        "label": example.label,
        "source_key": example.key,
        "group": example.group or example.key,
        "sha256": digest,
        "clean_sha256": clean_digest,
    }
    return {**own, **example.attributes, **row.columns, **own}


class _Files:
    """Writes the images of one example; the same image object twice is one file."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._written: dict[int, tuple[str, str]] = {}

    def write(self, image: Image.Image, stem: str) -> tuple[str, str]:
        """Its name below the folder, and its sha256."""
        if id(image) not in self._written:
            data, suffix = encode(image)
            path = f"{self._folder}/{(name := stem + suffix)}"
            with storage_errors(path):
                _write(path, data)
            self._written[id(image)] = name, sha256_bytes(data)
        return self._written[id(image)]


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def encode(image: Image.Image) -> tuple[bytes, str]:
    """Bytes and suffix: PNG for what is small, where JPEG would show, else JPEG of high quality."""
    buffer = io.BytesIO()
    if max(image.size) <= PNG_SIDE:
        image.save(buffer, "PNG", compress_level=3)
        return buffer.getvalue(), ".png"
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue(), ".jpg"


def shrink(image: Image.Image, max_side: int | None) -> Image.Image:
    """The image with its longer side at most `max_side` pixels, its shape kept."""
    if max_side is None or max(image.size) <= max_side:
        return image
    scale = max_side / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
