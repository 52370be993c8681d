"""The datasets that are known by name, one class each, made of their descriptions."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from clipalign.datasets.base import Example, dated
from clipalign.datasets.huggingface import HuggingFace
from clipalign.datasets.images import read_image
from clipalign.datasets.known.description import CATALOGUE, Description, Part, catalogue
from clipalign.datasets.known.reading import Found, found_in, present, wordnet_names
from clipalign.datasets.options import Template, label_problem
from clipalign.errors import DataError, near_matches
from clipalign.files import canonical_json, sha256_bytes, sha256_file

__all__ = ["KnownDataset", "class_name"]


class KnownDataset:
    """A dataset as its authors laid it out on disk, with the paper's templates.

    Splits that are not on disk are left out; images that a list names and that are not there are
    passed over and counted (`skipped`).

    Raises:
        DataError: nothing of the dataset lies there, or a list is damaged.
    """

    description: ClassVar[Description]

    class Options(BaseModel):
        """Options of the dataset."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        root: Path = Field(description="Where it lies.")
        templates: tuple[Template, ...] | None = Field(
            None, min_length=1, description="Prompts with one {}; null for the dataset's own."
        )

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)
        known = self.description
        self.name, self.licence = known.name, known.licence
        self.templates: Sequence[str] = self.options.templates or known.templates
        self.base = self._find_base()
        self._read: dict[str, _Split] = {}

    @functools.cached_property
    def classnames(self) -> Sequence[str]:
        """The classes of all splits that are on disk, sorted."""
        found = {e.label for split in self.splits() for e in self.examples(split)}
        return tuple(sorted(label for label in found if label))

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of the catalogue, and of names, labels and sizes in bytes of all images.

        Of images that lie in tables, that of the tables.
        """
        images = [
            [split, [[e.key, e.label, size] for e, size, _ in self._split(split).images]]
            for split in self.splits()
        ]
        content: list[Any] = [self.name, sha256_file(CATALOGUE), self.templates, images]
        if any(self._part(split).huggingface for split in self.splits()):
            content.append(self._hub.fingerprint)
        return sha256_bytes(canonical_json(content))

    @functools.cached_property
    def cache_key(self) -> str:
        """sha256 of the fingerprint, and of when each image was last changed."""
        return dated(self.fingerprint, self._changes())

    @property
    def changed(self) -> int:
        """When an image was last changed, in ns."""
        return max(self._changes(), default=0)

    def splits(self) -> Sequence[str]:
        """The names of the splits that are on disk."""
        known = self.description
        return [s for s in known.split_names if present(self.base, self._part(s))]

    def examples(self, split: str) -> Sequence[Example]:
        """The images of a split, in the order of its list, or sorted where folders are walked."""
        return [example for example, *_ in self._split(split).images]

    def skipped(self, split: str) -> Sequence[tuple[str, str]]:
        """What was passed over, each with the reason."""
        return self._split(split).skipped

    def image(self, example: Example) -> Image.Image:
        """Read one image as upright RGB."""
        if isinstance(example.source, tuple):
            inner = Example(example.key, None, example.source)
            return self._hub.image(inner)
        return read_image(self.base / example.source, name=example.key)

    # --- Parts ----------------------------------------------------------------------------------

    @functools.cached_property
    def _hub(self) -> HuggingFace:
        return HuggingFace(path=str(self.base), label_column=None)

    def _changes(self) -> Iterator[int]:
        images = (image for split in self.splits() for image in self._split(split).images)
        return (changed for _, _, changed in images)

    def _find_base(self) -> Path:
        root, known = self.options.root, self.description
        for base in [*(root / folder for folder in known.folders), root]:
            if base.is_dir() and any(present(base, part) for part in known.splits.values()):
                return base
        what = f"There is no folder {root}" if not root.is_dir() else f"{root} is not {known.title}"
        raise DataError(
            f"{what}: expected {known.layout}. `clipalign datasets show {known.name}` says more."
        )

    def _part(self, split: str) -> Part:
        return self.description.splits["all" if self.description.share else split]

    def _split(self, name: str) -> _Split:
        if name not in self._read:
            if name not in self.splits():
                known = near_matches(name, self.splits())
                raise DataError(f"{self.base} has no split {name!r} of {self.name}.{known}")
            split = _Split()
            for found in self._rows(self._part(name)):
                self._take(found, name, split)
            self._read[name] = split
        return self._read[name]

    def _rows(self, part: Part) -> Iterator[Found]:
        if not part.huggingface:
            yield from found_in(self.base, part)
            return
        for split in self._hub.splits():
            for e in self._hub.examples(split):
                cells = e.attributes
                if all(cells.get(name) == cell for name, cell in part.where.items()):
                    fields = {f: cells.get(column, "") for f, column in part.columns.items()}
                    yield e.key, {**fields, "image": e.key}

    def _take(self, found: Found, split: str, into: _Split) -> None:
        """One row: an image of the split, or passed over, or of another split."""
        name, cells = found
        known = self.description
        if cells is None:
            into.skipped.append((name, "it does not say what such rows say"))
            return
        image = cells.pop("image")
        if known.share and _share_of(image, known.share) != split:
            return
        values = {n: known.values.get(n, {}).get(c, c) for n, c in cells.items()}
        label = values.pop("label", None)
        if known.labelled and (problem := label_problem(label := self._class_name(label or ""))):
            into.skipped.append((name, problem))
            return
        source: Any = image
        size = changed = 0
        if self._part(split).huggingface:
            row_split, _, row = image.partition("/")
            source = (row_split, int(row))
        else:
            try:
                size, changed = _file_inside(self.base, image)
            except ValueError as error:
                into.skipped.append((image, str(error)))
                return
        into.images.append((Example(image, label, source, image, values), size, changed))

    def _class_name(self, label: str) -> str:
        return wordnet_names().get(label, "") if self.description.wordnet else class_name(label)


class _Split:
    def __init__(self) -> None:
        self.images: list[tuple[Example, int, int]] = []
        """Each with its bytes, and when it was last changed, in ns; 0 for a row of a table."""
        self.skipped: list[tuple[str, str]] = []


def class_name(label: str) -> str:
    """A label as words: "apartment_building/outdoor" is "apartment building outdoor"."""
    return " ".join(label.replace("_", " ").replace("/", " ").split())


def _share_of(image: str, share: Mapping[str, int]) -> str:
    """The split of an image: a number below 100 from the SHA-256 of its path, cut by the shares."""
    place = int(sha256_bytes(image.encode("utf-8", "surrogateescape"))[:8], 16) % 100
    for split, per_cent in share.items():
        if place < per_cent:
            return split
        place -= per_cent
    raise AssertionError("shares add up to 100")


def _file_inside(base: Path, image: str) -> tuple[int, int]:
    """Bytes of an image that lies below the base, and when it was last changed, in ns.

    Raises:
        ValueError: it does not, or is not there; the message is the reason.
    """
    path = os.path.normpath(os.path.join(base, image))
    if os.path.isabs(image) or not path.startswith(os.path.join(os.path.normpath(base), "")):
        raise ValueError("it lies outside of the dataset")
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError("the file is not there") from None
    except OSError as error:
        raise ValueError((error.strerror or str(error)).lower()) from None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("the file is not there")
    return found.st_size, found.st_mtime_ns


def _class(description: Description) -> type[KnownDataset]:
    """A class of its own for each, so that worker processes find it by name."""
    name = description.name.replace("-", "_")
    facts = {
        "description": description,
        "__doc__": f"{description.title}. {description.about}",
        "__module__": __name__,
        "__qualname__": name,
    }
    return type(name, (KnownDataset,), facts)


globals().update({name.replace("-", "_"): _class(entry) for name, entry in catalogue().items()})
