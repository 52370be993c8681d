"""What a notebook calls with: numbers of numpy and torch, and what is refused before any work."""

from __future__ import annotations

import html
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clipalign
from clipalign.arguments import plain
from clipalign.errors import ConfigError, UsageError
from clipalign.evals.results import MetricValue

TEXTS = ("an apple", "a pear")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(8)]


@pytest.fixture
def photos(images):
    return clipalign.ImageList(images, list(TEXTS) * 4)


@pytest.fixture(scope="module")
def prefs(images, module_cache):
    one, other = list(TEXTS) * 4, list(reversed(TEXTS)) * 4
    judged = clipalign.ImageList(images, columns={"chosen": one, "rejected": other})
    return clipalign.prepare("preferences", judged)


class Frame:
    """As pandas has it: its truth is ambiguous, and it may be written to a file."""

    shape = (8, 2)
    to_csv = None

    def __bool__(self):
        raise ValueError("The truth value of a DataFrame is ambiguous.")

    def __eq__(self, other):
        raise ValueError("The truth value of a DataFrame is ambiguous.")

    __hash__ = object.__hash__


def test_numbers_of_numpy_and_torch_become_plain_ones_wherever_they_stand():
    given = {"a": np.int64(3), "b": [np.float32(0.5), {"c": torch.tensor(2)}], "d": (np.bool_(1),)}
    made = plain(given)
    assert made == {"a": 3, "b": [0.5, {"c": 2}], "d": (True,)}
    assert (type(made["a"]), type(made["d"][0])) == (int, bool)
    array = np.arange(3)
    assert plain(array) is array


