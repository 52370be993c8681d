"""From result files to the table, the front and the tests: every number by hand."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from clipalign.cli.console import table
from clipalign.comparison.compare import report, state_of
from clipalign.comparison.plan import make_plan
from clipalign.comparison.records import read_record, write_record
from clipalign.comparison.summarise import summarise
from clipalign.comparison.summary import Summary
from clipalign.comparison.tables import markdown, terminal
from clipalign.comparison.write import read_summary
from clipalign.errors import DataError, RunError
from clipalign.evals.statistics import Interval
from clipalign.evals.words import interval
from tests.comparison.conftest import made_up_result


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes seconds."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("clipalign.comparison.plot.drawable", lambda panel: False)


def row(summary, method):
    [panel] = summary.panels
    [found] = [r for r in panel.rows if r.method == method]
    return found


def test_means_and_spread_over_seeds(study):
    robust = row(summarise(study), "robust")
    assert robust.seeds == [0, 1]
    attacked = robust.entries["attacked_accuracy"]
    assert attacked.values == [0.75, 0.5]
    assert attacked.mean == pytest.approx(0.625)
    assert attacked.sd == pytest.approx(0.125 * 2**0.5)
    assert (attacked.n, attacked.of) == (4, "image")
    assert attacked.interval.method == "cluster-student-t"  # of four images
    assert attacked.interval.low <= 0.625 <= attacked.interval.high
    reference = row(summarise(study), "reference").entries["clean_accuracy"]
    assert (reference.values, reference.sd) == ([0.75], None)


def test_no_interval_of_a_divergence_reaches_below_0(study):
    for cell in study.cells:
        if cell.method == "robust":
            path = study.folder(cell) / "results" / "a.json"
            made_up_result(path, [1, 1, 1, 0], [1, 1, 0, 0], [0.0, 0.0, 0.0, 0.4])
    moved = row(summarise(study), "robust").entries["kl_to_reference"]
    assert moved.values == pytest.approx([0.1, 0.1])
    assert (moved.interval.method, moved.interval.low) == ("cluster-student-t", 0.0)
    assert moved.interval.high > 0.4


def test_a_number_that_is_no_mean_over_images_has_a_spread_and_no_interval(study):
    ece = row(summarise(study), "robust").entries["ece"]
    assert (ece.values, ece.sd, ece.interval) == ([0.25, 0.25], 0.0, None)


def test_the_front_is_found_on_the_means_of_the_suites_axes(study):
    summary = summarise(study)
    assert [c.metric for c in summary.panels[0].columns if c.axis] == [
        "attacked_accuracy", "clean_accuracy", "kl_to_reference",
    ]  # fmt: skip
    # attacked, clean, KL: reference 0, .75, 0; robust .625, .625, .15; dull .25, .375, .3
    assert {r.method: (r.on_front, r.dominated_by) for r in summary.panels[0].rows} == {
        "reference": (True, []),
        "robust": (True, []),
        "dull": (False, ["robust"]),
    }


def test_paired_tests_let_each_image_vote_once_over_all_seeds(study):
    tests = {t.metric: t for t in row(summarise(study), "robust").tests}
    attacked = tests["attacked_accuracy"]
    assert attacked.difference == pytest.approx(0.625)
    # images 0 to 2 are won (image 2 by one seed of two), image 3 by none: p = 2 · (1/2)³
    assert (attacked.test, attacked.n_discordant, attacked.n) == ("sign-exact", 3, 8)
    assert attacked.p_value == pytest.approx(0.25)
    assert tests["kl_to_reference"].difference == pytest.approx(0.15)
    assert tests["kl_to_reference"].p_value is None
    assert "ece" not in tests
    assert row(summarise(study), "reference").tests == []


def test_a_failed_method_has_no_row_and_is_said(study):
    summary = summarise(study)
    assert [r.method for r in summary.panels[0].rows] == ["reference", "robust", "dull"]
    failed = [c for c in summary.cells if c.state == "failed"]
    assert [(c.name, c.reason) for c in failed] == [
        ("broken-s0", "No data."), ("broken-s1", "No data."),
    ]  # fmt: skip


def test_a_missing_seed_is_counted_and_the_others_are_used(study):
    (study.folder("robust-s1") / "results" / "a.rows.jsonl").unlink()
    robust = row(summarise(study), "robust")
    assert (robust.seeds, robust.missing) == ([0], 1)
    assert robust.entries["attacked_accuracy"].values == [0.75]


def test_what_was_measured_in_another_way_is_not_measured(study):
    content = study.recipe.model_dump(exclude_defaults=True)
    content["evaluate"][0]["options"] = {"styles": ["note"]}
    other = make_plan(content, study.output, check_options=False)
    summary = summarise(other)
    assert summary.panels == []
    assert "0 of 7 cells are finished, 2 failed." in terminal(summary, table)
    again = next(cell for cell in other.cells if cell.name == "robust-s0")
    assert state_of(other, again) == "to be measured again"
    record = read_record(other, again)
    write_record(other, again, replace(record, evaluations=[other.evaluations[0].measuring()]))
    summary = summarise(other)
    assert [(r.method, r.seeds, r.missing) for r in summary.panels[0].rows] == [("robust", [0], 1)]
    assert "1 of 7 cells are finished, 2 failed." in terminal(summary, table)


def test_an_evaluation_that_came_later_leaves_the_tables_of_the_others(study):
    content = study.recipe.model_dump(exclude_defaults=True)
    content["evaluate"].insert(0, {"suite": "retention"})
    other = make_plan(content, study.output, check_options=False)
    summary = summarise(other)
    assert [p.evaluation for p in summary.panels] == ["typographic"]
    assert {c.state for c in summary.cells} == {"started", "failed"}


def test_what_is_shown_is_no_other_measurement(study):
    content = study.recipe.model_dump(exclude_defaults=True)
    content["evaluate"] = [{"suite": "typographic", "axes": ["clean_accuracy"], "show": []}]
    other = make_plan(content, study.output, check_options=False)
    assert state_of(other, other.cells[0]) == "finished"
    assert [c.metric for c in summarise(other).panels[0].columns] == ["clean_accuracy"]


def test_cells_against_different_weights_are_warned_of(study):
    for cell in study.cells:
        against = {"spec": "m", "name": "m", "sha256": ("a" if cell.seed == 1 else "b") * 64}
        if cell.method != "broken":
            path = study.folder(cell) / "results" / "a.json"
            made_up_result(path, [1, 1, 0, 0], [1, 0, 0, 0], [0.3] * 4, against=against)
    [panel] = summarise(study).panels
    assert panel.warnings == ["Cells were measured against different weights of emoji-tiny."]


def test_a_difference_over_fewer_seeds_than_the_columns_says_which(study):
    content = study.recipe.model_dump(exclude_defaults=True)
    plan = make_plan({**content, "baseline": "dull"}, study.output, check_options=False)
    assert all(r.paired_seeds is None for r in summarise(plan).panels[0].rows)
    (study.folder("robust-s0") / "results" / "a.json").unlink()
    summary = summarise(plan)
    assert [(r.method, r.paired_seeds) for r in summary.panels[0].rows] == [
        ("reference", None), ("robust", [1]), ("dull", None),
    ]  # fmt: skip
    note = "Differences of robust to dull are over the seeds that both have: 1."
    assert note in markdown(summary, {})
    assert note in terminal(summary, table)
    content["evaluate"] = [{"suite": "typographic", "axes": ["clean_accuracy"]}]
    content["methods"] = {name: content["methods"][name] for name in ("reference", "robust")}
    one = summarise(make_plan(content, study.output, check_options=False))
    assert "for there being 1 test. " in markdown(one, {})
    (study.folder("dull-s1") / "results" / "a.json").unlink()
    assert "robust and dull have no seed in common: no difference." in markdown(summarise(plan), {})


def test_other_axes_and_another_direction_give_another_front(study):
    evaluation = study.evaluations[0].model_copy(update={"axes": None})
    content = study.recipe.model_dump(exclude_defaults=True)
    content["evaluate"] = [
        {"suite": "typographic", "axes": [{"metric": "clean_accuracy", "better": "lower"}]}
    ]
    other = make_plan(content, study.output, check_options=False)
    assert evaluation.axes_of_suite() != other.evaluations[0].axes_of_suite()
    rows = summarise(other).panels[0].rows
    assert [r.method for r in rows if r.on_front] == ["dull"]


def test_an_axis_that_no_result_has_is_named_with_its_neighbours(study):
    content = study.recipe.model_dump(exclude_defaults=True)
    content["evaluate"] = [{"suite": "typographic", "axes": ["attacked_acuracy"]}]
    [panel] = summarise(make_plan(content, study.output, check_options=False)).panels
    assert "so there is no front. Did you mean 'attacked_accuracy'" in panel.warnings[0]
    assert all(r.on_front is None for r in panel.rows)
    content["evaluate"][0]["axes"] += ["clean_accuracy", "kl_to_reference"]
    summary = summarise(make_plan(content, study.output, check_options=False))
    assert all(r.on_front is None for r in summary.panels[0].rows)  # of fewer axes it were another
    assert "an axis was not measured" not in markdown(summary, {})


def test_a_result_that_was_changed_afterwards_is_refused(study):
    path = study.folder("dull-s0") / "results" / "a.json"
    path.write_text(path.read_text().replace("0.25", "0.95", 1))
    again = f"clipalign compare {study.output} --all"
    with pytest.raises(DataError, match=f"was changed after it was written.*{again}"):
        summarise(study)


def test_a_record_that_was_changed_afterwards_is_refused(study):
    path = study.output / "cells" / "dull-s0.json"
    path.write_text(path.read_text().replace("dull", "dill", 1))
    with pytest.raises(RunError, match=f"remove it and {study.folder('dull-s0')}"):
        summarise(study)


def test_the_report_is_json_csv_markdown_and_pictures(study):
    pytest.importorskip("matplotlib")
    result = report(study)
    names = {p.name for p in result.files}
    assert names == {
        "compare.json", "compare.csv", "compare.md",
        "front-typographic-emoji-test.png", "front-typographic-emoji-test.svg",
    }  # fmt: skip
    assert list(result.failed) == ["broken-s0", "broken-s1"]
    summary = read_summary(study.output)
    assert summary == result.summary
    assert json.loads((study.output / "compare.json").read_text())["schema_version"] == 1
    with (study.output / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    [mean] = [
        r for r in rows if (r["method"], r["metric"], r["seed"]) == ("robust", "clean_accuracy", "")
    ]
    assert float(mean["value"]) == pytest.approx(0.625)
    assert float(mean["difference_to_baseline"]) == pytest.approx(-0.125)
    seeds = [r for r in rows if r["method"] == "robust" and r["seed"]]
    assert len(seeds) == 2 * 4
    text = (study.output / "compare.md").read_text()
    assert "| robust | 0,1 | 62.5 ± 17.7 [" in text
    assert "![typographic, test](front-typographic-emoji-test.svg)" in text
    assert "Failed: broken-s0: DataError: No data." in text
    picture = (study.output / "front-typographic-emoji-test.svg").read_text()
    assert all(name in picture for name in ("reference", "robust", "dull"))
    before = {p: p.read_bytes() for p in result.files}
    assert {p: p.read_bytes() for p in report(study).files} == before  # same files, same bytes


def test_another_version_of_the_file_is_refused(study, no_pictures):
    report(study)
    path = study.output / "compare.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2', 1))
    with pytest.raises(DataError, match="schema_version"):
        read_summary(path)


def test_the_schema_describes_every_field_of_the_file(study, no_pictures):
    report(study)
    document = json.loads((study.output / "compare.json").read_text())
    schema = Summary.model_json_schema()
    assert set(document) == set(schema["properties"])
    for name, part in (("Panel", document["panels"][0]), ("CellRow", document["cells"][0])):
        assert set(part) == set(schema["$defs"][name]["properties"])


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_terminal_is_never_overrun(study, width):
    def align(headers, rows):
        return table(headers, rows, width=width)

    text = "\n".join(
        line
        for block in terminal(summarise(study), align).split("\n\n")
        for line in block.splitlines()
        if block.startswith(("method", "METHOD"))
    )
    assert "robust" in text
    assert max(map(len, text.splitlines())) <= width


def test_in_markdown_no_text_is_a_tag(study):
    content = {**study.recipe.model_dump(exclude_defaults=True), "title": "a < b & <b>&amp;</b>"}
    text = markdown(summarise(make_plan(content, study.output, check_options=False)), {})
    assert text.startswith("# a < b & &lt;b>&amp;amp;&lt;/b>\n")


def test_a_zero_has_the_sign_of_its_neighbours():
    bounds = Interval(low=-0.00001, high=0.0002, level=0.95, method="")
    assert interval(bounds, "nats", "+") == " [+0.0000, +0.0002]"
    assert interval(bounds, "nats") == " [0.0000, 0.0002]"


def test_markdown_says_n_seeds_and_what_the_brackets_are(study):
    text = markdown(summarise(study), {})
    assert "typographic on emoji, split test: 4 images; from emoji-tiny" in text
    assert "Mean ± standard deviation over seeds." in text
    assert "95 % interval over images" in text
    assert "p is not corrected for there being 4 tests" in text
    assert re.search(r"p is that of (McNemar's test|a sign test over groups)", text), text


def test_report_only_loads_no_torch(study):
    from clipalign.comparison.compare import write_recipe

    write_recipe(study)
    code = (
        "import sys, io, contextlib\n"
        "from clipalign.cli.app import run\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        f"    code = run(['compare', {str(study.output)!r}, '--report-only', '--quiet'])\n"
        "print(code, 'torch' in sys.modules, 'robust' in out.getvalue())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False", "True"]  # two cells failed
