"""Images of a second dataset beside those that preferences are about, only to be held still."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from clipalign.datasets.base import Dataset, Example, cache_key, last_change, rgb_image
from clipalign.files import canonical_json, sha256_bytes
from clipalign.tasks.base import classnames
from clipalign.tasks.concepts.balance import spread

__all__ = ["WithKept"]


@dataclass(frozen=True, slots=True)
class _Kept:
    """Source of an example that is only to be held still: the example of the other dataset."""

    example: Example


class WithKept:
    """A dataset as a task wants it, with images of another beside it. Base of such datasets.

    Args:
        dataset: what preferences are about.
        keep: another dataset, whose images are held still beside; None for none.
    """

    def __init__(self, dataset: Dataset, keep: Dataset | None) -> None:
        self.dataset, self.keep = dataset, keep
        self.parts: tuple[Dataset, ...] = (dataset,) if keep is None else (dataset, keep)
        self.name = dataset.name
        self.classnames, self.templates = dataset.classnames, dataset.templates
        self.licence = "; ".join(dict.fromkeys(part.licence for part in self.parts))

    @functools.cached_property
    def cache_key(self) -> str:
        """Of all that it is made of; see `clipalign.datasets.base.cache_key`."""
        own: Any = self
        return sha256_bytes(canonical_json([own.fingerprint, *map(cache_key, self.parts)]))

    @property
    def changed(self) -> int:
        """When a file of any part was last changed, in ns."""
        return max(map(last_change, self.parts))

    def splits(self) -> Sequence[str]:
        """Those of the dataset."""
        return self.dataset.splits()

    def image(self, example: Example) -> Image.Image:
        """Read one image of either dataset, as `rgb_image` gives it."""
        if isinstance(example.source, _Kept):
            assert self.keep is not None
            return rgb_image(self.keep, example.source.example)
        return self.own_image(example)

    def own_image(self, example: Example) -> Image.Image:
        """Read one image of the first dataset."""
        return rgb_image(self.dataset, example)

    def skipped(self, split: str) -> Sequence[tuple[str, str]]:
        """Files that the dataset passed over, where it keeps count of them."""
        of_dataset: Any = getattr(self.dataset, "skipped", None)
        return of_dataset(split) if of_dataset else ()

    def is_kept(self, example: Example) -> bool:
        """Whether an image is only to be held still."""
        return isinstance(example.source, _Kept)

    def is_welcome(self, label: str | None) -> bool:
        """Whether images of a class of the second dataset, or of none, may be held still."""
        return True

    def kept_examples(self, split: str, most: int | None = None) -> list[Example]:
        """Images of the second dataset that go with a split, at most `most`, spread over all."""
        if self.keep is None:
            return []
        found = [e for e in self.keep.examples(self._kept_split(split)) if self.is_welcome(e.label)]
        prefix = f"{self.keep.name}/"  # keys of both datasets may be alike
        return [
            replace(e, key=prefix + e.key, source=_Kept(e), group=prefix + (e.group or e.key))
            for e in spread(found, len(found) if most is None else min(most, len(found)))
        ]

    @functools.cached_property
    def kept_prompts(self) -> Sequence[str]:
        """Prompts of the classes of the images that are held still."""
        if self.keep is None:
            return ()
        names = (n for s in self.splits() for n in classnames(self.keep, self._kept_split(s)))
        template = self.keep.templates[0]
        return [template.format(n) for n in dict.fromkeys(names) if self.is_welcome(n)]

    def _kept_split(self, split: str) -> str:
        assert self.keep is not None
        known = self.keep.splits()
        return split if split in known else known[0]
