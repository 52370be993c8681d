"""What every scan over t can tell: its rows, a table for a terminal, the panels of a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Panel", "Scanned", "percent"]


@dataclass(frozen=True)
class Panel:
    """Curves over t that share an axis.

    Attributes:
        title: of the axis.
        curves: name → one value a t; a curve with a None in it is not drawn.
        percent: whether the values are shares, to be shown in percent.
    """

    title: str
    curves: Mapping[str, Sequence[float | None]]
    percent: bool = False


class Scanned(Protocol):
    """What a map was scanned for: `Scan` of a concept, or `ReadingScan` of written words.

    Attributes:
        rows: one dataclass a t, in the order asked for.
    """

    @property
    def rows(self) -> Sequence[Any]: ...

    @property
    def title(self) -> str:
        """One line: what was looked at, in how many images."""

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON."""

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Headings, and one row of cells a t, for a terminal."""

    def panels(self) -> Sequence[Panel]:
        """What a picture shows, from top to bottom."""


def percent(share: float | None) -> str:
    """A share for a table; a dash for None."""
    return "–" if share is None else f"{100 * share:.1f} %"
