"""Axes are round numbers that span the values; labels stand beside what they name."""

from __future__ import annotations

import re

from clipalign.reports.charts import Chart, Line, line_chart, ticks


def test_rounding_below_a_tick_makes_no_other() -> None:
    assert ticks(-4.9e-7, 3.8) == [0, 1, 2, 3, 4]
    assert ticks(-0.1, 3.8)[0] < -0.1


def test_an_axis_ends_at_its_ticks() -> None:
    lines = [Line("loss", [0, 1, 2], [1.0, 1.007, 0.938])]
    chart = Chart("Loss", lines)
    low, high = chart.y_range
    assert (low, high) == (chart.y_ticks[0], chart.y_ticks[-1])
    assert low <= 0.938
    assert high >= 1.007
    assert line_chart(chart).count('class="grid"') == len(chart.y_ticks)


def test_the_label_of_a_mark_stays_within_the_axes() -> None:
    lines = [Line("gender", [-1, 0, 1], [0.9, 0.9, 0.1])]
    drawn = line_chart(Chart("Over t", lines, "t", marks=[(0.0, "0"), (1.0, "as trained")]))
    places = re.findall(r'class="mark-label" x="([\d.]+)" y="10" (dx="-?4"[^>]*?) dy', drawn)
    assert [how for _, how in places] == ['dx="4"', 'dx="-4" text-anchor="end"']
