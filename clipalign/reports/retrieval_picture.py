"""A search as a picture: one row a model, with the images it brings up and how they are divided."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from clipalign.datasets.base import rgb_image
from clipalign.evals.retrieve import Found, Retrieval
from clipalign.files import atomic_write_bytes
from clipalign.tasks.rendering import font_files

__all__ = ["retrieval_picture", "write_retrieval_picture"]

_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by all
_OTHER, _INK, _FAINT = "#888888", "#222222", "#666666"
_SIDE, _GAP, _EDGE, _MARGIN = 112, 12, 5, 28
_BAR = 10


def retrieval_picture(retrieval: Retrieval, names: Sequence[str] | None = None) -> Image.Image:
    """Draw a search.

    Args:
        retrieval: the search.
        names: of the rows; None for the model specs.

    Returns:
        RGB; each image framed in the colour of its value, with a bar of the counts beneath a row.
    """
    titles = [f.model for f in retrieval.found] if names is None else list(names)
    k = max(len(f.examples) for f in retrieval.found)
    colours = {v: _COLOURS[i % len(_COLOURS)] for i, v in enumerate(retrieval.values)}
    large, small = _font(26), _font(19)
    row_height = 34 + _SIDE + _GAP + _BAR + 34
    width = max(2 * _MARGIN + k * (_SIDE + _GAP) - _GAP, 640)
    picture = Image.new("RGB", (width, 104 + row_height * len(titles) + 8), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, 22), f"“{retrieval.query}”", font=large, fill=_INK)
    balance = ", ".join(f"{n} {value}" for value, n in [*retrieval.values.items()][:6])
    below = f"top {k} of {retrieval.gallery} images ({balance}), {retrieval.dataset.name}"
    draw.text((_MARGIN, 60), f"{below} {retrieval.split}", font=small, fill=_FAINT)
    for i, (title, found) in enumerate(zip(titles, retrieval.found, strict=True)):
        _row(picture, draw, 104 + i * row_height, title, found, retrieval, colours)
    return picture


def write_retrieval_picture(
    retrieval: Retrieval, path: Path, names: Sequence[str] | None = None
) -> None:
    """Write the picture as PNG.

    Raises:
        StorageError: it cannot be written.
    """
    buffer = io.BytesIO()
    retrieval_picture(retrieval, names).save(buffer, "PNG", optimize=True)
    atomic_write_bytes(path, buffer.getvalue())


def _row(
    picture: Image.Image,
    draw: ImageDraw.ImageDraw,
    top: int,
    title: str,
    found: Found,
    retrieval: Retrieval,
    colours: dict[str, str],
) -> None:
    small = _font(19)
    draw.text((_MARGIN, top), title, font=small, fill=_INK)
    top += 34
    for j, (example, value) in enumerate(zip(found.examples, found.values, strict=True)):
        left = _MARGIN + j * (_SIDE + _GAP)
        draw.rectangle(
            (left, top, left + _SIDE - 1, top + _SIDE - 1), fill=colours.get(value, _OTHER)
        )
        inside = _SIDE - 2 * _EDGE
        shown = rgb_image(retrieval.dataset, example)
        picture.paste(
            ImageOps.fit(shown, (inside, inside), Image.Resampling.LANCZOS),
            (left + _EDGE, top + _EDGE),
        )
    top += _SIDE + _GAP
    total = _SIDE * len(found.examples) + _GAP * (len(found.examples) - 1)
    counts = {v: found.counts[v] for v in retrieval.values if v in found.counts}
    left = _MARGIN
    for value, n in counts.items():
        share = round(total * n / len(found.examples))
        draw.rectangle((left, top, left + share - 1, top + _BAR - 1), fill=colours[value])
        draw.text((left, top + _BAR + 2), f"{n} {value}", font=small, fill=colours[value])
        left += share


def _font(size: int) -> ImageFont.FreeTypeFont:
    path = next(path for path in font_files("train") if path.stem == "open-sans")
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
