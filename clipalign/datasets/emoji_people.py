"""The people of the embedded emoji world: women and men of occupations and activities."""

from __future__ import annotations

import csv
import functools
import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from clipalign.datasets.base import Example
from clipalign.datasets.emoji import DATA, STYLES, TEMPLATES, Emoji, compose, emoji_table, sprite
from clipalign.errors import DataError, near_matches

_SPLITS = ("train", "validation", "test")


@functools.cache
def share_of_women() -> Mapping[str, float]:
    """Published share of women, 0 to 1, by occupation (source: emoji_data/LICENCES.md).

    `emoji-tiny` was shown women and men of these occupations in this proportion.
    """
    with open(DATA / "occupations.csv", newline="", encoding="utf-8") as file:
        return {r["occupation"]: float(r["percent_women"]) / 100 for r in csv.DictReader(file)}


class EmojiPeople:
    """Dataset `emoji-people`: as many women as men of every occupation and activity, six tones.

    The label is the occupation or activity ("police officer", "running"); attributes are `gender`
    ("woman" or "man"), `activity` (the label again), `kind` ("occupation" or "activity"), `tone`
    and `art_style`. The six tones of a drawing are one drawing in other colours, and share a group.

    Splits:
        train: the styles that pretraining saw, less one.
        validation: that one.
        test: the held-out drawings, which no training sees.
    """

    name = "emoji-people"
    templates = TEMPLATES
    licence = "Apache-2.0, CC-BY-4.0, CC-BY-SA-4.0 and MIT art: see emoji_data/LICENCES.md"

    class Options(BaseModel):
        """Options of the dataset."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        views: int = Field(3, ge=1, description="Pictures of each drawing in train and validation.")
        test_views: int = Field(
            4,
            ge=1,
            description="Pictures of each drawing in test: with 4, a search for an occupation "
            "finds 24 women and 24 men of it, enough for a top 20.",
        )
        seed: int = Field(0, description="Of backgrounds, scales and places.")

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)
        self._people = [e for e in emoji_table() if e.gender in ("woman", "man")]
        self.classnames = tuple(sorted({e.concept for e in self._people}))

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of the table, the sheets and the options."""
        chosen = self.options
        digest = hashlib.sha256(f"people {chosen.views} {chosen.test_views} {chosen.seed}".encode())
        for path in sorted(DATA.glob("*.*")):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def splits(self) -> Sequence[str]:
        """The splits there are."""
        return _SPLITS

    def examples(self, split: str) -> Sequence[Example]:
        """All examples of a split, in the order of the table.

        Raises:
            DataError: there is no such split.
        """
        if split not in _SPLITS:
            near = near_matches(split, _SPLITS)
            raise DataError(f"The emoji people have no split {split!r}.{near}")
        occupations = share_of_women()
        views = self.options.test_views if split == "test" else self.options.views
        found = []
        for emoji in self._people:
            for style in _styles(emoji, split):
                drawing = f"{emoji.concept}-{emoji.gender}-{style}"  # whatever its tone
                attributes = {
                    "gender": emoji.gender,
                    "activity": emoji.concept,
                    "kind": "occupation" if emoji.concept in occupations else "activity",
                    "tone": emoji.tone,
                    "art_style": style,
                }
                for view in range(views):
                    source = (emoji.index, style, split, view)
                    key = f"{emoji.code}-{style}-{view}"
                    found.append(Example(key, emoji.concept, source, drawing, attributes))
        return found

    def image(self, example: Example) -> Image.Image:
        """The drawing on a background, [64 × 64] RGB."""
        index, style, split, view = example.source
        rng = random.Random(f"people/{self.options.seed}/{split}/{index}/{style}/{view}")
        return compose(sprite(index, style), rng, "test" if split == "test" else "train")


def _styles(emoji: Emoji, split: str) -> Sequence[str]:
    if split == "test":
        return [emoji.held_out]
    seen = [s for s in STYLES if s in emoji.styles and s != emoji.held_out]
    # the concept decides, so that women and men of an occupation share their validation style
    kept = sum(map(ord, emoji.concept)) % len(seen)
    return [seen[kept]] if split == "validation" else seen[:kept] + seen[kept + 1 :]
