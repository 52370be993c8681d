"""Tables say before, after, the difference, and how sure it is, within 100 columns."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from clipalign.evals.collector import Collector
from clipalign.evals.results import DatasetIdentity, ModelIdentity, SuiteResult
from clipalign.reports.legend import LEGEND, legend
from clipalign.reports.tables import WIDTH, results_document, summary_table

RIGHT = np.array([True] * 70 + [False] * 30)
RIGHT_BEFORE = np.array([True] * 40 + [False] * 60)
ALONE = np.array([f"image {i}" for i in range(100)])


def result(groups=ALONE, **changes):
    collected = Collector(resamples=200, seed=0)
    share = {"higher_is_better": True, "description": "Right."}
    collected.mean("clean_accuracy", [RIGHT, RIGHT], groups, **share)
    collected.mean("attacked_accuracy", [RIGHT, RIGHT_BEFORE], groups, **share)
    for name in ("kl_to_reference", "reverse_kl_to_reference", "kl_to_reference_p99"):
        collected.value(
            name, np.linspace(0, 0.2, 100), groups,
            unit="nats", higher_is_better=False, description="Moved.",
        )  # fmt: skip
    fields = {
        "suite": "typographic",
        "suite_version": 1,
        "model": ModelIdentity(spec="runs/kto", sha256="1" * 64, name="kto"),
        "against": ModelIdentity(spec="emoji-tiny", sha256="0" * 64, name="emoji-tiny"),
        "dataset": DatasetIdentity(
            name="emoji", split="test", fingerprint="f" * 64, licence="CC0", n=100
        ),
        "classnames": ["leaf", "stone"],
        "seed": 0,
        "metrics": collected.metrics,
        "comparisons": collected.comparisons,
    }
    return SuiteResult(**fields | changes)


def line(text, label):
    return next(row for row in text.splitlines() if row.startswith(label))


def test_before_after_and_the_paired_difference_stand_in_one_row():
    text = summary_table([result()])
    assert text.startswith(
        "typographic on emoji, split test: 100 images, 2 classes. kto against emoji-tiny."
    )
    row = line(text, "attacked accuracy").split()
    assert row[2:4] == ["40.0", "%"]
    assert row[4:6] == ["70.0", "%"]
    assert row[8] == "+30.0"
    assert row[-1] == "<0.001"
    assert line(text, "clean accuracy").split()[-4:] == ["+0.0", "[-3.7,", "+3.7]", "1.000"]
    assert "McNemar's test" in text


def test_a_name_that_does_not_explain_itself_is_explained_below():
    plain = summary_table([result()])
    assert not any(words in plain for words in LEGEND.values())
    collected = Collector(resamples=200, seed=0)
    collected.mean("conditional_asr", [RIGHT], ALONE, higher_is_better=False, description="Fooled.")
    text = summary_table([result(metrics=collected.metrics, comparisons=[])])
    assert text.splitlines()[-1] == LEGEND["conditional_asr"]
    assert legend(["clean_accuracy", "clean_ece", "margin"]) == [LEGEND["ece"], LEGEND["margin"]]
    assert max(map(len, LEGEND.values())) <= WIDTH


def test_the_distance_has_no_before():
    row = line(summary_table([result()]), "KL to reference").split()
    assert row[3] == "0.1000"
    assert len(row) == 6  # its name, the number and its interval


def test_details_are_shown_when_asked_for():
    brief, long = summary_table([result()]), summary_table([result()], details=True)
    assert "p99" not in brief
    assert "reverse" not in brief
    assert line(long, "KL to reference p99")
    assert line(long, "reverse KL to reference")


def test_a_model_alone_has_its_value_and_how_many_images_it_rests_on():
    text = summary_table([result(against=None, comparisons=[])])
    header, row = line(text, "metric").split(), line(text, "clean accuracy").split()
    assert header[-1] == "images"
    assert row[2] == "70.0"
    assert row[-1] == "100"
    assert "reference" not in header


def test_dependent_images_are_said_to_be_judged_by_group():
    groups = np.repeat([f"drawing {i}" for i in range(20)], 5)
    assert "a sign test over groups" in summary_table([result(groups)])


def test_no_interval_is_no_bracket():
    text = summary_table([result(np.full(100, "one drawing"))])
    assert "[" not in text
    assert "reference" in line(text, "metric")


@pytest.mark.parametrize("split", ["test", "a-split-with-a-very-long-name-" * 6])
def test_no_line_is_wider_than_100_columns(split):
    dataset = DatasetIdentity(name="emoji", split=split, fingerprint="f", licence="CC0", n=100)
    wide = result(dataset=dataset, warnings=["3 of 103 images could not be used. " * 9])
    text = summary_table([wide, wide], details=True)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.count("Warning: 3 of 103") == 2


@pytest.mark.parametrize("width", [36, 60, 80, 100, 120])
@pytest.mark.parametrize("against", [True, False])
def test_a_table_fits_the_terminal_and_cuts_no_number(width, against):
    measured = result() if against else result(against=None, comparisons=[])
    metrics = {f"{name}_of_the_first_and_of_the_last": m for name, m in measured.metrics.items()}
    long = measured.model_copy(
        update={
            "metrics": metrics,
            "comparisons": [
                c.model_copy(update={"metric": f"{c.metric}_of_the_first_and_of_the_last"})
                for c in measured.comparisons
            ],
        }
    )
    free, fitted = (summary_table([long], details=True, width=w) for w in (None, width))
    assert max(map(len, fitted.splitlines())) <= width

    def numbers(text):
        return sorted(re.findall(r"[+-]?\d+\.\d+", text))

    assert numbers(fitted) == numbers(free)


def test_on_a_narrow_terminal_intervals_stand_below_their_numbers():
    lines = summary_table([result()], width=76).splitlines()
    head = next(i for i, row in enumerate(lines) if row.startswith("metric"))
    assert lines[head + 1].split() == ["[95", "%]", "[95", "%]"]
    assert set(lines[head + 2]) == {"-"}
    row = next(i for i, text in enumerate(lines) if text.startswith("attacked"))
    assert "70.0 %" in lines[row]
    assert "[" in lines[row + 1]
    assert lines[row].index("%") < lines[row].index("70.0")


def test_columns_align_and_carry_no_colour(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = summary_table([result()])
    assert "\x1b" not in text
    ends = {len(line(text, label)) for label in ("attacked accuracy", "clean accuracy", "metric")}
    assert len(ends) == 1


def test_the_document_holds_the_results_whole_and_where_they_are(tmp_path):
    document = results_document([result()], [tmp_path / "x.json"])
    again = json.loads(json.dumps(document))
    assert SuiteResult.model_validate(again["results"][0]) == result()
    assert again["files"] == [str(tmp_path / "x.json")]
