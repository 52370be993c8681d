"""Draw a word on a picture: the attack of the typographic task, in two styles.

`outlined` is the protocol of the paper (§1.4 of its released generator, which is Defense-Prefix's):
plain text with a one-pixel outline, in two different colours. `note` is a word on a light label
stuck on the picture, like the sticky notes of the RTA-100 and PAINT photographs.

The published sizes are for 224-pixel images; here they scale with the image's shorter side, with a
floor below which letters would no longer be legible. Fonts and colours come as two disjoint sets,
`train` and `test`.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from clipalign.tasks import glyphs
from clipalign.tasks.glyphs import Colour, Font

Style = Literal["outlined", "note"]
STYLES: tuple[Style, ...] = ("outlined", "note")

_PROTOCOL_SIDE = 224
_OUTLINED_SIZE = (20, 40)  # pixels at 224, uniform
_NOTE_SIZE = (30, 50)
_LEGIBLE = 10  # pixels: the floor at any size of image
_SMALLEST = 4  # pixels: below it nothing is tried
_MARGIN = 0.2  # of a label around its text, in sizes of the font

FILLS: dict[str, tuple[Colour, ...]] = {
    # white, blue, green, red, magenta, cyan, yellow, black: the eight of the published protocol
    "train": (
        (255, 255, 255), (0, 0, 255), (0, 128, 0), (255, 0, 0),
        (255, 0, 255), (0, 255, 255), (255, 255, 0), (0, 0, 0),
    ),
    "test": (
        (255, 140, 0), (75, 0, 130), (0, 128, 128), (245, 245, 220),
        (128, 0, 0), (255, 192, 203), (25, 25, 60), (154, 205, 50),
    ),
}  # fmt: skip
LABELS: dict[str, tuple[Colour, ...]] = {
    "train": ((255, 255, 255), (255, 249, 170), (210, 230, 255)),
    "test": ((255, 214, 222), (214, 245, 200), (248, 240, 225)),
}
INKS: dict[str, tuple[Colour, ...]] = {
    "train": ((0, 0, 0), (15, 20, 110), (130, 10, 10)),
    "test": ((40, 30, 25), (0, 70, 40), (70, 0, 90)),
}


@dataclass(frozen=True, slots=True)
class Attack:
    """How one word was drawn: everything that is needed to describe it in a metadata row."""

    text: str
    style: Style
    font: str
    size: int
    fill: Colour
    around: Colour
    """Colour of the outline (`outlined`) or of the label (`note`)."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom of the drawn text or label, in pixels."""


@functools.cache
def font_files(split: str) -> tuple[Path, ...]:
    """The fonts that ship for a split ("train" or "test"), in a stable order."""
    return tuple(sorted((Path(__file__).parent / "fonts" / split).glob("*.ttf")))


def break_lines(text: str) -> str:
    """Two words stand on two lines, three on two (2 + 1), more stay as they are."""
    words = text.split()
    if len(words) in (2, 3):
        return " ".join(words[:-1]) + "\n" + words[-1]
    return text


def draw_attack(
    image: Image.Image,
    text: str,
    rng: random.Random,
    *,
    style: Style,
    split: str = "train",
    fonts: tuple[Path, ...] | None = None,
    size: int | None = None,
) -> tuple[Image.Image, Attack]:
    """Write `text` on a copy of `image`.

    Args:
        image: RGB, any size.
        text: the word; two and three words are broken over two lines.
        rng: decides font, size, colours and place; the same state gives the same pixels.
        style: "outlined" or "note".
        split: which set of fonts and colours, "train" or "test".
        fonts: font files to use instead of the split's.
        size: of the font in pixels, instead of a random one; shrunk where it does not fit.

    Returns:
        The new image and how the word was drawn; where it fits in none of the fonts, in a box that
        reaches beyond the image.
    """
    image = image.copy()
    fonts = fonts or font_files(split)
    path = rng.choice(fonts)
    side = min(image.size)
    low, high = _OUTLINED_SIZE if style == "outlined" else _NOTE_SIZE
    if size is None:
        size = max(_LEGIBLE, round(rng.uniform(low, high) * side / _PROTOCOL_SIDE))
    stroke = max(1, round(side / _PROTOCOL_SIDE)) if style == "outlined" else 0
    lines = break_lines(text)
    margin = _MARGIN if style == "note" else 0.0
    for font, pad in _fallbacks(path, size, fonts, margin):
        left, top, right, bottom = glyphs.extent(font, lines, stroke)
        width, height = int(right - left) + 2 * pad, int(bottom - top) + 2 * pad
        if width <= image.width and height <= image.height:
            break
    x = rng.randint(0, max(0, image.width - width))
    y = rng.randint(0, max(0, image.height - height))
    if style == "outlined":
        fill, around = rng.sample(FILLS[split], 2)
    else:
        fill, around = rng.choice(INKS[split]), rng.choice(LABELS[split])
        image.paste(around, (x, y, min(x + width, image.width), min(y + height, image.height)))
    place = (x + pad - left, y + pad - top)
    glyphs.write(image, place, font, lines, fill, stroke, around)
    box = (x, y, x + width, y + height)
    return image, Attack(text, style, font[0].stem, font[1], fill, around, box)


def _fallbacks(
    path: Path, size: int, fonts: Sequence[Path], margin: float
) -> Iterator[tuple[Font, int]]:
    """Fonts, and pixels of label around the text, in the order in which they are tried.

    The drawn font shrinks, as the protocol does, within the label of the drawn size; then with its
    label; then the other fonts do.
    """
    sizes = range(size, min(size, _SMALLEST) - 1, -1)
    yield from (((path, smaller), round(margin * size)) for smaller in sizes)
    for other in (path, *fonts):
        yield from (((other, smaller), round(margin * smaller)) for smaller in sizes)
