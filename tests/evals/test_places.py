"""A result never takes the place of one of other data."""

from __future__ import annotations

import pytest
from PIL import Image

from clipalign.datasets.locate import label_of
from clipalign.datasets.table import Table
from clipalign.errors import UsageError
from clipalign.evals import evaluate as module
from clipalign.evals.evaluate import evaluate
from clipalign.evals.results import read_result

FAST = {"retention": {"resamples": 100}}


@pytest.fixture
def table(tmp_path):
    """Makes a table of two classes: `table("a", "index.csv", size=40)`."""

    def make(folder, file, size):
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        rows = ["image,label"]
        for i, label in enumerate(("cat", "dog", "cat")):
            Image.effect_noise((size, size + i), 60).convert("RGB").save(root / f"{size}-{i}.png")
            rows.append(f"{size}-{i}.png,{label}")
        (root / file).write_text("\n".join(rows))
        return root / file

    return make


def measure(model, dataset, output):
    return evaluate(
        model, suites=["retention"], suite_options=FAST, dataset=dataset, output=output,
        device="cpu", use_cache=False,
    )[0]  # fmt: skip


def test_two_tables_in_one_folder_are_two_results(table, small_models, tmp_path, monkeypatch):
    results = tmp_path / "results"
    first, second = table("a", "street.csv", 40), table("a", "studio.csv", 50)
    for path in (first, second):
        measure(f"local-dir:{small_models[0]}", str(path), results)
    names = ["retention-table-street-train.json", "retention-table-studio-train.json"]
    assert sorted(path.name for path in results.glob("*.json")) == names
    kept = read_result(results / names[0])
    assert kept.dataset.name == "table"
    assert kept.dataset.label == "table street"

    # one of the same name that lies elsewhere is refused before a model is loaded
    other = table("b", "street.csv", 60)
    monkeypatch.setattr(module, "load_model", lambda *_: pytest.fail("a model was loaded"))
    for dataset in (str(other), Table(path=other)):
        with pytest.raises(UsageError, match="holds the result of other data") as caught:
            measure(f"local-dir:{small_models[0]}", dataset, results)
        assert str(first) in str(caught.value)
        assert "--output DIR" in str(caught.value)
    assert read_result(results / names[0]) == kept


def test_the_same_data_is_measured_again_and_so_is_data_that_changed(table, small_models, tmp_path):
    model, results = f"local-dir:{small_models[0]}", tmp_path / "results"
    first = measure(model, str(table("a", "street.csv", 40)), results)
    again = measure(model, str(table("a", "street.csv", 44)), results)
    assert again.dataset.fingerprint != first.dataset.fingerprint
    (tmp_path / "a").rename(tmp_path / "moved")
    moved = measure(model, str(tmp_path / "moved" / "street.csv"), results)
    assert moved.dataset.fingerprint == again.dataset.fingerprint
    assert len(list(results.glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("name", "options", "label"),
    [
        ("emoji", {}, "emoji"),
        ("oxford-pets", {"root": "/data/pets"}, "oxford-pets"),
        ("table", {"path": "photos/index.csv"}, "table index"),
        ("folder", {"root": "./photos/"}, "folder photos"),
        ("webdataset", {"path": "shards/train-0001.tar"}, "webdataset train-0001"),
        ("huggingface", {"path": "org/name"}, "huggingface name"),
        ("of-a-package", {"path": "x"}, "of-a-package"),
    ],
)
def test_labels(name, options, label):
    assert label_of(name, options) == label
