"""The embedded emoji world: openly licensed emoji art of several vendors, at 64 pixels.

Every concept has one drawing, in one art style, that no training ever sees (`held_out`, rotating
over the styles), and the style `emojitwo` is never seen at all. A picture is a drawing set on a
background at some scale and place; training and test backgrounds share no hue.
"""

from __future__ import annotations

import colorsys
import csv
import functools
import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from clipalign.datasets.base import Example
from clipalign.datasets.options import of_split

SIZE, COLUMNS = 64, 64
STYLES = ("noto", "twemoji", "fluent-3d", "fluent-flat", "openmoji")
UNSEEN_STYLE = "emojitwo"
PRETRAINING_STYLES = ("noto-v1", "fxemoji")
"""Older art of fewer emoji, which pretraining saw besides; in no split."""
TEMPLATES = (
    "a photo of a {}.",
    "a picture of a {}.",
    "a drawing of a {}.",
    "an image of a {}.",
    "an emoji of a {}.",
    "a {}.",
    "{}",
)
DATA = Path(__file__).parent / "emoji_data"


@dataclass(frozen=True, slots=True)
class Emoji:
    """One emoji: its names, and which styles draw it. `index` is its cell in every sheet."""

    index: int
    code: str
    label: str
    concept: str
    gender: str
    """"woman", "man", "person" for people who come in all; else empty."""
    tone: str
    group: str
    everyday: str
    """"A" or "B", the two disjoint sets of everyday concepts; else empty."""
    held_out: str
    styles: tuple[str, ...]
    keywords: tuple[str, ...]


@functools.cache
def emoji_table() -> tuple[Emoji, ...]:
    """All emoji of the world in the order of their cells."""
    with open(DATA / "emoji.csv", newline="", encoding="utf-8") as file:
        return tuple(
            Emoji(
                i, r["code"], r["label"], r["concept"], r["gender"], r["tone"], r["group"],
                r["everyday"], r["held_out"], tuple(r["styles"].split("|")),
                tuple(filter(None, r["keywords"].split("|"))),
            )
            for i, r in enumerate(csv.DictReader(file))
        )  # fmt: skip


@functools.cache
def more_concepts() -> frozenset[int]:
    """Index of the emoji of concepts C: 200 of those that are neither everyday nor people.

    Their names are one or two short words, so that they fit on a picture, and no word of them names
    a concept of B; which 200 of them, a hash of the name decides.
    """
    unseen = {e.label for e in emoji_table() if e.everyday == "B"}
    plain = [
        e
        for e in emoji_table()
        if not e.everyday
        and not e.gender
        and e.group not in ("faces", "people", "flags", "symbols")
        and "face" not in e.label
        and re.fullmatch(r"[a-z]{2,}( [a-z]{2,})?", e.label)
        and len(e.label) <= 12
        and not unseen & set(e.label.split())
    ]
    plain.sort(key=lambda e: hashlib.sha256(e.label.encode()).digest())
    return frozenset(e.index for e in plain[:200])


@functools.cache
def _sheet(style: str) -> Image.Image:
    return Image.open(DATA / f"{style}.webp").convert("RGBA")


def sprite(index: int, style: str) -> Image.Image:
    """The 64-pixel RGBA drawing of one emoji in one style, cut from its sheet, which is kept."""
    x, y = index % COLUMNS * SIZE, index // COLUMNS * SIZE
    return _sheet(style).crop((x, y, x + SIZE, y + SIZE))


def background(rng: random.Random, split: str) -> Image.Image:
    """A plain or two-colour background; train and test take turns on sectors of 30° of hue."""

    def colour() -> tuple[int, int, int]:
        sector = 2 * rng.randrange(6) + (split == "test")
        hue = (sector + rng.random()) / 12
        r, g, b = colorsys.hsv_to_rgb(hue, rng.uniform(0.08, 0.7), rng.uniform(0.35, 1.0))
        return round(255 * r), round(255 * g), round(255 * b)

    if rng.random() < 0.5:
        return Image.new("RGB", (SIZE, SIZE), colour())
    ends = Image.new("RGB", (2, 2), colour())
    ends.putpixel((1, 1), other := colour())
    ends.putpixel((rng.randrange(2), 1 - 0), other)
    return ends.resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def compose(drawing: Image.Image, rng: random.Random, split: str) -> Image.Image:
    """Set a drawing on a background: scale 0.65 to 1, anywhere inside, half of them mirrored."""
    image = background(rng, split)
    side = rng.randint(round(0.65 * SIZE), SIZE)
    # premultiplied alpha, so that edges do not darken when scaled
    small = drawing.convert("RGBa").resize((side, side), Image.Resampling.BILINEAR).convert("RGBA")
    if rng.random() < 0.5:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    place = (rng.randint(0, SIZE - side), rng.randint(0, SIZE - side))
    image.paste(small, place, small)
    return image


