"""Line charts as SVG text: they take their colours from the page, and need nothing to be seen.

Every series is labelled where its line ends; ticks are round numbers. Equal input gives equal text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from clipalign.text import printable

__all__ = ["Chart", "Line", "dumbbell", "figure", "line_chart", "ticks"]

WIDTH, HEIGHT = 360, 200
_LEFT, _TOP, _BOTTOM = 46, 10, 26
_LETTER = 6.4  # width of a letter of a label, in units of the drawing
_GAP = 13  # between labels, in units of the drawing


@dataclass(frozen=True)
class Line:
    """One series.

    Attributes:
        name: its label; empty for the value at its end instead.
        xs, ys: equally many finite numbers, at least one.
        band: (low, high) of each, drawn as a band behind the line; empty for none.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    band: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Chart:
    """What is drawn.

    Attributes:
        title: stands above, outside the drawing.
        lines: at least one; the first is in the accent colour.
        x_label: under the axis.
        percent: values are shares and shown in percent.
        marks: vertical lines (x, label), such as t*.
        bounds: of the vertical axis; None for those of the data.
        note: one line under the title.
        short: what the chart is of in a word or two, for the heading of a table.
    """

    title: str
    lines: Sequence[Line]
    x_label: str = "step"
    percent: bool = False
    marks: Sequence[tuple[float, str]] = ()
    bounds: tuple[float, float] | None = None
    note: str = ""
    short: str = ""

    @property
    def labels(self) -> list[str]:
        """What stands at the end of each line: its name, and its last value."""
        ends = [_value(line.ys[-1], self.percent) for line in self.lines]
        named = zip(self.lines, ends, strict=True)
        return [f"{_short(line.name)} {end}".strip() for line, end in named]

    @property
    def x_range(self) -> tuple[float, float]:
        """First and last x of all lines."""
        return _span([x for line in self.lines for x in line.xs])

    @property
    def y_range(self) -> tuple[float, float]:
        """Lowest and highest y, or the bounds."""
        if self.bounds is not None:
            return self.bounds
        low, high = _span([y for line in self.lines for y in line.ys])
        return min(low, self.y_ticks[0]), max(high, self.y_ticks[-1])

    @property
    def y_ticks(self) -> list[float]:
        """Round numbers, of which the first and the last end the axis where it has no bounds."""
        return ticks(*(self.bounds or _span([y for line in self.lines for y in line.ys])))


def line_chart(chart: Chart) -> Markup:
    """Draw a chart.

    Returns:
        An SVG element of class "chart"; data-x0, data-x1, data-left and data-right say where x
        lies, so that a script can move the element of class "cursor".
    """
    (x0, x1), (y0, y1) = chart.x_range, chart.y_range
    bottom = HEIGHT - _BOTTOM
    right = round(WIDTH - 14 - _LETTER * max(len(words) for words in chart.labels))

    def x_of(x: float) -> float:
        return _LEFT + (x - x0) / (x1 - x0) * (right - _LEFT)

    def y_of(y: float) -> float:
        return bottom - (y - y0) / (y1 - y0) * (bottom - _TOP)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(_spoken(chart))}" data-x0="{x0:g}" data-x1="{x1:g}" '
        f'data-left="{_LEFT}" data-right="{right}">'
    ]
    for y in chart.y_ticks:
        if y0 - 1e-12 <= y <= y1 + 1e-12:
            at = f"{y_of(y):.1f}"
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
            parts.append(
                f'<text class="tick" x="{_LEFT - 7}" y="{at}" dy="0.35em" text-anchor="end">'
                f"{_tick(y, chart.percent)}</text>"
            )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    for x in ticks(x0, x1):
        if x0 <= x <= x1:
            parts.append(
                f'<text class="tick" x="{x_of(x):.1f}" y="{bottom + 16}" text-anchor="middle">'
                f"{_tick(x, False)}</text>"
            )
    last = max((x for x in ticks(x0, x1) if x0 <= x <= x1), default=x0)
    after = max(right + 8, x_of(last) + _LETTER * len(_tick(last, False)) / 2 + 6)
    parts.append(
        f'<text class="tick" x="{after:.1f}" y="{bottom + 16}">{_text(chart.x_label)}</text>'
    )
    taken, lower = -math.inf, False
    for x, name in sorted(chart.marks):
        at = f"{x_of(x):.1f}"
        lower = x_of(x) < taken and not lower  # beside the one before, a line further down
        taken = x_of(x) + 8 + _LETTER * len(name)
        parts.append(f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP}" y2="{bottom}"/>')
        inside = x_of(x) + 4 + _LETTER * len(name) <= right  # beyond it the lines have their names
        where = 'dx="4"' if inside else 'dx="-4" text-anchor="end"'
        parts.append(
            f'<text class="mark-label" x="{at}" y="{_TOP}" {where} '
            f'dy="{1.8 if lower else 0.6}em">{_text(name)}</text>'
        )
    parts.append(f'<line class="cursor" hidden="" x1="0" x2="0" y1="{_TOP}" y2="{bottom}"/>')

    def through(xs: Sequence[float], ys: Sequence[float]) -> str:
        return " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in zip(xs, ys, strict=True))

    for i, line in reversed(list(enumerate(chart.lines))):
        if line.band and len(line.xs) > 1:
            lows, highs = zip(*line.band, strict=True)
            outline = f"{through(line.xs, highs)} {through(line.xs[::-1], lows[::-1])}"
            parts.append(f'<polygon class="band s{i}" points="{outline}"/>')
        if len(line.xs) > 1:
            parts.append(f'<polyline class="line s{i}" points="{through(line.xs, line.ys)}"/>')
        x, y = x_of(line.xs[-1]), y_of(line.ys[-1])
        parts.append(f'<circle class="dot s{i}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>')
    ends = [y_of(line.ys[-1]) for line in chart.lines]
    for i, (words, y) in enumerate(zip(chart.labels, _spread(ends, _TOP, bottom), strict=True)):
        parts.append(
            f'<text class="end s{i}" x="{right + 8}" y="{y:.1f}" dy="0.35em">{_text(words)}</text>'
        )
    return Markup("".join([*parts, "</svg>"]))


