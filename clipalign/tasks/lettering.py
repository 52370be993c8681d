"""Which fonts can write which words."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from PIL import ImageFont

__all__ = ["fonts_with"]

_NO_CHARACTER = "\U0010ffff"  # never assigned: every font shows its box for missing characters


def fonts_with(text: str, fonts: Sequence[Path]) -> tuple[Path, ...]:
    """Those of `fonts` that have every character of `text` that leaves ink."""
    return tuple(path for path in fonts if _has(path, text))


def _has(path: Path, text: str) -> bool:
    return all(_glyph(path, c) != _glyph(path, _NO_CHARACTER) for c in text if not c.isspace())


@functools.lru_cache(maxsize=100_000)
def _glyph(path: Path, character: str) -> tuple[tuple[int, int], bytes]:
    """How a character looks: Pillow does not tell whether a font has it."""
    mask = _font(path).getmask(character)
    return mask.size, bytes(mask)


@functools.cache
def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), 32, layout_engine=ImageFont.Layout.BASIC)
