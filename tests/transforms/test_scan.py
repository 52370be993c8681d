"""A scan reads every t from the same features, and writes what it read."""

from __future__ import annotations

import builtins
import csv
import json
import math

import numpy as np
import pytest

from clipalign.errors import UsageError
from clipalign.transforms.scan import scan_powers
from clipalign.transforms.scan_files import write_scan
from clipalign.transforms.scan_values import parse_scan
from clipalign.transforms.scanned import how_sure
from clipalign.transforms.spectrum import Powers


@pytest.fixture
def scanned(features, linear):
    return scan_powers(Powers(features, linear), parse_scan("-1:1:0.25"), k=8)


def first_shares(reading, k):
    """Share of the first value among the k best of each neutral caption, caption by caption."""
    value = reading.features.value
    return [(value[np.argsort(-column)[:k]] == 0).mean() for column in reading.scores.T]


def test_both_ends_are_in_a_scan():
    assert len(parse_scan("-2:1.2:0.1")) == 33
    assert parse_scan("-2:1.2:0.1")[-1] == 1.2
    assert parse_scan("0:1:0.4") == [0.0, 0.4, 0.8]
    assert parse_scan("0.5:0.5:1") == [0.5]
    assert math.copysign(1, parse_scan("-0.2:0.2:0.1")[2]) == 1  # 0 and not −0


@pytest.mark.parametrize("text", ["", "1", "0:1", "a:b:c", "0:1:0.1:2"])
def test_what_is_no_scan_says_what_one_is(text):
    with pytest.raises(UsageError, match=r"A scan is A:B:STEP, such as -2:1.2:0.1"):
        parse_scan(text)


@pytest.mark.parametrize("text", ["1:0:0.1", "0:1:0", "0:1:-0.1", "0:inf:1", "nan:1:1"])
def test_an_empty_scan_is_refused(text):
    with pytest.raises(UsageError, match="holds no value"):
        parse_scan(text)


def test_a_scan_without_end_is_refused():
    with pytest.raises(UsageError, match="at most 10000"):
        parse_scan("0:1:0.00001")


def test_at_t_0_nothing_has_moved(scanned, features):
    row = next(row for row in scanned.rows if row.t == 0)
    reference = features.read()
    assert (row.flip_rate, row.kl) == (0.0, pytest.approx(0.0, abs=1e-12))
    assert row.concept_accuracy == reference.concept_accuracy
    assert row.activity_accuracy == reference.activity_accuracy


def test_flips_and_divergence_grow_away_from_0(scanned):
    forward = [row for row in scanned.rows if row.t >= 0]
    assert [row.flip_rate for row in forward] == sorted(row.flip_rate for row in forward)
    assert [row.kl for row in forward] == sorted(row.kl for row in forward)
    assert forward[-1].flip_rate > 0.5  # this map flips the concept


def test_every_share_has_an_interval_around_it_but_what_is_so_by_definition(scanned):
    assert set(scanned.intervals) == {
        "concept_accuracy", "activity_accuracy", "flip_rate", "top_k_share", "top_k_bias", "kl",
    }  # fmt: skip
    for name, intervals in scanned.intervals.items():
        for row, sure in zip(scanned.rows, intervals, strict=True):
            if row.t == 0 and name in ("flip_rate", "kl"):
                assert sure is None
            else:
                assert sure is not None, (name, row)
                assert 0 <= sure.low <= getattr(row, name) <= sure.high
    assert "reach at most ±" in how_sure(scanned)
    assert "(gender accuracy)" in how_sure(scanned)


def test_the_searches_may_be_some_of_the_captions(features, linear):
    powers = Powers(features, linear)
    scanned = scan_powers(powers, [1.0], k=8, searches=[1])
    assert scanned.rows[0].top_k_share == pytest.approx(first_shares(powers.at(1.0), 8)[1])


def test_composition_and_its_bias_come_from_the_top_k(scanned, features, linear):
    row = scanned.rows[-1]
    shares = first_shares(Powers(features, linear).at(row.t), 8)
    assert row.top_k_share == pytest.approx(np.mean(shares))
    assert row.top_k_bias == pytest.approx(np.mean([abs(1 - 2 * share) for share in shares]))


def test_more_than_there_are_images_is_all_of_them(features, linear):
    scanned = scan_powers(Powers(features, linear), [0.0], k=1000)
    assert scanned.k == 80
    assert scanned.rows[0].top_k_share == 0.5


def test_the_files_say_the_same(scanned, tmp_path):
    pytest.importorskip("matplotlib")
    files = write_scan(scanned, tmp_path / "new")
    assert [file.name for file in files] == ["scan.csv", "scan.json", "scan.png"]
    document = json.loads(files[1].read_text())
    assert (document["k"], document["images"], document["concept"]) == (8, 80, "gender")
    with files[0].open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(document["rows"]) == 9
    for i, (line, row) in enumerate(zip(table, document["rows"], strict=True)):
        assert {key: float(line[key]) for key in row} == row
        for name, each in document["intervals"].items():
            written = [line[f"{name}_low"], line[f"{name}_high"]]
            assert written == (["", ""] if each[i] is None else list(map(str, each[i])))
    assert files[2].read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_table_is_there_all_the_same(scanned, tmp_path, notes, monkeypatch):
    real = builtins.__import__

    def importing(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    files = write_scan(scanned, tmp_path, notes)
    assert [file.name for file in files] == ["scan.csv", "scan.json"]
    assert "pip install 'clipalign[report]'" in notes.lines[0]


def test_without_activities_what_needs_them_is_left_open(make_features, flipping_map, tmp_path):
    features = make_features(activities=1)
    scanned = scan_powers(Powers(features, flipping_map(features)), [0.0, 1.0])
    assert scanned.rows[0].activity_accuracy is None
    assert scanned.rows[0].kl is None
    assert 0 <= scanned.rows[0].top_k_share <= 1
    write_scan(scanned, tmp_path)
    with (tmp_path / "scan.csv").open(newline="") as file:
        written = next(csv.DictReader(file))
    assert (written["activity_accuracy"], written["kl"]) == ("", "")
    assert float(written["top_k_share"]) == pytest.approx(scanned.rows[0].top_k_share)
