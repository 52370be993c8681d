"""Images that are in memory, as a notebook has them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from clipalign.arguments import plain
from clipalign.datasets.base import Example
from clipalign.datasets.images import read_image, upright_rgb
from clipalign.datasets.options import (
    DEFAULT_TEMPLATES,
    SPLIT_NAMES,
    Template,
    label_problem,
    label_text,
    of_split,
    split_name,
)
from clipalign.errors import DataError, near_matches
from clipalign.files import canonical_json, sha256_file
from clipalign.options import in_words
from clipalign.text import listed

__all__ = ["ImageList"]

AnImage: TypeAlias = Image.Image | npt.NDArray[np.uint8] | str | os.PathLike[str]

_SHOWN = 5  # positions in a message
_CHANNELS = (1, 3, 4)


class ImageList:
    """A dataset of images in memory, for `clipalign.prepare` and `clipalign.evaluate`.

        photos = clipalign.ImageList(images, ["apple", "pear"], columns={"attack_text": words})
        clipalign.evaluate(model, suites=["retention"], dataset=photos)
        judged = clipalign.ImageList(images, columns={"chosen": better, "rejected": worse})
        clipalign.train(method="dpo", data=clipalign.prepare("preferences", judged))

    Lists may be arrays of numpy or columns of pandas as well.

    Args:
        images: N, or one: Pillow images, uint8 arrays [H, W, 3] (or [H, W] grey, [H, W, 4] with
            alpha), or paths of files, which stay there. Each is read as a file of it would be:
            upright, transparency on white.
        labels: [N] class names; None where there are none.
        columns: further columns of text by name, [N] each, or a frame of pandas: chosen, rejected,
            gender, …; None and NaN are empty.
        groups: [N] images of one group are not independent; None for each its own.
        split: of all images, or [N] of each: train, validation, test, or a name of your own.
        templates: prompts with one {}, or one; the first is the one that preferences use.
        name: of the dataset, in results and manifests.
        licence: of the images; goes into the manifest.

    Raises:
        DataError: there are no images, one is none, a label is missing or cannot name a class, a
            column has another length, or a template has no place for a name.
    """

    def __init__(
        self,
        images: AnImage | Sequence[AnImage],
        labels: Sequence[str] | None = None,
        *,
        columns: Mapping[str, Sequence[str | None]] | None = None,
        groups: Sequence[str | None] | None = None,
        split: str | Sequence[str] = "train",
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        name: str = "image-list",
        licence: str = "not stated",
    ) -> None:
        self.name, self.licence, self.templates = name, licence, _templates(templates)
        if isinstance(images, str | os.PathLike | Image.Image):
            images = [images]
        self._images = tuple(_image(i, image) for i, image in enumerate(images))
        total = len(self._images)
        if not total:
            raise DataError("There are no images in the list.")
        split = [split] * total if isinstance(split, str) else split
        each = [_split(name) for name in _cells("split", split, total, whole=True)]
        names = None if labels is None else _labels(labels, total)
        groups = [""] * total if groups is None else _cells("groups", groups, total)
        given = {} if columns is None else columns
        cells = {key: _cells(key, values, total) for key, values in given.items()}
        self._splits: dict[str, list[Example]] = {}
        for i in range(total):
            example = Example(
                key=f"{i:06d}",
                label=None if names is None else names[i],
                source=i,
                group=groups[i] or "",
                attributes={key: values[i] for key, values in cells.items()},
            )
            self._splits.setdefault(each[i], []).append(example)
        self.classnames: Sequence[str] = tuple(sorted(set(names or ())))
        self.fingerprint = self._hash()

    def __repr__(self) -> str:
        """What it holds."""
        splits = ", ".join(f"{split} {len(found):,}" for split, found in self._splits.items())
        return f"<ImageList {self.name}: {splits} images, {len(self.classnames):,} classes>"

    def splits(self) -> Sequence[str]:
        """The names of the splits, in the order in which they come."""
        return tuple(self._splits)

    def examples(self, split: str) -> Sequence[Example]:
        """The images of a split, in the order of the list."""
        return of_split(self._splits, split, self.name)

    def image(self, example: Example) -> Image.Image:
        """One image as upright RGB."""
        image = self._images[example.source]
        if isinstance(image, Path):
            return read_image(image)
        return upright_rgb(image, name=example.key)

    def _hash(self) -> str:
        digest = hashlib.sha256()
        for split, examples in self._splits.items():
            for e in examples:
                image = self._images[e.source]
                about: list[Any] = [split, e.label, e.group, dict(e.attributes)]
                if isinstance(image, Path):
                    digest.update(canonical_json([*about, sha256_file(image)]))
                else:
                    digest.update(canonical_json([*about, image.mode, image.size]))
                    digest.update(image.tobytes())
        digest.update(canonical_json(list(self.templates)))
        return digest.hexdigest()


def _image(place: int, image: Any) -> Image.Image | Path:
    """An image as it is kept; a path is absolute, so that it is found from anywhere.

    Raises:
        DataError: it is no image.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, str | os.PathLike):
        path = Path(image).absolute()
        if not path.is_file():
            raise DataError(f"Image {place} of the list: there is no file {path}.")
        return path
    what = f"a {type(image).__name__}"
    if isinstance(image, np.ndarray):
        grey = image.ndim == 2
        if image.dtype == np.uint8 and (grey or (image.ndim == 3 and image.shape[2] in _CHANNELS)):
            return Image.fromarray(image if grey or image.shape[2] > 1 else image[:, :, 0])
        what = f"an array {image.dtype} {list(image.shape)}"
    advice = ""
    if hasattr(image, "shape"):
        advice = " A float tensor [3, H, W] from 0 to 1 becomes one with "
        advice += "(tensor * 255).round().byte().permute(1, 2, 0).numpy()."
    raise DataError(
        f"Image {place} of the list is {what}: a Pillow image, a uint8 array [H, W, 3] or the path "
        f"of a file is wanted.{advice}"
    )