def test_a_function_is_called_as_it_is_written():
    assert list(inspect.signature(clipalign.prepare).parameters)[:3] == [
        "task", "dataset", "output"
    ]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def trained(prefs, home, module_cache):
    """A run of one step, begun in a folder that is left then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        return clipalign.train(
            method_options={"beta": np.float32(0.5)}, data=prefs, trainable="head",
            train={"steps": np.int64(1), "batch_size": torch.tensor(4)}, seed=np.int64(1),
            output="run",
        )  # fmt: skip


def test_numbers_of_numpy_go_in_everywhere(trained, photos, tmp_path, module_cache):
    assert trained.steps == 1
    made = clipalign.prepare(
        seed=np.int64(3), limit=np.int64(3), splits="train",
        task_options={"attacks_per_image": np.int64(1)},
        dataset_options={"concepts": np.int64(5)},
    )  # fmt: skip
    assert (made.manifest.seed, made.manifest.limit) == (3, 3)
    (measured,) = clipalign.evaluate(
        suites="retention", dataset=photos, seed=np.int64(1), output=tmp_path / "results"
    )
    (file,) = (tmp_path / "results").glob("*.json")
    assert measured.seed == json.loads(file.read_text())["seed"] == 1
    assert clipalign.objective("dpo", beta=np.float64(0.5)).options.beta == 0.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: clipalign.evaluate(seed=-1), "seed must be at least 0, not -1"),
        (lambda: clipalign.evaluate(seed=None), "seed must be a whole number"),
        (lambda: clipalign.evaluate(seed="a"), "seed must be a whole number"),
        (lambda: clipalign.evaluate(batch_size=0), "batch_size must be at least 1"),
        (lambda: clipalign.evaluate(batch_size="8"), "batch_size must be a whole number"),
        (lambda: clipalign.prepare(seed=-1), "seed must be at least 0"),
        (lambda: clipalign.prepare(seed="a"), "seed must be a whole number"),
        (lambda: clipalign.prepare(limit=2.5), "limit must be a whole number"),
        (lambda: clipalign.prepare(workers=-1), "workers must be at least 0"),
        (lambda: clipalign.retrieve("apple", "emoji-tiny", k=0), "k must be at least 1"),
        (lambda: clipalign.report("runs", wall=-1), "wall must be at least 0"),
        (lambda: clipalign.scan("runs", [float("nan")]), "all of them finite"),
        (lambda: clipalign.scan("runs", ["much"]), "ts must be numbers, or A:B:STEP"),
        (lambda: clipalign.scan("runs", [0, 1], k=0), "k must be at least 1"),
    ],
)
def test_a_number_that_cannot_be_is_refused_before_any_work(call, words):
    with pytest.raises(UsageError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: clipalign.prepare(splits=5), "splits must be a name or a list of names, not 5"),
        (lambda: clipalign.prepare(splits=["train", 1]), "splits must be a name or a list"),
        (lambda: clipalign.prepare(task_options=[1]), "task_options must be options by their name"),
        (lambda: clipalign.prepare(Frame()), "task must be the name of a task, or a Task"),
        (lambda: clipalign.evaluate(splits=5), "splits must be a name or a list of names"),
        (lambda: clipalign.evaluate(suites=5), "suites must be a name or a list of names"),
        (lambda: clipalign.evaluate(suite_options="k"), "suite_options must be options by their"),
        (lambda: clipalign.compare(5), "A comparison is a recipe, its YAML file or content"),
        (lambda: clipalign.objective(5), "from its name or from a list, and not from 5"),
    ],
)
def test_what_is_of_another_kind_is_refused_in_words(call, words):
    with pytest.raises(UsageError, match=words):
        call()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_torch_keeps_no_gradients_nothing_is_trained(mode):
    with mode(), pytest.raises(UsageError, match="torch keeps no gradients here"):
        clipalign.train()


def test_where_torch_makes_other_numbers_nothing_is_trained():
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(UsageError, match=r"default type is torch\.float64"):
            clipalign.train()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("given", [Frame(), [1, 2], torch.utils.data.TensorDataset()])
@pytest.mark.parametrize(
    "call",
    [
        lambda given: clipalign.prepare("preferences", given),
        lambda given: clipalign.evaluate(dataset=given),
        lambda given: clipalign.retrieve("an apple", "emoji-tiny", dataset=given),
    ],
)
def test_what_is_no_dataset_is_told_of_image_lists_and_files(call, given):
    with pytest.raises(UsageError, match=r"can be used here.* clipalign\.ImageList.* folder") as e:
        call(given)
    assert ("to_csv" in str(e.value)) == isinstance(given, Frame)


@pytest.mark.parametrize("key", ["data", "dataset"])
def test_a_table_in_memory_is_no_configuration(key):
    with pytest.raises(ConfigError, match=rf"{key}: must be a .*path.* clipalign\.ImageList"):
        clipalign.train(task="preferences", **{key: Frame()})


def test_a_task_in_memory_is_no_configuration():
    with pytest.raises(ConfigError, match=r"task: must be a name: clipalign\.register"):
        clipalign.train(task=Frame())


def test_a_mapping_is_a_configuration_and_stays_as_it_is(prefs, tmp_path):
    recipe = {"data": prefs, "method": "dpo", "trainable": "head", "train": {"batch_size": 4}}
    keys = {"train.steps": np.int64(1), "output": tmp_path / "run"}
    assert clipalign.train(recipe, **keys).steps == 1
    assert recipe["train"] == {"batch_size": 4}
    assert "method: dpo" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: clipalign.train(["kto"]), "YAML file or keys and values.* not a list"),
        (lambda: clipalign.train(overrides=[("a", 2)]), r"overrides: \('a', 2\) must be text"),
        (lambda: clipalign.report(["runs/a"]), r"not a list: .* report\(\*paths\)"),
        (lambda: clipalign.retrieve(["q"], "emoji-tiny"), "The query is one text, and not a list"),
        (
            lambda: clipalign.train(method=clipalign.objective("dpo", beta=0.5)),
            r'must be a name beside its options: method="dpo", method_options={"beta": 0.5}',
        ),
        (
            lambda: clipalign.train(method=type(clipalign.objective("ipo"))),
            r'must be a name beside its options: method="ipo"$',
        ),
        (lambda: clipalign.train(beta=0.5), r"beta: unknown key\. Did you mean 'method_options\.b"),
        (lambda: clipalign.train(concepts=9), r"Did you mean 'dataset_options\.concepts'"),
        (lambda: clipalign.train(lr=1e-5), r"Did you mean 'train\.lr'"),
        (
            lambda: clipalign.transform("runs", alpha="x", method="interpolate"),
            r"\n  alpha: must be a number, such as 0\.5, or 'auto' \(got 'x'\)$",
        ),
    ],
)
def test_what_stands_in_the_wrong_form_is_told_the_right_one(call, words):
    with pytest.raises((UsageError, ConfigError), match=words):
        call()


def test_what_is_returned_stands_wherever_a_path_does(trained, home, photos, tmp_path, monkeypatch):
    result, away = trained, tmp_path
    monkeypatch.chdir(away)
    assert (result.run, result.model) == (home / "run", home / "run" / "model")
    aligned = clipalign.load_model(result)
    assert aligned.sha256 == clipalign.load_model(result.run).sha256
    half = clipalign.transform(result, method="interpolate", alpha=0.5)
    monkeypatch.chdir(home)
    assert clipalign.load_model(half).sha256 != aligned.sha256
    exported = clipalign.export(result, away / "exported")
    assert clipalign.load_model(exported).sha256 == aligned.sha256
    clipalign.evaluate(result, suites="retention", dataset=photos, against=half)
    assert clipalign.retrieve("an apple", [result, half], dataset=photos, k=1).gallery == 8
    assert "<html" in Path(clipalign.report(result)).read_text(encoding="utf-8")


def test_what_a_notebook_shows_is_short(prefs, photos, module_cache):
    model = clipalign.load_model("emoji-tiny")
    assert repr(model).startswith("<LoadedModel emoji-tiny: ")
    assert repr(photos) == "<ImageList image-list: train 8 images, 2 classes>"
    assert repr(prefs).endswith(": preferences on image-list, rows: train 8>")
    assert len(prefs) == 8
    (measured,) = clipalign.evaluate(model, suites="retention", dataset=photos, against=model)
    assert repr(measured).startswith("<SuiteResult retention on image-list, split train, 8 images")
    accuracy = measured.metrics["accuracy"]
    assert float(accuracy) == accuracy.value
    title, *lines = str(measured).splitlines()
    assert title.endswith("emoji-tiny against emoji-tiny")
    (line,) = (line for line in lines if line.startswith("  accuracy "))
    assert line.split()[1:3] == [f"{100 * accuracy.value:.1f}", "%"]
    assert "difference 0.0" in line.replace("+", "")
    assert len(str(measured)) < 2_000
    assert measured._repr_html_() == f"<pre>{html.escape(str(measured))}</pre>"
    with pytest.raises(ValueError, match="Nothing was measured"):
        float(MetricValue(value=None, n=0, unit="share", description="None."))


def test_a_reporter_is_true_or_can_listen(photos, module_cache, capsys):
    with pytest.raises(UsageError, match=r"reporter is True .*; <built-in function print> has not"):
        clipalign.evaluate(suites="retention", dataset=photos, reporter=print)
    clipalign.evaluate(suites="retention", dataset=photos, use_cache=False, reporter=True)
    out, said = capsys.readouterr()
    assert out == ""
    assert "Suite retention: image-list, split train\n" in said
    assert "8/8 (100 %)" in said
