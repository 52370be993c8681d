"""From model specs to results on the disk, and every refusal before a model is loaded."""

from __future__ import annotations

import shutil

import pytest
import torch
from PIL import Image

from clipalign.config import RunConfig
from clipalign.config_text import dump_config
from clipalign.datasets.emoji import EmojiWorld
from clipalign.errors import ConfigError, DataError, ModelError, RunError, StorageError, UsageError
from clipalign.evals import evaluate as module
from clipalign.evals.base import EvalContext
from clipalign.evals.evaluate import default_splits, evaluate, evaluate_run, result_path
from clipalign.evals.results import read_result, read_rows
from clipalign.models.export import export_model
from clipalign.models.load import load_model
from clipalign.tasks.prepare import prepare
from tests.conftest import Notes

FAST = {"typographic": {"resamples": 100, "styles": ["note"]}}


@pytest.fixture
def run(tmp_path, small_models):
    """A finished run that started from one small model and ended at the other."""
    before, after = small_models
    folder = tmp_path / "runs" / "typographic-kto-1"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(RunConfig(model=f"local-dir:{before}")))
    (folder / "model").symlink_to(after)
    return folder


@pytest.fixture
def no_models(monkeypatch):
    """Loading a model fails the test."""
    monkeypatch.setattr(module, "load_model", lambda *_: pytest.fail("a model was loaded"))


def test_a_run_stands_against_what_it_started_from(run, small_models, shapes):
    (result,) = evaluate(
        run, against="reference", dataset=shapes(), suite_options=FAST, device="cpu"
    )
    path = run / "results" / "typographic-shapes-test.json"
    assert result_path(run / "results", result) == path
    assert read_result(path) == result
    assert len(read_rows(path)) == 24 * 2
    assert result.model.name == "typographic-kto-1"
    assert result.against.spec == f"local-dir:{small_models[0]}"
    assert result.model.sha256 != result.against.sha256
    assert result.metrics["kl_to_reference"].value > 0
    assert {c.metric for c in result.comparisons} >= {"clean_accuracy", "attack_success_rate"}


def test_the_model_within_a_run_is_the_run(run, shapes):
    evaluate(run / "model", against="reference", dataset=shapes(1), suite_options=FAST)
    assert (run / "results" / "typographic-shapes-test.json").is_file()


def test_another_model_in_the_folder_of_a_run_is_not_the_run(run, small_models, shapes):
    """Its numbers would stand as the run's, in the place of those that are."""
    (run / "half").symlink_to(small_models[0])
    (result,) = evaluate(run / "half", dataset=shapes(1), suite_options=FAST)
    assert result.model.name == "half"
    assert not (run / "results").exists()
    with pytest.raises(RunError, match="half is not a run, so it has no reference"):
        evaluate(run / "half", against="reference", dataset=shapes(1), suite_options=FAST)


def test_the_same_seed_gives_the_same_bytes_with_and_without_the_cache(
    run, small_models, shapes, tmp_path
):
    def written(name, **options):
        folder = tmp_path / name
        evaluate(
            str(small_models[1]),
            against=str(small_models[0]),
            dataset=shapes(),
            suite_options=FAST,
            output=folder,
            device="cpu",
            **options,
        )
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = written("first")
    assert first == written("cached") == written("uncached", use_cache=False)
    assert first.keys() == written("other", seed=1).keys()
    assert first != written("other", seed=1)


def test_nothing_is_written_for_a_plain_model_unless_asked(small_models, shapes, tmp_path):
    before = sorted(tmp_path.rglob("*.json"))
    (result,) = evaluate(small_models[0], dataset=shapes(1), suite_options=FAST)
    assert result.rows is None
    assert result.against is None
    assert sorted(tmp_path.rglob("*.json")) == before


def test_images_that_the_model_was_trained_on_are_named_so(small_models, tmp_path):
    import clipalign

    for name, colour in (("apple", "red"), ("dog", "black")):
        for split, count in (("train", 2), ("test", 1)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (64, 64), colour).save(folder / f"{number}.png")
    trained = clipalign.train(
        method="kto", model=f"local-dir:{small_models[0]}", dataset=str(tmp_path / "photos"),
        trainable="head", output=str(tmp_path / "run"), train={"steps": 1, "batch_size": 2},
    )  # fmt: skip
    said = {
        split: evaluate(
            trained.run, dataset=str(tmp_path / "photos"), splits=[split], suite_options=FAST
        )[0].warnings
        for split in ("train", "test")
    }
    assert "was trained on these images" in said["train"][0]
    assert not any("trained on" in warning for warning in said["test"])


