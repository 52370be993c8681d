"""What every scan over t can tell: its rows, a table for a terminal, the panels of a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from clipalign.evals.curves import Curve
from clipalign.evals.statistics import Interval

__all__ = ["Panel", "Scanned", "how_sure", "percent", "plain_intervals"]


@dataclass(frozen=True)
class Panel:
    """Curves over t that share an axis.

    Attributes:
        title: of the axis.
        curves: name → one value a t; a curve with a None in it is not drawn.
        percent: whether the values are shares, to be shown in percent.
        sampled: some of the curves by name, with what they are on resampled images.
    """

    title: str
    curves: Mapping[str, Sequence[float | None]]
    percent: bool = False
    sampled: Mapping[str, Curve] = field(default_factory=dict)

    @property
    def among(self) -> str:
        """What the shares are of, where the title says it: "among all classes"."""
        return self.title.removeprefix("%").strip() if self.percent else ""


class Scanned(Protocol):
    """What a map was scanned for: `Scan` of a concept, or `ReadingScan` of written words.

    Attributes:
        rows: one dataclass a t, in the order asked for.
        intervals: field of a row → 95 % intervals, one a t.
        groups: how many groups of images are independent of each other.
    """

    @property
    def rows(self) -> Sequence[Any]: ...

    @property
    def intervals(self) -> Mapping[str, Sequence[Interval | None]]: ...

    @property
    def groups(self) -> int: ...

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


def plain_intervals(scan: Scanned) -> dict[str, list[list[float] | None]]:
    """Field of a row → its 95 % intervals as [low, high], one a t, for JSON."""
    return {
        name: [None if i is None else [i.low, i.high] for i in each]
        for name, each in scan.intervals.items()
    }


def how_sure(scan: Scanned) -> str:
    """How far the intervals of each share reach at most, in a sentence; empty without any."""
    widest = []
    for panel in scan.panels():
        for name, curve in panel.sampled.items() if panel.percent else ():
            halves = [(i.high - i.low) / 2 for i in curve.intervals if i is not None]
            label = f"{name} {panel.among}".strip()
            widest += [f"± {100 * max(halves):.1f} ({label})"] if halves else []
    if not widest:
        return ""
    return (
        f"95 % intervals over {scan.groups:,} independent groups of images reach at most "
        f"{', '.join(widest)}, in points; scan.csv has each."
    )
