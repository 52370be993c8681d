"""A result says what it measured, reads back as it was written, and shows if it was touched."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from clipalign.errors import DataError
from clipalign.evals.measures import compare, measure
from clipalign.evals.metrics import expected_calibration_error
from clipalign.evals.results import (
    DatasetIdentity,
    MetricValue,
    ModelIdentity,
    SuiteResult,
    read_result,
    read_rows,
    write_result,
)
from clipalign.files import canonical_json, sha256_bytes

RIGHT = np.array([True, True, False, True])
RIGHT_BEFORE = np.array([True, False, False, False])
ROWS = [{"key": f"图/{i}", "correct": bool(right), "kl": i / 3} for i, right in enumerate(RIGHT)]


def small_result(**changes):
    model = ModelIdentity(spec="emoji-tiny", sha256="0" * 64, name="emoji-tiny")
    fields = {
        "suite": "typographic",
        "suite_version": 1,
        "model": model,
        "against": model,
        "dataset": DatasetIdentity(
            name="emoji", split="test", fingerprint="f" * 64, licence="CC-BY-SA-4.0", n=4
        ),
        "options": {"attack": "note", "views": 1},
        "templates": ["a photo of a {}."],
        "classnames": ["apple", "苹果"],
        "seed": 0,
        "metrics": {
            "accuracy": measure(
                RIGHT, higher_is_better=True, unit="share", description="Right when clean."
            )
        },
        "comparisons": [compare("accuracy", RIGHT, RIGHT_BEFORE)],
        "per_class": {"apple": {"accuracy": 0.75, "n": 4}},
        "warnings": ["4 images only"],
    }
    return SuiteResult(**fields | changes)


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "results" / "typographic.json"
    write_result(path, small_result(), ROWS)
    return path


def rewrite(path, change):
    """Change a result as someone who also mends its hash would."""
    payload = json.loads(path.read_text("utf-8"))
    change(payload)
    payload.pop("content_sha256", None)
    payload["content_sha256"] = sha256_bytes(canonical_json(payload))
    path.write_text(json.dumps(payload), "utf-8")


# ── There and back ───────────────────────────────────────────────────────────────────────────────


def test_a_result_reads_back_as_it_was_written(tmp_path):
    path = tmp_path / "typographic.json"
    result = write_result(path, small_result(), iter(ROWS))
    assert read_result(path) == result
    assert result.metrics["accuracy"].value == 0.75
    assert result.rows is not None
    assert (result.rows.file, result.rows.count) == ("typographic.rows.jsonl", 4)
    assert read_rows(path) == ROWS


def test_the_same_result_is_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_result(tmp_path / name / "r.json", small_result(), ROWS)
    for file in ("r.json", "r.rows.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_it_is_json_for_people_and_programs(written):
    text = written.read_text("utf-8")
    assert text.isascii()  # marks that turn the direction of writing are shown, and do not act
    assert "\\u82f9\\u679c" in text
    payload = json.loads(text)
    assert list(payload) == sorted(payload)
    assert payload["schema_version"] == 1
    assert payload["created_by"].startswith("clipalign ")


def test_a_result_without_rows(tmp_path):
    path = tmp_path / "r.json"
    assert write_result(path, small_result()).rows is None
    assert read_result(path).suite == "typographic"
    with pytest.raises(DataError, match="without per-image rows"):
        read_rows(path)


def test_a_result_copied_alone_can_be_read_on_request(written):
    written.with_name("typographic.rows.jsonl").unlink()
    with pytest.raises(DataError, match=r"typographic\.rows\.jsonl: No such file"):
        read_result(written)
    assert read_result(written, check_rows=False).seed == 0


# ── What was changed is noticed ──────────────────────────────────────────────────────────────────


def test_every_flipped_byte_of_the_result_is_noticed(written):
    """Or changes nothing that the file says, as the e of 1e-05 made a capital would not."""
    before, data = read_result(written), written.read_bytes()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        written.write_bytes(flipped)
        try:
            unnoticed = read_result(written, check_rows=False)
        except DataError:
            continue
        assert unnoticed == before, position


@pytest.mark.parametrize("position", [0, 20, -1])
def test_a_flipped_byte_of_the_rows_is_noticed(written, position):
    rows = written.with_name("typographic.rows.jsonl")
    data = bytearray(rows.read_bytes())
    data[position] ^= 1
    rows.write_bytes(data)
    for read in (read_result, read_rows):
        with pytest.raises(DataError, match=r"typographic\.rows\.jsonl is not what"):
            read(written)


def test_a_lost_row_is_noticed(written):
    rows = written.with_name("typographic.rows.jsonl")
    rows.write_bytes(b"".join(rows.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=r"made from \(4 rows\)"):
        read_result(written)


def test_a_number_made_prettier_is_noticed(written):
    written.write_text(written.read_text("utf-8").replace('"value": 0.75', '"value": 0.99'))
    with pytest.raises(DataError, match="was changed after it was written"):
        read_result(written)


def test_the_rows_lie_beside_the_result(written):
    rewrite(written, lambda p: p["rows"].update(file="../../secret.rows.jsonl"))
    with pytest.raises(DataError, match=r"rows\.file"):
        read_result(written)


# ── What is not a result is refused with words ───────────────────────────────────────────────────


def test_another_schema_version(written):
    rewrite(written, lambda p: p.update(schema_version=2))
    with pytest.raises(DataError, match=r"schema version 2, and clipalign .* reads version 1"):
        read_result(written)


def test_unknown_keys_are_all_named_with_the_near_ones(written):
    def change(payload):
        payload["warning"] = []
        payload["metrics"]["accuracy"]["interval"]["lo"] = 0.0
        payload["metrics"]["accuracy"]["describtion"] = ""

    rewrite(written, change)
    with pytest.raises(DataError) as caught:
        read_result(written)
    message = str(caught.value)
    assert "\n  warning: unknown key. Did you mean 'warnings'?" in message
    assert "\n  metrics.accuracy.describtion: unknown key. Did you mean 'description'" in message
    assert "\n  metrics.accuracy.interval.lo: unknown key." in message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a JSON result"),
        (b'{"suite": "typ', "not a JSON result"),
        (b"\xff\xfe{}", "not a JSON result"),
        (b"[" * 100_000, "not a JSON result"),
        (b'{"value": NaN}', "NaN is not a finite number"),
        (b'{"value": 1e999}', "1e999 is not a finite number"),
        (b"[]", "a JSON object is wanted"),
        (b"{}", "has no results schema version"),
        (b'{"schema_version": 1}', "suite: Field required"),
    ],
)
def test_what_is_not_a_result(tmp_path, data, words):
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=words) as caught:
        read_result(path)
    assert str(path) in str(caught.value)


def test_a_result_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_result(tmp_path / "r.json")
    with pytest.raises(DataError, match="Is a directory"):
        read_result(tmp_path)


# ── What was not measured is not written ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_nan_is_no_number(tmp_path, number):
    with pytest.raises(ValidationError, match="finite"):
        MetricValue(value=number, n=3, unit="nats", description="")
    with pytest.raises(ValidationError, match="finite"):
        small_result(options={"t": number})
    changed_later = small_result()
    changed_later.options["t"] = number
    with pytest.raises(DataError, match="not JSON"):
        write_result(tmp_path / "r.json", changed_later)
    with pytest.raises(DataError, match="row 2"):
        write_result(tmp_path / "r.json", small_result(), [{"kl": 0.0}, {"kl": number}])
    assert list(tmp_path.iterdir()) == []


def test_rows_that_fail_half_way_leave_the_old_result_readable(written):
    def rows():
        yield {"key": "new"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_result(written, small_result(seed=1), rows())
    assert read_result(written).seed == 0


@pytest.mark.parametrize(("value", "n"), [(None, 3), (0.5, 0)])
def test_a_value_stands_on_images(value, n):
    with pytest.raises(ValidationError, match="nothing was measured"):
        MetricValue(value=value, n=n, unit="share", description="")


# ── Measures ─────────────────────────────────────────────────────────────────────────────────────


def describe(values, groups=None, **more):
    return measure(values, groups, higher_is_better=None, unit="", description="", **more)


def test_a_measure_without_images_has_no_value():
    nothing = describe(np.array([], dtype=bool))
    assert (nothing.value, nothing.n, nothing.interval) == (None, 0, None)


def test_a_share_of_all_gets_the_interval_that_has_a_width():
    everything = describe(np.ones(20, dtype=bool))
    assert everything.interval.method == "wilson"
    assert everything.interval.low == pytest.approx(0.839, abs=1e-3)
    # Ten views of two drawings are two facts.
    assert describe(np.ones(20, dtype=bool), np.arange(20) // 10).interval.low < 0.35


def test_a_divergence_of_0_is_not_a_share():
    still = describe(np.zeros(20))
    assert (still.interval.low, still.interval.high) == (0.0, 0.0)
    assert still.interval.method == "bootstrap-percentile"


def test_one_drawing_has_a_value_and_no_interval():
    single = describe([0.0, 1.0], ["a", "a"])
    assert (single.value, single.interval) == (0.5, None)
    assert compare("accuracy", [True, False], [False, False], ["a", "a"]) is None


def test_a_measure_of_another_statistic():
    median = describe(np.arange(101.0), statistic=lambda v: float(np.percentile(v, 50)))
    assert median.value == 50
    assert 30 < median.interval.low < 50 < median.interval.high < 70


def test_a_statistic_in_which_chance_adds_up_lies_within_its_interval():
    """A model that knows how sure to be: its resamples are calibrated worse than its images."""
    confidence = np.repeat([0.2, 0.4, 0.6, 0.8], 25)
    right = np.concatenate([np.arange(25) < 25 * c for c in (0.2, 0.4, 0.6, 0.8)])

    def ece(rows):
        return expected_calibration_error(rows[:, 0], rows[:, 1])

    columns = np.stack([confidence, right], axis=1)
    assert describe(columns, statistic=ece, resamples=200).interval.low > 0.01
    centred = describe(columns, statistic=ece, resamples=200, within=(0.0, 1.0), centred=True)
    assert centred.value == pytest.approx(0, abs=1e-9)
    assert centred.interval.method == "bootstrap-normal"
    assert centred.interval.low <= centred.value < centred.interval.high < 0.2


def test_right_and_wrong_are_compared_with_mcnemar():
    comparison = compare("accuracy", RIGHT, RIGHT_BEFORE)
    assert (comparison.difference, comparison.n, comparison.n_discordant) == (0.5, 4, 2)
    # Both discordant pairs favour the new model: 2 · (½)² = ½.
    assert (comparison.p_value, comparison.test) == (0.5, "mcnemar-exact")
    assert comparison.interval.low <= 0.5 <= comparison.interval.high
    assert comparison.minimal_detectable_effect > 0.5


def test_divergences_are_compared_by_their_interval_alone():
    comparison = compare("kl", [0.1, 0.2, 0.3], [0.0, 0.0, 0.0])
    assert comparison.difference == pytest.approx(0.2)
    assert (comparison.p_value, comparison.test, comparison.n_discordant) == (None, None, None)


# ── The schema ───────────────────────────────────────────────────────────────────────────────────


def test_the_schema_keeps_its_keys():
    """Readers outside this package depend on these: a key may be added if it may be left out, and
    any other change is a new schema version.
    """
    schema = SuiteResult.model_json_schema()
    assert sorted(schema["required"]) == [
        "dataset",
        "metrics",
        "model",
        "seed",
        "suite",
        "suite_version",
    ]
    assert sorted(schema["properties"]) == [
        "against",
        "classnames",
        "comparisons",
        "content_sha256",
        "created_by",
        "dataset",
        "metrics",
        "model",
        "options",
        "per_class",
        "prompts",
        "rows",
        "schema_version",
        "seed",
        "suite",
        "suite_version",
        "templates",
        "warnings",
    ]
    properties = {
        name: sorted(d["properties"]) for name, d in schema["$defs"].items() if "properties" in d
    }
    assert properties == {
        "Comparison": [
            "difference",
            "interval",
            "metric",
            "minimal_detectable_effect",
            "n",
            "n_discordant",
            "p_value",
            "test",
        ],
        "DatasetIdentity": ["fingerprint", "licence", "n", "name", "options", "split"],
        "Interval": ["high", "level", "low", "method"],
        "MetricValue": ["description", "higher_is_better", "interval", "n", "unit", "value"],
        "ModelIdentity": ["name", "sha256", "spec"],
        "RowsFile": ["count", "file", "sha256"],
    }
    assert schema["additionalProperties"] is False


def test_a_result_from_before_the_options_of_datasets_is_still_read(written):
    payload = json.loads(written.read_text())
    del payload["dataset"]["options"], payload["content_sha256"]
    payload["content_sha256"] = sha256_bytes(canonical_json(payload))
    written.write_text(json.dumps(payload))
    assert read_result(written).dataset.options == {}