def test_judgements_are_known_to_be_of_the_images_of_another_table(small_models, tmp_path):
    """Whoever trains on half of a folder's judgements and measures on its labels is told so."""
    import clipalign

    for number in range(4):
        Image.new("RGB", (64, 64), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = [f"{n}.png,a photo of a dog.,a photo of a cat.\n" for n in (0, 1, 9)]
    (tmp_path / "judged.csv").write_text("image,chosen,rejected\n" + "".join(rows))
    labels = [f"{n}.png,{'dog' if n % 2 else 'cat'}\n" for n in range(4)]
    (tmp_path / "labelled.csv").write_text("image,label\n" + "".join(labels))
    (tmp_path / "others.csv").write_text("image,label\n" + "".join(labels[2:]))
    notes = Notes()
    trained = clipalign.train(
        method="kto", model=f"local-dir:{small_models[0]}", task="preferences",
        data=tmp_path / "judged.csv", trainable="head", output=tmp_path / "run",
        train={"steps": 1, "batch_size": 2}, reporter=notes,
    )  # fmt: skip
    (left_out,) = [line for line in notes.lines if "left out" in line]
    assert "1 of the 3 images of the split train could not be used" in left_out
    assert "9.png" in left_out

    def said(table):
        found = evaluate(trained.run, dataset=tmp_path / table, suite_options=FAST)
        return [line for line in found[0].warnings if "trained on" in line]

    assert "trained on 2 of these images" in said("labelled.csv")[0]
    assert said("others.csv") == []


def test_other_images_in_memory_are_other_images(small_models, tmp_path):
    import clipalign

    def images(shade):
        shown = [Image.new("RGB", (64, 64), (shade + n, 0, 0)) for n in range(4)]
        return clipalign.ImageList(shown, ["cat", "dog"] * 2)

    prepared = clipalign.prepare("typographic", images(0), tmp_path / "prefs")
    trained = clipalign.train(
        model=f"local-dir:{small_models[0]}", data=prepared, trainable="head",
        output=tmp_path / "run", train={"steps": 1, "batch_size": 2},
    )  # fmt: skip
    same, other = (
        evaluate(trained.run, dataset=images(shade), suite_options=FAST)[0].warnings
        for shade in (0, 100)
    )
    assert any("trained on these images" in line for line in same)
    assert not any("trained on" in line for line in other)


def test_a_run_is_measured_by_the_suite_of_its_task_on_its_own_images(run, monkeypatch, notes):
    asked = []
    monkeypatch.setattr(module, "_work", lambda *a: asked.append(a) or [])
    for config, work in (
        ("", (["typographic"], {"typographic": {}}, "emoji", {})),
        ("task: gender\n", (["gender"], {"gender": {}}, "emoji-people", {})),
        (
            "task: concept\ntask_options: {concept: age.yaml, balance: false}\n"
            "dataset: emoji-people\ndataset_options: {test_views: 1}\n",
            (
                ["gender"], {"gender": {"concept": "age.yaml"}}, "emoji-people", {"test_views": 1},
            ),
        ),
    ):  # fmt: skip
        (run / "config.yaml").write_text(f"model: emoji-tiny\n{config}")
        assert evaluate_run(run, device="cpu") == evaluate(run) == []
        assert asked[-1] == asked[-2] == (*work, None)
    evaluate(run, suite_options={"gender": {"k": 3}}, dataset_options={"test_views": 2})
    more = {"gender": {"concept": "age.yaml", "k": 3}}
    assert asked[-1] == (["gender"], more, "emoji-people", {"test_views": 2}, None)
    evaluate(run, dataset="emoji")
    assert asked[-1] == (["gender"], {"gender": {"concept": "age.yaml"}}, "emoji", {}, None)
    evaluate(run, suites=["typographic"])
    assert asked[-1] == (["typographic"], {}, None, {}, None)
    # a task without a suite of its own
    (run / "config.yaml").write_text("model: emoji-tiny\ntask: preferences\n")
    assert evaluate(run) == []
    assert asked[-1] == (["typographic"], {"typographic": {}}, None, {}, None)
    before = len(asked)
    assert evaluate_run(run, reporter=notes) == []
    assert len(asked) == before
    assert f"clipalign eval {run} --suite retention" in notes.lines[-1]


def test_a_set_that_was_moved_without_its_photographs_is_trained_on_and_not_measured(
    run, tmp_path, notes
):
    photos = tmp_path / "photos"
    for name, colour in (("apple", "red"), ("dog", "black")):
        (photos / name).mkdir(parents=True)
        Image.new("RGB", (64, 64), colour).save(photos / name / "0.png")
    prepare("typographic", photos, tmp_path / "prefs")
    shutil.rmtree(photos)
    (run / "config.yaml").write_text(f"data: {tmp_path / 'prefs'}\n")
    shutil.copy(tmp_path / "prefs" / "manifest.yaml", run)
    assert evaluate_run(run, reporter=notes) == []
    assert f"There is no folder {photos}." in notes.lines[-1]
    assert f"clipalign eval {run} --dataset PATH" in notes.lines[-1]
    with pytest.raises(DataError, match="are not here"):
        evaluate(run)


def test_the_splits_that_test_come_first(shapes):
    dataset = shapes()
    for splits, chosen in [
        (("train", "test", "test-unseen"), ["test", "test-unseen"]),
        (("train", "validation"), ["validation"]),
        (("train",), ["train"]),
    ]:
        dataset.splits = lambda splits=splits: splits
        assert default_splits(dataset) == chosen


def test_the_emoji_world_is_the_default_with_all_its_tests():
    work = module._work(["typographic"], {}, None, {}, None)
    assert [(suite.name, data.name, split) for suite, data, _, split in work] == [
        ("typographic", "emoji", split)
        for split in ("test", "test-unseen-concepts", "test-unseen-style")
    ]


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"suites": ["typografic"]}, UsageError, "Did you mean 'typographic'?"),
        ({"suite_options": {"typographic": {"style": 1}}}, ConfigError, "Did you mean 'styles'?"),
        ({"suite_options": {"gender": {}}}, UsageError, "'gender', which is not evaluated"),
        ({"dataset": "emojy"}, UsageError, "Did you mean 'emoji'"),
        ({"splits": ["tset"]}, UsageError, "Did you mean 'test'?"),
        ({"dataset_options": {"vews": 2}}, ConfigError, "Did you mean 'views'?"),
        ({"model": "no/such/model"}, ModelError, "no/such/model"),
        ({"against": "reference"}, RunError, "is not a run"),
    ],
)
def test_every_refusal_comes_before_a_model_is_loaded(no_models, arguments, kind, words):
    with pytest.raises(kind) as error:
        evaluate(**{"dataset": "emoji", **arguments})
    assert words in str(error.value)


