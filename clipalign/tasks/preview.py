"""A picture of a preference set for the eye: clean above, attacked below, and the two texts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from clipalign.tasks.packing import image_bytes

__all__ = ["preview"]

_COLUMNS, _PICTURE, _GAP, _LINE, _HEADER = 6, 176, 16, 20, 44
_INK, _PAPER, _MUTED = (28, 30, 34), (255, 255, 255), (118, 122, 130)
_GREEN, _RED = (22, 128, 61), (200, 30, 45)
_CELL = 2 * _PICTURE + 4 + 2 * _LINE + 10


def preview(title: str, rows: Sequence[Mapping[str, Any]], folder: Path) -> bytes:
    """Draw a grid of rows.

    Args:
        title: stands above it.
        rows: of a split's table.
        folder: of that split.

    Returns:
        A PNG; the same rows give the same bytes.
    """
    columns = min(_COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    width = _GAP + columns * (_PICTURE + _GAP)
    image = Image.new("RGB", (width, _HEADER + lines * (_CELL + _GAP)), _PAPER)
    draw = ImageDraw.Draw(image)
    heading, text = ImageFont.load_default(17), ImageFont.load_default(13)
    draw.text((_GAP, 13), _fit(draw, title, heading, width - 2 * _GAP), _INK, heading)
    for i, row in enumerate(rows):
        x = _GAP + i % columns * (_PICTURE + _GAP)
        y = _HEADER + i // columns * (_CELL + _GAP)
        for part in ("clean", "image"):
            data = image_bytes(folder, row, part)
            if data is not None:
                _paste(image, data, x, y)
            y += _PICTURE + 4
        for mark, colour, words in (
            (_check, _GREEN, row["chosen"]),
            (_cross, _RED, row["rejected"]),
        ):
            if words is not None:
                mark(draw, x, y + 4, colour)
                shown = _fit(draw, words, text, _PICTURE - 18)
                draw.text((x + 18, y + 2), shown, _INK, text)
            else:
                draw.text((x + 18, y + 2), "none", _MUTED, text)
            y += _LINE
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _paste(image: Image.Image, data: bytes, x: int, y: int) -> None:
    """Put a picture into its square, as large as it fits; small ones keep their hard pixels."""
    with Image.open(io.BytesIO(data)) as picture:
        scale = _PICTURE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        how = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
        fitted = picture.convert("RGB").resize(size, how)
    ImageDraw.Draw(image).rectangle((x, y, x + _PICTURE - 1, y + _PICTURE - 1), (243, 244, 246))
    image.paste(fitted, (x + (_PICTURE - size[0]) // 2, y + (_PICTURE - size[1]) // 2))


def _fit(draw: ImageDraw.ImageDraw, text: str, font: Any, width: int) -> str:
    """The text, cut with an ellipsis where it is wider than `width` pixels."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"


def _check(draw: ImageDraw.ImageDraw, x: int, y: int, colour: tuple[int, int, int]) -> None:
    draw.line(((x + 1, y + 6), (x + 5, y + 10), (x + 12, y + 1)), colour, 2, "curve")


def _cross(draw: ImageDraw.ImageDraw, x: int, y: int, colour: tuple[int, int, int]) -> None:
    draw.line(((x + 2, y + 1), (x + 11, y + 10)), colour, 2)
    draw.line(((x + 2, y + 10), (x + 11, y + 1)), colour, 2)