def vary(drawing: Image.Image, rng: random.Random) -> Image.Image:
    """Another hand's drawing of the same thing, as far as simple means go.

    The styles differ in outline, palette, shading and proportion; so that a concept is not tied to
    those it was seen in, a drawing is turned, stretched, recoloured, outlined, flattened, blurred.
    """
    if rng.random() < 0.6:
        drawing = drawing.rotate(rng.uniform(-25, 25), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        size = [rng.randint(44, SIZE), SIZE]
        rng.shuffle(size)
        stretched = Image.new("RGBA", drawing.size)
        place = ((SIZE - size[0]) // 2, (SIZE - size[1]) // 2)
        stretched.paste(drawing.resize((size[0], size[1]), Image.Resampling.BILINEAR), place)
        drawing = stretched
    if rng.random() < 0.8:
        colours, alpha = drawing.convert("RGB"), drawing.getchannel("A")
        for change in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
            colours = change(colours).enhance(rng.uniform(0.5, 1.5))
        kind = rng.random()
        if kind < 0.12:
            colours = ImageOps.grayscale(colours).convert("RGB")
        elif kind < 0.3:  # another palette
            hue, saturation, value = colours.convert("HSV").split()
            turn = rng.randrange(256)
            hue = hue.point([(v + turn) % 256 for v in range(256)])
            colours = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
        elif kind < 0.42:  # outlined
            edges = ImageOps.autocontrast(ImageOps.grayscale(colours).filter(ImageFilter.CONTOUR))
            colours = ImageChops.multiply(colours, edges.convert("RGB"))
        elif kind < 0.52:  # flat
            colours = ImageOps.posterize(colours, 2)
        elif kind < 0.6:
            colours = colours.filter(ImageFilter.GaussianBlur(1))
        colours.putalpha(alpha)
        drawing = colours
    return drawing


class EmojiWorld:
    """Dataset `emoji`: concepts of the embedded world.

    A and B are a hundred everyday concepts each, C two hundred others.

    Splits:
        train: concepts A and C in three of the styles that pretraining saw, most of them varied
            (see `vary`), so that what is learnt is not tied to those drawings.
        validation: concepts A and C in a fourth of those styles.
        test: concepts A in the held-out drawings that no training sees.
        test-unseen-concepts: concepts B, whose names and drawings alignment never sees, held-out
            drawings.
        test-unseen-style: concepts A in a style that no training sees at all.
    """

    name = "emoji"
    templates = TEMPLATES
    licence = "Apache-2.0, CC-BY-4.0, CC-BY-SA-4.0 and MIT art: see emoji_data/LICENCES.md"
    _SETS: Mapping[str, str] = {
        "train": "AC",
        "validation": "AC",
        "test": "A",
        "test-unseen-concepts": "B",
        "test-unseen-style": "A",
    }

    class Options(BaseModel):
        """Options of the dataset."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        views: int = Field(5, ge=1, description="Pictures of each drawing in the tests.")
        train_views: int = Field(
            3, ge=1, description="Pictures of each drawing in train and validation."
        )
        concepts: int | None = Field(
            None,
            ge=2,
            description="How many concepts of each set there are, for a quick look; null for all: "
            "A, everyday ones; B, everyday ones that no training sees; C, more to train on.",
        )
        seed: int = Field(0, description="Of backgrounds, scales and places.")

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)
        self.classnames = self.classnames_of("test")

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of the table, the sheets and the options."""
        chosen = self.options
        digest = hashlib.sha256(
            f"{chosen.views} {chosen.train_views} {chosen.concepts} {chosen.seed}".encode()
        )
        for path in sorted(DATA.glob("*.*")):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def splits(self) -> Sequence[str]:
        return tuple(self._SETS)

    def classnames_of(self, split: str) -> Sequence[str]:
        """The class names of one split."""
        return tuple(sorted(e.label for e in self._emoji(split)))

    def examples(self, split: str) -> Sequence[Example]:
        found = []
        views = self.options.views if split.startswith("test") else self.options.train_views
        for emoji in self._emoji(split):
            for style in self._styles(emoji, split):
                group = f"{emoji.code}-{style}"
                for view in range(views):
                    source = (emoji.index, style, split, view)
                    key = f"{group}-{view}"
                    found.append(Example(key, emoji.label, source, group, {"art_style": style}))
        return found

    def image(self, example: Example) -> Image.Image:
        index, style, split, view = example.source
        rng = random.Random(f"{self.options.seed}/{split}/{index}/{style}/{view}")
        drawing = sprite(index, style)
        if split == "train" and rng.random() < 0.7:
            drawing = vary(drawing, rng)
        return compose(drawing, rng, "test" if split.startswith("test") else "train")

    def _emoji(self, split: str) -> list[Emoji]:
        found = []
        for name in of_split(self._SETS, split, "The emoji world"):
            more = more_concepts() if name == "C" else ()
            of_set = [e for e in emoji_table() if e.everyday == name or e.index in more]
            found += of_set[: self.options.concepts]
        return sorted(found, key=lambda e: e.index)

    @staticmethod
    def _styles(emoji: Emoji, split: str) -> Sequence[str]:
        seen = [s for s in STYLES if s in emoji.styles and s != emoji.held_out]
        if split == "train":
            return seen[:-1] if emoji.index % 2 else seen[1:]
        if split == "validation":
            return seen[-1:] if emoji.index % 2 else seen[:1]
        if split == "test-unseen-style":
            return [UNSEEN_STYLE] if UNSEEN_STYLE in emoji.styles else []
        return [emoji.held_out]
