"""Fig. 2 from a run: a head trained on written words, scanned for what it reads and sees."""

import json

import pytest
import torch

from clipalign.errors import DataError, UsageError
from clipalign.evals.base import EvalContext
from clipalign.evals.reading import ReadingSuite
from clipalign.models.linear_map import LinearMap
from clipalign.transforms.reading_scan import scan_reading
from clipalign.transforms.scan_files import write_scan
from clipalign.transforms.transform import open_context, scan


@pytest.fixture
def run(make_run, tiny):
    return make_run(
        "words", tiny("vit"), task="typographic", dataset="emoji",
        dataset_options={"views": 1, "train_views": 1},
    )  # fmt: skip


def test_t_0_is_the_reference_and_t_1_the_trained_model(run):
    context = open_context(run, split="test")
    scanned = scan_reading(context, [0.0, 1.0])
    assert (scanned.dataset, scanned.split, scanned.images) == ("emoji", "test", 200)
    for model, row in zip((context.reference, context.trained), scanned.rows, strict=True):
        result, _ = ReadingSuite(resamples=100).run(
            EvalContext(model, None, context.images, "test")
        )
        # trained is the folded model in float32, where a tie may fall the other way
        assert row.od == pytest.approx(result.metrics["od"].value, abs=0.011)
        assert row.ocr == pytest.approx(result.metrics["ocr"].value, abs=0.011)


def test_the_scan_of_a_typographic_run_is_of_reading(run, tmp_path):
    found = scan(run, "-1:1:1", output=tmp_path / "out")
    assert [row.t for row in found.rows] == [-1.0, 0.0, 1.0]
    # on the validation split, as everything that a choice may follow from
    assert found.document()["split"] == "validation"
    assert json.loads((tmp_path / "out" / "scan.json").read_text()) == found.document()
    headings, cells = found.table()
    assert headings[0] == "T"
    assert len(cells) == 3
    assert {len(row) for row in cells} == {len(headings)}


def test_the_picture_has_both_panels(run, tmp_path):
    pytest.importorskip("matplotlib")
    found = scan_reading(open_context(run), [0.0])
    assert write_scan(found, tmp_path)[2].read_bytes().startswith(b"\x89PNG")
    assert [list(panel.curves) for panel in found.panels()] == [
        ["object (OD)", "written word (OCR)"],
    ] * 2


def test_maps_of_other_runs_do_not_go_before(run):
    with pytest.raises(UsageError, match="takes no other maps"):
        scan(run, [0.0], after={"runs/other": 0.5})


def test_a_run_that_trained_no_head_has_nothing_to_turn(make_run, tiny):
    run = make_run(
        "tower", tiny("vit"), task="typographic", dataset="emoji",
        trainable="image-encoder",
    )  # fmt: skip
    with pytest.raises(UsageError, match="no linear map to turn"):
        scan(run, [0.0])


def test_a_split_that_is_not_there(run):
    with pytest.raises(DataError, match="no split 'tests'"):
        scan_reading(open_context(run, split="tests"), [0.0])


def test_the_identity_changes_nothing(make_run, tiny):
    model = tiny("vit")
    run = make_run(
        "still", model, linear=LinearMap(torch.eye(model.embed_dim)), task="typographic",
        dataset="emoji", dataset_options={"views": 1, "train_views": 1},
    )  # fmt: skip
    first, *rest = scan_reading(open_context(run), [0.0, -1.0, 2.0]).rows
    for row in rest:
        assert (row.od, row.ocr) == (first.od, first.ocr)
