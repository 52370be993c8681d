"""Text for people: what comes from others made inert, so that it is not obeyed; lines folded."""

from __future__ import annotations

import functools
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["can_be_printed", "fold", "listed", "printable", "sheet_cell"]

_T = TypeVar("_T")

JOINERS = "\u200c\u200d"
"""They part and join letters of Persian or Hindi, and join emoji; they turn nothing around."""

fold = functools.partial(textwrap.wrap, break_on_hyphens=False)
"""Lines of at most `width`: as `textwrap.wrap`, and names such as emoji-tiny stay in one piece."""


def listed(names: Sequence[str]) -> list[str]:
    """A list of names, of which a single one needs no brackets: text is no list of letters."""
    return [names] if isinstance(names, str) else list(names)


def printable(text: str) -> str:
    """Show control and direction marks as escapes; new lines, tabs and joiners stay."""
    return "".join(
        c if c.isprintable() or c in f"\n\t{JOINERS}" else c.encode("unicode_escape").decode()
        for c in text
    )


def can_be_printed(text: str) -> bool:
    """Whether it has no control or direction mark, lone surrogate or separator of lines."""
    return text.isprintable() or all(
        c.isprintable() or c in JOINERS or unicodedata.category(c) == "Zs" for c in text
    )


def sheet_cell(value: _T) -> _T | str:
    """A cell for a CSV file, which a spreadsheet shows and does not compute.

    Text that would begin a formula (=, +, -, @, also after spaces) gets an apostrophe before it;
    numbers and whatever else is no text stay as they are.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] == "\t" else text