def figure(chart: Chart, **attributes: str) -> Markup:
    """A chart with its title, as an HTML figure."""
    extra = Markup("").join(Markup(' {}="{}"').format(k, v) for k, v in attributes.items())
    note = (
        Markup('<span class="note">{}</span>').format(printable(chart.note)) if chart.note else ""
    )
    head = Markup("<figcaption>{} {}</figcaption>").format(printable(chart.title), note)
    return Markup('<figure class="plot"{}>{}{}</figure>').format(extra, head, line_chart(chart))


def dumbbell(before: float, after: float, bounds: tuple[float, float] | None) -> Markup:
    """A share before (hollow) and after (filled) with its interval, on a line from 0 to 100 %."""
    x = [4 + 132 * min(1.0, max(0.0, v)) for v in (before, after, *(bounds or (after, after)))]
    return Markup(
        '<svg class="dumbbell" viewBox="0 0 140 16" aria-hidden="true">'
        '<line class="grid" x1="4" x2="136" y1="8" y2="8"/>'
        '<line class="move" x1="{:.1f}" x2="{:.1f}" y1="8" y2="8"/>'
        '<line class="whisker" x1="{:.1f}" x2="{:.1f}" y1="8" y2="8"/>'
        '<circle class="from" cx="{:.1f}" cy="8" r="3.2"/>'
        '<circle class="to" cx="{:.1f}" cy="8" r="3.6"/></svg>'
    ).format(x[0], x[1], x[2], x[3], x[0], x[1])


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from `low` or below it to `high` or above it, some `about` of them.

    What lies beyond one by less than a thousandth of a step, as rounding does, makes no other.
    """
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-3), math.ceil(high / step - 1e-3)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest, drawn apart where they are one."""
    low, high = min(values), max(values)
    if high - low > 1e-12 * max(1.0, abs(high)):
        return low, high
    return (low, low + 1) if low == 0 else (low - abs(low) / 2, low + abs(low) / 2)


def _spread(places: Sequence[float], low: float, high: float) -> list[float]:
    """Move labels apart, as little as needed, within low to high."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for before, i in zip([None, *order], order, strict=False):
        least = low if before is None else moved[before] + _GAP
        moved[i] = max(moved[i], least)
    limit = high
    for i in reversed(order):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - _GAP
    return moved


def _tick(value: float, percent: bool) -> str:
    return _minus(f"{100 * value:g} %" if percent else f"{value:g}")


def _value(value: float, percent: bool) -> str:
    return _minus(f"{100 * value:.1f} %" if percent else f"{value:.3g}")


def _minus(number: str) -> str:
    return number.replace("e-0", "e-").replace("-", "−")


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"


def _text(words: str) -> str:
    return str(escape(printable(words)))


def _spoken(chart: Chart) -> str:
    """The chart in a sentence, for those who do not see it."""
    said = []
    for line in chart.lines:
        first, last = (_value(y, chart.percent) for y in (line.ys[0], line.ys[-1]))
        who = f"{line.name}: " if line.name else ""
        said.append(f"{who}{first} at {chart.x_label} {line.xs[0]:g}, {last} at {line.xs[-1]:g}")
    marked = [f"{name} marked at {x:.3g}" for x, name in chart.marks]
    return printable(f"{chart.title}. " + ". ".join([*said, *marked]) + ".")
