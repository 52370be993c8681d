"""What a dataset is: named splits of labelled images, read one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from clipalign.datasets.images import as_rgb
from clipalign.errors import PluginError
from clipalign.plugins import owner_of

__all__ = ["Dataset", "Example", "cache_key", "dated", "last_change", "rgb_image"]


@dataclass(frozen=True, slots=True)
class Example:
    """One image of a dataset, not yet read.

    Attributes:
        key: stable and unique within the dataset; names files and rows made from it.
        label: class name, or None where there is none.
        source: what `Dataset.image` needs to read it (a path, an index); JSON-able as text.
        group: images that share a group are not independent (two views of one drawing): intervals
            resample groups. Defaults to the key.
        attributes: further columns, for example gender, activity, attack_text, style.
    """

    key: str
    label: str | None
    source: Any
    group: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Dataset(Protocol):
    """A source of images. Built by name: `component("datasets", "folder", root=…)`."""

    name: str
    classnames: Sequence[str]
    """Class names in a stable order; the candidate texts are made of these."""
    templates: Sequence[str]
    """Prompt templates with one {}; the first is the one that preferences use."""
    licence: str
    fingerprint: str
    """sha256 of what identifies the data (file names, sizes, content), wherever it lies."""

    def splits(self) -> Sequence[str]:
        """Names of the splits, for example ("train", "validation", "test")."""
        ...

    def examples(self, split: str) -> Sequence[Example]:
        """All examples of a split, in a stable order. DataError when there is no such split."""
        ...

    def image(self, example: Example) -> Image.Image:
        """Read one image, upright. DataError, naming the file, when it can't.

        Whoever calls it goes through `rgb_image`.
        """
        ...


def rgb_image(dataset: Dataset, example: Example) -> Image.Image:
    """Read one image of any dataset as upright 8-bit RGB; transparency is laid on white.

    Raises:
        DataError: it cannot be read.
        PluginError: the dataset gives something that is no image.
    """
    image: Any = dataset.image(example)
    if not isinstance(image, Image.Image):
        raise PluginError(
            f"The dataset {dataset.name!r} of {owner_of(dataset)} gives {image!r:.60} where a PIL "
            "image is wanted."
        )
    return as_rgb(image, name=example.key)


def cache_key(dataset: Dataset) -> str:
    """What is kept of a dataset is kept under this: its `cache_key`, or else its fingerprint.

    Files have one, made by `dated`: an edit may keep a file's size, and to read millions of images
    only to find out would take as long as the work that a cache saves.
    """
    return str(getattr(dataset, "cache_key", dataset.fingerprint))


def last_change(dataset: Dataset) -> int:
    """When a file of a dataset was last changed, in ns since 1970; 0 where it does not say."""
    return int(getattr(dataset, "changed", 0))


def dated(fingerprint: str, changed: Iterable[int]) -> str:
    """A cache key for data in files: sha256 of their fingerprint and when each last changed, in ns.

    The times are no part of the fingerprint: a copy of the data is the same data.
    """
    digest = hashlib.sha256(fingerprint.encode())
    for time in changed:
        digest.update(time.to_bytes(12, "little", signed=True))
    return digest.hexdigest()
