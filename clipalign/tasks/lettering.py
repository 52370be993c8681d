"""Which fonts can write which words.

Words are written a letter at a time, from left to right (`clipalign.tasks.glyphs`).
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from PIL import ImageFont

__all__ = ["fonts_with", "needs_shaping"]

_NO_CHARACTER = "\U0010ffff"  # never assigned: every font shows its box for missing characters
_JOINER = "\u200d"
_SHAPED = (
    (0x0900, 0x0DFF), (0x0F00, 0x109F), (0x1780, 0x18AF), (0x1900, 0x194F), (0x1A00, 0x1AAF),
    (0x1B00, 0x1C4F), (0xA800, 0xA8FF), (0xA930, 0xA95F), (0xA980, 0xA9FF), (0xAA00, 0xAA7F),
    (0xAAE0, 0xAAFF), (0xABC0, 0xABFF), (0x11000, 0x11FFF),
)  # fmt: skip
"""Blocks of the scripts of India, Tibet, Burma, Java, Cambodia and Mongolia."""


def fonts_with(text: str, fonts: Sequence[Path]) -> tuple[Path, ...]:
    """Those of `fonts` that have every character of `text`, and ink for all that leave some.

    None for a text that needs shaping.
    """
    return () if needs_shaping(text) else tuple(path for path in fonts if _has(path, text))


def needs_shaping(text: str) -> bool:
    """Whether its letters join, change places or run from right to left, as in Arabic or Hindi."""
    return any(
        unicodedata.bidirectional(c) in ("R", "AL")
        or c == _JOINER
        or any(first <= ord(c) <= last for first, last in _SHAPED)
        for c in text
        if not c.isascii()
    )


def _has(path: Path, text: str) -> bool:
    return all(
        _glyph(path, c) != _glyph(path, _NO_CHARACTER) and (_is_mark(c) or any(_glyph(path, c)[1]))
        for c in text
        if not c.isspace()
    )


def _is_mark(character: str) -> bool:
    """Whether it may leave no ink of its own: neither letter, number, punctuation nor symbol."""
    return unicodedata.category(character)[0] not in "LNPS"


@functools.lru_cache(maxsize=100_000)
def _glyph(path: Path, character: str) -> tuple[tuple[int, int], bytes]:
    """How a character looks: Pillow does not tell whether a font has it."""
    mask = _font(path).getmask(character)
    return mask.size, bytes(mask)


@functools.cache
def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), 32, layout_engine=ImageFont.Layout.BASIC)
