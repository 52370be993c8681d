"""Write words on pictures with glyphs that are drawn once.

A preference set writes some hundred words a million times. Pillow loads, measures and strokes each
letter anew for each of them, which takes longer than to encode the picture. Letters of the usual
sizes are kept, some 64 MiB at most; large ones are drawn anew, for pictures of their size take far
longer to encode. The pixels are those of Pillow's `multiline_text` with basic layout (11.2 and
later): it, too, puts whole glyphs at whole pixels.

A font is a pair here: its file, and its size in pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Box", "Colour", "Font", "extent", "write"]

Font: TypeAlias = tuple[Path, int]
Box: TypeAlias = tuple[float, float, float, float]
Colour: TypeAlias = tuple[int, int, int]

_SPACING = 1  # pixels between two lines
_LARGEST_KEPT = 64  # pixels: the size of a font whose letters take some 4 KiB each
_KEPT = 1 << 14  # of them; and of the steps between two letters


def extent(font: Font, text: str, stroke: int = 0) -> Box:
    """Left, top, right and bottom of what `write` covers if it begins at (0, 0).

    Args:
        font: file and size.
        text: of one or more lines, and not empty.
        stroke: pixels of outline.
    """
    boxes = [
        (box[0] + x, box[1] + y, box[2] + x, box[3] + y)
        for line, x, y in _lines(font, text, stroke)
        for box in [_extent_of_line(font, line, stroke)]
    ]
    return _union(boxes)


def write(
    image: Image.Image,
    xy: tuple[float, float],
    font: Font,
    text: str,
    fill: Colour,
    stroke: int = 0,
    around: Colour = (0, 0, 0),
) -> None:
    """Write on an image, lines centred.

    Args:
        image: RGB; it is changed.
        xy: where the text begins, left and top.
        font: file and size.
        text: of one or more lines.
        fill: colour of the letters.
        stroke: pixels of outline.
        around: colour of the outline.
    """
    for line, x, y in _lines(font, text, stroke):
        for width, colour in ((stroke, around), (0, fill)) if stroke else ((0, fill),):
            _write_line(image, (xy[0] + x, xy[1] + y), font, line, width, colour)


@dataclass(frozen=True, slots=True)
class _Ink:
    """How much of each pixel a character covers; left and top of that, from where it is placed."""

    mask: Image.Image
    left: int
    top: int


def _lines(font: Font, text: str, stroke: int) -> Iterator[tuple[str, float, float]]:
    """Each line and where it begins, all centred on the longest."""
    lines = text.split("\n")
    lengths = [_places(font, line)[-1] for line in lines]
    for number, (line, length) in enumerate(zip(lines, lengths, strict=True)):
        yield line, (max(lengths) - length) / 2, number * _pitch(font, stroke)


def _extent_of_line(font: Font, line: str, stroke: int) -> Box:
    return _union(
        [
            (box[0] + x, box[1], box[2] + x, box[3])
            for character, place in zip(line, _places(font, line), strict=False)
            for x, box in [(_whole(place), _box(font, character, stroke))]
        ]
    )


def _write_line(
    image: Image.Image,
    xy: tuple[float, float],
    font: Font,
    line: str,
    stroke: int,
    colour: Colour,
) -> None:
    begin = _whole(64 * xy[0]) / 64  # FreeType's unit
    glyphs = [
        (_whole(begin + place) + ink.left, ink.top, ink.mask)
        for character, place in zip(line, _places(font, line), strict=False)
        for ink in [_ink(font, character, stroke)]
        if ink is not None
    ]
    if not glyphs:
        return
    left, top = min(x for x, _, _ in glyphs), min(y for _, y, _ in glyphs)
    right = max(x + mask.width for x, _, mask in glyphs)
    bottom = max(y + mask.height for _, y, mask in glyphs)
    # one text covers the picture once, also where its letters overlap
    whole = Image.new("L", (right - left, bottom - top))
    draw = ImageDraw.Draw(whole)
    for x, y, mask in glyphs:
        draw.bitmap((x - left, y - top), mask, 255)
    image.paste(colour, (left, top + _whole(xy[1])), whole)


@functools.lru_cache(maxsize=_KEPT)
def _box(font: Font, character: str, stroke: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what a character takes in a line, from where it is placed."""
    left, top, right, bottom = _face(font).getbbox(character, "L", stroke_width=stroke)
    return int(left), int(top), int(right), int(bottom)


def _ink(font: Font, character: str, stroke: int) -> _Ink | None:
    """None of a space."""
    draw = _kept_ink if font[1] <= _LARGEST_KEPT else _draw_ink
    return draw(font, character, stroke)


@functools.lru_cache(maxsize=_KEPT)
def _kept_ink(font: Font, character: str, stroke: int) -> _Ink | None:
    return _draw_ink(font, character, stroke)


def _draw_ink(font: Font, character: str, stroke: int) -> _Ink | None:
    left, top, right, bottom = _box(font, character, stroke)
    # a pixel of margin: what is covered may reach beyond what is measured
    mask = Image.new("L", (right - left + 2, bottom - top + 2))
    draw = ImageDraw.Draw(mask)
    draw.fontmode = "L"
    draw.text((1 - left, 1 - top), character, 255, _face(font), stroke_width=stroke)
    covered = mask.getbbox()
    if covered is None:
        return None
    return _Ink(mask.crop(covered), left - 1 + covered[0], top - 1 + covered[1])


@functools.lru_cache(maxsize=_KEPT)
def _places(font: Font, line: str) -> tuple[float, ...]:
    """Where each character begins, kerned, and where the line ends."""
    steps = [_step(font, a, b) for a, b in pairwise(line)]
    last = [_face(font).getlength(line[-1])] if line else []
    return tuple(accumulate([*steps, *last], initial=0.0))


@functools.lru_cache(maxsize=_KEPT)
def _step(font: Font, a: str, b: str) -> float:
    """From the beginning of a character to that of the next."""
    face = _face(font)
    return face.getlength(a + b) - face.getlength(b)


@functools.lru_cache(maxsize=_KEPT)
def _pitch(font: Font, stroke: int) -> float:
    """From line to line."""
    return _face(font).getbbox("A", "L", stroke_width=stroke)[3] + stroke + _SPACING


@functools.lru_cache(maxsize=1024)
def _face(font: Font) -> ImageFont.FreeTypeFont:
    # basic layout: the same places whether or not libraqm is installed
    return ImageFont.truetype(str(font[0]), font[1], layout_engine=ImageFont.Layout.BASIC)


def _whole(place: float) -> int:
    return math.floor(place + 0.5)


def _union(boxes: list[Box]) -> Box:
    if not boxes:
        return 0, 0, 0, 0
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)