def test_a_run_that_does_not_say_where_it_started_is_refused(run, no_models, shapes):
    (run / "config.yaml").write_text("task: typographic\n")
    with pytest.raises(RunError, match="does not say which model"):
        evaluate(run, against="reference", dataset=shapes())


def test_results_that_cannot_be_written_are_a_storage_error(small_models, shapes, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        evaluate(
            small_models[0], dataset=shapes(1), suite_options=FAST, output=tmp_path / "file" / "r"
        )


def test_a_models_own_word_goes_before_class_names_and_outlives_its_file(small_models, tmp_path):
    model = load_model(f"local-dir:{small_models[0]}")
    config = {**model.config, "clipalign": {"class_prefix": "real "}}
    export_model(model.rebuilt(model.clip.state_dict(), config), tmp_path / "own")
    own = load_model(f"local-dir:{tmp_path / 'own'}")
    assert (own.class_prefix, model.class_prefix) == ("real ", "")
    context = EvalContext(own, model, EmojiWorld(), "test")
    with_word, without = context.encode_classes("a photo of a {}.", ["dog", "cat"])
    prompts = ["a photo of a real dog.", "a photo of a real cat."]
    torch.testing.assert_close(with_word, model.encode_text(prompts), rtol=0, atol=0)
    plain = ["a photo of a dog.", "a photo of a cat."]
    torch.testing.assert_close(without, model.encode_text(plain), rtol=0, atol=0)
