"""The task `preferences`: a file of your own, its wrong rows, and what an image chooses among."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from clipalign.errors import ConfigError, DataError, UsageError
from clipalign.tasks.prepare import prepare
from clipalign.training.streams import build_stream

pytestmark = pytest.mark.usefixtures("own_cache")

COLOURS = ("red", "green", "blue", "yellow")


@pytest.fixture
def table(tmp_path):
    """Write a table of the given rows beside four images: `table(header, rows)`."""
    for name in COLOURS:
        Image.new("RGB", (50, 40), name).save(tmp_path / f"{name}.png")

    def write(header, rows, name="my.csv"):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        return tmp_path / name

    return write


PAIRS = [(f"{name}.png", f"a {name} wall", f"not {name}") for name in COLOURS]
JUDGED = [(f"{n}.png", t, d) for n in COLOURS for t, d in ((f"{n}!", "yes"), ("a dog", "0"))]


def test_the_index_that_pandas_writes_first_is_passed_over(table, tmp_path):
    header = ("image", "chosen", "rejected")
    plain = prepare("preferences", table(header, PAIRS), tmp_path / "plain")
    indexed = [(i, *row) for i, row in enumerate(PAIRS)]
    made = prepare("preferences", table(("", *header), indexed), tmp_path / "out")
    assert [(r.key, r.chosen, r.rejected, r.columns) for r in made.rows("train")] == [
        (r.key, r.chosen, r.rejected, r.columns) for r in plain.rows("train")
    ]


def test_pairs_become_rows_that_hold_their_own_image_still(table, tmp_path):
    path = table(("image", "chosen", "rejected", "who"), [(*row, "ann") for row in PAIRS])
    made = prepare("preferences", path, tmp_path / "out")
    rows = made.rows("train")
    assert [(r.chosen, r.rejected) for r in rows] == [row[1:] for row in PAIRS]
    assert all(r.clean_image == r.image and r.columns["who"] == "ann" for r in rows)
    assert set(made.candidates) == {text for row in PAIRS for text in row[1:]}
    assert made.scope == "batch"
    assert made.regulariser_candidates is None


def test_rewards_of_a_table_are_those_of_its_stream(table, tmp_path):
    header = ("image", "chosen", "rejected", "reward_chosen", "reward_rejected")
    rows = [(*PAIRS[0], "2.5", "-1"), (*PAIRS[1][:2], "", "1e1", "")]
    made = prepare("preferences", table(header, rows), tmp_path / "out")
    assert build_stream(made, "train").reward.tolist() == [[2.5, -1.0], [10.0, 0.0]]
    plain = prepare("preferences", table(header[:3], PAIRS), tmp_path / "plain")
    assert build_stream(plain, "train").reward is None


@pytest.mark.parametrize("cell", ["", "nan", "good"])
def test_a_reward_that_is_missing_or_no_number_is_named(table, tmp_path, cell):
    header = ("image", "chosen", "rejected", "reward_chosen", "reward_rejected")
    path = table(header, [(*PAIRS[0], "2.5", "-1"), (*PAIRS[1], "1", cell)])
    made = prepare("preferences", path, tmp_path / "out")
    with pytest.raises(DataError, match=rf"reward_rejected of .*png is '{cell}'"):
        build_stream(made, "train")
    assert build_stream(made, "train", takes_rewards=False).reward is None  # dpo asks for none


def test_texts_that_read_the_same_are_one(table, tmp_path):
    rows = [("red.png", "caf\u00e9", "a"), ("blue.png", "cafe\u0301", "\u0645\u06cc\u200c\u0631")]
    made = prepare("preferences", table(("image", "chosen", "rejected"), rows), tmp_path / "out")
    assert made.candidates == ("caf\u00e9", "a", rows[1][2])


def test_judgements_of_one_image_share_its_file(table, tmp_path):
    made = prepare("preferences", table(("image", "text", "desirable"), JUDGED), tmp_path / "out")
    rows = made.rows("train")
    assert [(r.chosen, r.rejected) for r in rows[:2]] == [("red!", None), (None, "a dog")]
    assert len(rows) == 8
    assert len({r.image for r in rows}) == 4
    assert len(list((tmp_path / "out/train/images").iterdir())) == 4


def test_every_wrong_row_is_kept_with_its_reason(table, tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    wrong = [
        ("gone.png", "a", "b", "", "", "there is no file 'gone.png'"),
        ("../x.png", "a", "b", "", "", "lies outside of"),
        ("red.png", "a", " a ", "", "", "are the same text"),
        ("red.png", "", "", "", "", "names no text"),
        ("red.png", "a", "b", "c", "yes", "one of the two ways is enough"),
        ("red.png", "", "", "c", "perhaps", "'perhaps', which is neither true nor false"),
        ("red.png", "", "", "c", "", "its desirable is empty"),
        ("red.png", "", "", "", "yes", "its text is empty"),
        ("red.png", "a\x00b", "b", "", "", "cannot be printed"),
        ("red.png", "a" * 5000, "b", "", "", "5,000 characters"),
        ("broken.png", "a", "b", "", "", "(rows 13)"),
    ]
    good = [("red.png", "a", "b", "", ""), ("red.png", "b", "", "", "")]
    header = ("image", "chosen", "rejected", "text", "desirable")
    rows = [good[0], *(w[:5] for w in wrong), good[1]]
    made = prepare("preferences", table(header, rows), tmp_path / "out")
    assert [(r.chosen, r.rejected) for r in made.rows("train")] == [("a", "b"), ("b", None)]
    found = [row["reason"] for row in made.quarantined()]
    assert len(found) == made.manifest.quarantined == len(wrong)
    for reason in (w[5] for w in wrong):
        assert any(reason in words for words in found), (reason, found)


def test_a_row_with_two_faults_is_one_row(table, tmp_path):
    rows = [("red.png", "a", "b", "train"), ("gone.png", "a", "b", "")]
    path = table(("image", "chosen", "rejected", "split"), rows)
    made = prepare("preferences", path, tmp_path / "out")
    (row,) = made.quarantined()
    assert row["reason"] == f"there is no file 'gone.png' in {tmp_path}; the split is empty"


def test_a_given_list_is_what_every_image_chooses_among(table, tmp_path):
    (tmp_path / "texts.txt").write_text("a dog\n\na  cat\n", encoding="utf-8")
    path = table(("image", "chosen", "rejected"), PAIRS)
    options = {"texts": str(tmp_path / "texts.txt")}
    made = prepare("preferences", path, tmp_path / "out", task_options=options)
    assert made.scope == "all"
    assert made.candidates[-2:] == ("a dog", "a cat")
    with pytest.raises(ConfigError, match="candidates=row would leave them out"):
        prepare("preferences", path, task_options={"texts": ["x"], "candidates": "row"})


def test_other_images_can_be_held_still_instead(table, tmp_path):
    path = table(("image", "chosen", "rejected"), PAIRS)
    for name in ("ant", "bee"):
        (tmp_path / "keep" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "keep" / name / "1.png")
    options = {"keep": str(tmp_path / "keep")}
    made = prepare("preferences", path, tmp_path / "out", task_options=options)
    rows = made.rows("train")
    assert [r.chosen is None for r in rows] == [False] * 4 + [True] * 2
    assert all(r.clean_image is None for r in rows)
    assert made.regulariser_candidates == ("a photo of a ant.", "a photo of a bee.")


@pytest.mark.parametrize(
    ("header", "rows", "options", "words"),
    [
        (("image", "caption"), [("red.png", "x")], {}, "it has caption"),
        (("image", "chosen", "rejected"), [("red.png", "", "")], {}, "it names no text"),
        (("image", "text", "desirable"), [("red.png", "x", "1")], {}, "speak of one text, 'x'"),
        (("image", "text", "desirable"), JUDGED, {"candidates": "row"}, "red.png#2 has no rej"),
        (("image", "text", "desireable"), JUDGED, {}, "no column 'desirable'.* 'desireable'?"),
        (("image", "text", "ok"), JUDGED, {}, "no column 'desirable'; it has ok, text"),
        (("image", "CHOSEN", "rejected"), PAIRS, {}, "no column 'chosen'.* mean 'CHOSEN'?"),
        (
            ("image", "chosen", "rejected"),
            PAIRS,
            {"chosen_column": "choosen"},
            "no column 'choosen'; it has chosen, rejected",
        ),
    ],
)
def test_what_cannot_be_used_is_said(table, header, rows, options, words):
    with pytest.raises(DataError, match=words):
        prepare("preferences", table(header, rows), task_options=options)


def test_one_column_of_a_pair_is_enough(table, tmp_path):
    header = ("image", "rejected", "text", "reward_rejected")
    rows = [("red.png", "a", "", "1"), ("red.png", "b", "", "1"), ("red.png", "", "c", "")]
    made = prepare("preferences", table(header, rows), tmp_path / "out")
    assert [(r.chosen, r.rejected) for r in made.rows("train")] == [(None, "a"), (None, "b")]
    assert made.quarantined()[0]["reason"] == "there is no column 'desirable'"


def test_columns_of_other_names(table, tmp_path):
    path = table(("photo", "better", "worse"), PAIRS)
    made = prepare(
        "preferences",
        path,
        tmp_path / "out",
        task_options={"chosen_column": "better", "rejected_column": "worse"},
        dataset_options={"image_column": "photo"},
    )
    assert len(made.rows("train")) == 4


def test_workers_write_the_same_bytes(table, tmp_path):
    path = table(("image", "text", "desirable", "who"), [(*row, "ann") for row in JUDGED])
    sets = [prepare("preferences", path, tmp_path / f"{n}", workers=n) for n in (0, 2)]
    assert sets[0].content_sha256 == sets[1].content_sha256


def test_needs_are_checked_before_an_image_is_read(table, monkeypatch):
    path = table(("image", "text", "desirable"), JUDGED)
    monkeypatch.setattr("clipalign.datasets.table.read_image", lambda *_, **__: 1 / 0)
    with pytest.raises(DataError, match=r"red\.png#2 has no rejected text.*such as kto"):
        prepare("preferences", path, needs=("chosen", "rejected"))


def test_the_command_trains_on_a_file(command, table, tmp_path):
    judged = table(("image", "text", "desirable"), JUDGED, "judged.csv")
    env = {"CLIPALIGN_CACHE": str(tmp_path / "cache")}

    arguments = ("--method", "kto", "--task", "preferences", "--data", judged, "--steps", "2")
    done = command("train", *arguments, "--trainable=head", "--no-eval", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 2


@pytest.mark.parametrize("scope", ["row", "batch", "all"])
def test_every_scope_trains_and_finds_its_way_back(table, tmp_path, scope):
    import clipalign

    options = {"task": "preferences", "method": "dpo", "task_options": {"candidates": scope}}
    path = table(("image", "chosen", "rejected"), PAIRS)
    settings = ["train.steps=2", "trainable=head"]
    result = clipalign.train(data=path, output=tmp_path / "run", overrides=settings, **options)
    assert result.steps == 2
    again = clipalign.train(resume=tmp_path / "run")
    assert again.steps == 2


def test_what_no_method_takes_is_refused_before_the_model_is_loaded(table, monkeypatch):
    import clipalign

    monkeypatch.setattr("clipalign.training.train.load_model", lambda *_, **__: 1 / 0)
    judged = table(("image", "text", "desirable"), JUDGED)
    with pytest.raises(DataError, match="such as kto"):
        clipalign.train(method="dpo", task="preferences", data=judged)
    with pytest.raises(UsageError, match="--task preferences"):
        clipalign.train(method="kto", data=judged)
