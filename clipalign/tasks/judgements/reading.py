"""One row of judgements: which text an image should prefer, or whether one text suits it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from clipalign.text import can_be_printed

__all__ = ["Columns", "Judgement", "judgement", "one_line"]

_TRUE = frozenset({"true", "yes", "y", "t", "1", "1.0", "+1"})
_FALSE = frozenset({"false", "no", "n", "f", "0", "0.0", "-1", "-1.0"})
_LONGEST = 4000  # characters; a tokenizer reads some 77 tokens of them


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the columns."""

    chosen: str = "chosen"
    rejected: str = "rejected"
    text: str = "text"
    desirable: str = "desirable"

    @property
    def names(self) -> tuple[str, str, str, str]:
        """All four."""
        return self.chosen, self.rejected, self.text, self.desirable


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one row says; at least one text is there.

    Attributes:
        key: of the example that said it.
        chosen: the preferred text, or None.
        rejected: the dispreferred text, or None.
        columns: what else the row says.
    """

    key: str
    chosen: str | None
    rejected: str | None
    columns: Mapping[str, str]

    @property
    def texts(self) -> tuple[str, ...]:
        """The one or two texts."""
        return tuple(text for text in (self.chosen, self.rejected) if text is not None)


def one_line(text: str) -> str:
    """A text in the one form that it has here: composed (NFC), spaces and line breaks single."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def judgement(key: str, cells: Mapping[str, str], columns: Columns) -> Judgement:
    """Read one row: `chosen` and `rejected`, or one of them, or `text` and `desirable`.

    Raises:
        ValueError: the row says nothing, or two things; the message is the reason.
    """
    chosen, rejected, text, desirable = (one_line(cells.get(name, "")) for name in columns.names)
    if (text or desirable) and (chosen or rejected):
        raise ValueError(
            f"it has {columns.chosen} or {columns.rejected} and {columns.text} or "
            f"{columns.desirable} too: one of the two ways is enough"
        )
    if text or desirable:
        if missing := [n for n in (columns.text, columns.desirable) if n not in cells]:
            raise ValueError(f"there is no column {missing[0]!r}")
        if not text:
            raise ValueError(f"its {columns.text} is empty")
        if _is_desirable(desirable, columns.desirable):
            chosen = text
        else:
            rejected = text
    if not chosen and not rejected:
        raise ValueError("it names no text")
    if chosen == rejected:
        raise ValueError(f"{columns.chosen} and {columns.rejected} are the same text")
    for words in (chosen, rejected):
        if len(words) > _LONGEST:
            raise ValueError(f"a text of {len(words):,} characters; {_LONGEST:,} is the most")
        if not can_be_printed(words):
            raise ValueError(f"a text has characters that cannot be printed: {words[:60]!a}")
    kept = {name: cell for name, cell in cells.items() if name not in columns.names}
    return Judgement(key, chosen or None, rejected or None, kept)


def _is_desirable(cell: str, column: str) -> bool:
    word = cell.lower()
    if word not in _TRUE | _FALSE:
        what = f"{cell!r}, which is neither true nor false" if cell else "empty"
        raise ValueError(f"its {column} is {what}")
    return word in _TRUE
