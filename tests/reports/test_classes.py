"""The table of classes: what each gained and lost, before and after."""

from __future__ import annotations

from clipalign.evals.results import read_result, read_rows
from clipalign.reports.classes import class_tables
from clipalign.reports.report import report
from clipalign.reports.sources import find_sources
from tests.reports.page import Page


def test_classes_stand_with_what_the_reference_made_of_them(world, tmp_path):
    page = Page(report(world.first, output=tmp_path / "one.html", wall=0).path)
    path = next((world.first / "results").glob("*.json"))
    result, rows = read_result(path), read_rows(path)
    by_class = page.rows[-len(result.per_class) :]
    values = sorted(float(value) for _, data in by_class for value, _ in data)
    expected = [float(v) for row in result.per_class.values() for v in row.values()]
    for name in result.per_class:
        for clean in (True, False):
            mine = [r for r in rows if r["label"] == name and (r["written"] is None) == clean]
            right = [r["reference_predicted"] == name for r in mine]
            expected.append(sum(right) / len(right))
    assert values == sorted(expected)


def test_activities_stand_with_what_the_reference_made_of_them(world):
    (source,) = find_sources([world.people])
    (measured,) = [m for m in source.results if m.result.suite == "gender"]
    (table,) = class_tables(source)
    names = [heading for _, heading, _ in table.columns]
    assert "man in the top k, before" in names
    before = names.index("activity accuracy (%), before")
    assert names[before + 1] == "activity accuracy (%)"
    for name, values in table.rows:
        rows = [r for r in measured.rows if r["activity"] == name]
        right = sum(r["reference_predicted_activity"] == name for r in rows)
        assert values[before] == right / len(rows)
