"""Datasets of the library `datasets`, from disk."""

from __future__ import annotations

import pickle

import pytest
from PIL import Image

from clipalign.datasets.locate import load_dataset
from clipalign.errors import DataError

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def table():
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["ant", "bee"]),
            "n": datasets.Value("int32"),
            "note": datasets.Value("string"),
        }
    )
    images = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue", "lime")]
    rows = {"image": images, "label": [0, 1, 1], "n": [1, None, 3], "note": ["a", "b", None]}
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf-cache")
    datasets.disable_progress_bars()


def test_a_saved_dataset_and_a_parquet_file_read_alike(table, tmp_path):
    datasets.DatasetDict({"train": table, "val": table}).save_to_disk(tmp_path / "saved")
    table.to_parquet(tmp_path / "x.parquet")
    for place in ("saved", "x.parquet"):
        data = load_dataset(f"huggingface:{tmp_path / place}", {})
        assert data.classnames == ("ant", "bee")
        examples = data.examples("train")
        assert [e.label for e in examples] == ["ant", "bee", "bee"]
        assert [e.attributes for e in examples] == [
            {"n": "1", "note": "a"}, {"n": "", "note": "b"}, {"n": "3", "note": ""},
        ]  # fmt: skip
        again = pickle.loads(pickle.dumps(data))
        assert again.image(examples[1]).getpixel((2, 2)) == (0, 0, 255)
    assert load_dataset(f"huggingface:{tmp_path / 'saved'}", {}).splits() == ("train", "validation")


def test_two_spellings_of_one_split_are_refused(table, tmp_path):
    datasets.DatasetDict({"dev": table, "validation": table}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="two splits 'validation': dev, validation"):
        load_dataset(f"huggingface:{tmp_path / 'saved'}", {})


def test_labels_are_another_column_or_none(table, tmp_path):
    table.save_to_disk(tmp_path / "saved")
    spec = f"huggingface:{tmp_path / 'saved'}"
    assert load_dataset(spec, {"label_column": "note"}).classnames == ("a", "b")
    unlabelled = load_dataset(spec, {"label_column": None})
    assert unlabelled.examples("train")[0].attributes["label"] == "ant"
    notes = ["cafe\u0301", "caf\u00e9", "ant"]
    twice = table.remove_columns("note").add_column("note", notes)
    twice.save_to_disk(tmp_path / "twice")
    place = f"huggingface:{tmp_path / 'twice'}"
    assert load_dataset(place, {"label_column": "note"}).classnames == ("ant", "caf\u00e9")
    table.remove_columns("label").save_to_disk(tmp_path / "bare")
    assert load_dataset(f"huggingface:{tmp_path / 'bare'}", {}).classnames == ()
    with pytest.raises(DataError, match="no column 'lable' of labels; it has image, label"):
        load_dataset(spec, {"label_column": "lable"})
    with pytest.raises(DataError, match="the columns of images image"):
        load_dataset(spec, {"image_column": "note"})


def test_nothing_is_downloaded_unasked(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: 1 / 0)
    with pytest.raises(DataError, match="--dataset-set download=true` of prepare"):
        load_dataset("huggingface:somebody/something", {})
    with pytest.raises(DataError, match="cannot be opened as a dataset"):
        load_dataset("huggingface:somebody/something", {"download": True})


def test_what_is_no_dataset_is_an_error(tmp_path):
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="cannot be opened as a dataset"):
        load_dataset(f"huggingface:{tmp_path / 'x.parquet'}", {})