def _cells(column: str, values: Any, total: int, *, whole: bool = False) -> list[str]:
    """A column as text; what is missing is empty.

    Args:
        column: its name, for the message.
        values: as given.
        total: that there must be.
        whole: whether none may be missing.

    Raises:
        DataError: they are no list, there are more or fewer, or one is missing where none may be.
    """
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise DataError(f"{column} must be a list of {total}, one an image, not {values!r:.60}.")
    cells = [plain(value) for value in values]
    if len(cells) != total:
        raise DataError(f"{column} has {len(cells)} values for {total} images.")
    missing = [i for i, value in enumerate(cells) if _is_missing(value)]
    if whole and missing:
        more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
        raise DataError(
            f"{column} has no value for the images {', '.join(map(str, missing[:_SHOWN]))}{more} "
            "(None or NaN; the first is 0). Leave these images out, or say what they are."
        )
    return ["" if _is_missing(value) else str(value) for value in cells]


def _labels(values: Any, total: int) -> list[str]:
    """Names of classes.

    Raises:
        DataError: one is missing, or cannot name a class.
    """
    labels = list(map(label_text, _cells("labels", values, total, whole=True)))
    wrong = [(i, why) for i, label in enumerate(labels) if (why := label_problem(label))]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
        shown = "; ".join(f"image {i}: {why}" for i, why in wrong[:_SHOWN])
        raise DataError(f"labels: {shown}{more} (the first image is 0).")
    return labels


def _is_missing(value: Any) -> bool:
    """None, NaN, and what pandas has in their place."""
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _split(name: str) -> str:
    """A split by its usual name; a slip of one is refused.

    Raises:
        DataError: it is nearly the name of one.
    """
    known = dict.fromkeys(SPLIT_NAMES.values())
    name = split_name(name)
    if not name.startswith(tuple(known)):
        words = near_matches(name, known)
        if "Did you mean" in words:
            raise DataError(f"split: {name!r} is nearly the name of a split.{words}")
    return name


def _templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Prompts with one place each.

    Raises:
        DataError: one has none, or there is no prompt.
    """
    texts = listed(templates)
    if not texts:
        raise DataError("templates: one at least is wanted, such as 'a photo of a {}.'.")
    for text in texts:
        try:
            TypeAdapter(Template).validate_python(text)
        except ValidationError as error:
            problem = in_words(error.errors()[0])
            raise DataError(f"templates: {text!r}: {problem}.") from None
    return tuple(texts)
