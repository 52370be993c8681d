"""Images that are in memory, as a notebook has them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from PIL import Image

from clipalign.datasets.base import Example
from clipalign.datasets.images import upright_rgb
from clipalign.datasets.options import DEFAULT_TEMPLATES, of_split
from clipalign.errors import DataError
from clipalign.files import canonical_json

__all__ = ["ImageList"]


class ImageList:
    """A dataset of Pillow images, for `clipalign.prepare` and `clipalign.evaluate`.

        photos = clipalign.ImageList(images, ["apple", "pear"], columns={"attack_text": words})
        clipalign.evaluate(model, suites=["retention"], dataset=photos)
        judged = clipalign.ImageList(images, columns={"chosen": better, "rejected": worse})
        clipalign.train(method="dpo", data=clipalign.prepare("preferences", judged))

    Args:
        images: N; each is read as a file of it would be: upright, transparency on white.
        labels: [N] class names; None where there are none.
        columns: further columns of text by name, [N] each: chosen, rejected, gender, ….
        groups: [N] images of one group are not independent; None for each its own.
        split: of all images, or [N] of each: train, validation, test.
        templates: prompts with one {}; the first is the one that preferences use.
        name: of the dataset, in results and manifests.
        licence: of the images; goes into the manifest.

    Raises:
        DataError: there are no images, or a column has another length.
    """

    def __init__(
        self,
        images: Sequence[Image.Image],
        labels: Sequence[str] | None = None,
        *,
        columns: Mapping[str, Sequence[str]] | None = None,
        groups: Sequence[str] | None = None,
        split: str | Sequence[str] = "train",
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        name: str = "image-list",
        licence: str = "not stated",
    ) -> None:
        self.name, self.licence, self.templates = name, licence, tuple(templates)
        self._images = tuple(images)
        total = len(self._images)
        if not total:
            raise DataError("There are no images in the list.")
        each = [split] * total if isinstance(split, str) else list(split)
        given = {"labels": labels, "groups": groups, "split": each, **(columns or {})}
        for column, values in given.items():
            if values is not None and len(values) != total:
                raise DataError(f"{column} has {len(values)} values for {total} images.")
        cells = {key: [str(v) for v in values] for key, values in (columns or {}).items()}
        self._splits: dict[str, list[Example]] = {}
        for i in range(total):
            example = Example(
                key=f"{i:06d}",
                label=None if labels is None else str(labels[i]),
                source=i,
                group="" if groups is None else str(groups[i]),
                attributes={key: values[i] for key, values in cells.items()},
            )
            self._splits.setdefault(each[i], []).append(example)
        self.classnames: Sequence[str] = tuple(sorted({str(label) for label in labels or ()}))
        self.fingerprint = self._hash()

    def splits(self) -> Sequence[str]:
        """The names of the splits, in the order in which they come."""
        return tuple(self._splits)

    def examples(self, split: str) -> Sequence[Example]:
        """The images of a split, in the order of the list."""
        return of_split(self._splits, split, self.name)

    def image(self, example: Example) -> Image.Image:
        """One image as upright RGB."""
        return upright_rgb(self._images[example.source], name=example.key)

    def _hash(self) -> str:
        digest = hashlib.sha256()
        for split, examples in self._splits.items():
            for e in examples:
                image = self._images[e.source]
                about = [split, e.label, e.group, dict(e.attributes), image.mode, image.size]
                digest.update(canonical_json(about) + image.tobytes())
        digest.update(canonical_json(list(self.templates)))
        return digest.hexdigest()
