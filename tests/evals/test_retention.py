"""The suite `retention`: recall and distance by hand, and its place beside other suites."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clipalign.errors import ConfigError, DataError, PluginError
from clipalign.evals import retention
from clipalign.evals.attacks import labelled
from clipalign.evals.base import EvalContext
from clipalign.evals.evaluate import evaluate
from clipalign.evals.examples import image_set
from clipalign.evals.features import encode_images
from clipalign.evals.retained import image_to_text, text_to_image
from clipalign.evals.retention import RetentionSuite, with_retention
from clipalign.evals.scoring import Encodings
from clipalign.models.spec import ModelSpec
from clipalign.options import component
from clipalign.progress import Silent


class TestFourPictures:
    """Three texts and four pictures; rows are similarities.

             cat  dog  cup
    cat 0    .9   .5   .1     its own text is first
    dog 1    .6   .5   .1     second
    dog 2    .3   .3   .1     as near as cat's, which stands before: second
    cup 3    .4   .2   .1     third
    """

    true = np.array([0, 1, 1, 2])
    encodings = Encodings(
        SimpleNamespace(logit_scale=torch.tensor(10.0)),  # type: ignore[arg-type]
        torch.tensor([[0.9, 0.5, 0.1], [0.6, 0.5, 0.1], [0.3, 0.3, 0.1], [0.4, 0.2, 0.1]]),
        torch.eye(3),
    )

    def test_image_to_text(self):
        assert image_to_text(self.encodings, self.true).tolist() == [0, 1, 1, 2]

    def test_text_to_image(self):
        # cat: picture 0 is nearest. dog: 0 and 1 are as near, 0 first, so its own is second.
        # cup: all alike, so its own, the last, is fourth.
        assert text_to_image(self.encodings, self.true, np.arange(3)).tolist() == [0, 1, 3]


@pytest.fixture
def context(shapes, eyes) -> EvalContext:
    return EvalContext(eyes("right"), None, shapes(), "test", use_cache=False)


class TestTheSuite:
    def test_a_model_that_sees(self, context):
        result, rows = RetentionSuite(resamples=100).run(context)
        numbers = {name: metric.value for name, metric in result.metrics.items()}
        assert numbers == {
            "accuracy": 1,
            "recall_text_to_image_at_1": 1,
            "recall_text_to_image_at_5": 1,
        }  # five of four texts would always hold the right one, so that is not printed
        assert result.metrics["recall_text_to_image_at_1"].n == 4  # texts, not images
        assert result.templates == ["a photo of a {}."]
        assert len(list(rows)) == 24

    def test_beside_a_reference(self, shapes, eyes):
        sharp, soft = eyes("right", 100.0), eyes("right", 1.0)
        context = EvalContext(soft, sharp, shapes(), "test", use_cache=False)
        result, rows = RetentionSuite(resamples=100, k=[1, 2]).run(context)
        # sharp: one of four texts for sure; soft: e/(e + 3) for it. KL(sharp ‖ soft) = −ln of that
        p = np.e / (np.e + 3)
        assert result.metrics["kl_to_reference"].value == pytest.approx(-np.log(p), rel=1e-5)
        assert result.metrics["cosine_to_reference"].value == pytest.approx(1)
        by_name = {c.metric: c.difference for c in result.comparisons}
        assert by_name["accuracy"] == by_name["recall_image_to_text_at_2"] == 0
        row = next(iter(rows))
        assert row["p_true"] == pytest.approx(p, rel=1e-5)
        assert row["reference_p_true"] == pytest.approx(1)

    def test_images_that_cannot_be_read_are_named(self, context):
        context.dataset.broken = {"leaf-0-1"}
        result, rows = RetentionSuite(resamples=100).run(context)
        assert result.dataset.n == 23
        assert any("leaf-0-1" in warning for warning in result.warnings)
        assert [r["key"] for r in rows if "unreadable" in r] == ["leaf-0-1"]

    def test_no_image_that_can_be_read(self, context):
        context.dataset.broken = {e.key for e in context.dataset.examples("test")}
        with pytest.raises(DataError, match="None of the 24 images can be used"):
            RetentionSuite().run(context)

    def test_options_are_checked_by_name(self):
        with pytest.raises(ConfigError, match="places begin at 1"):
            component("suites", "retention", k=[0])
        with pytest.raises(ConfigError, match=r"must hold \{\} once"):
            component("suites", "retention", template="a photo")


@pytest.fixture
def small_world(monkeypatch: pytest.MonkeyPatch, shapes):
    """The emoji world is the world of colours."""
    monkeypatch.setattr(retention, "EmojiWorld", lambda: shapes(drawings=1))


class TestBesideOtherSuites:
    def test_its_numbers_are_added_under_their_own_names(
        self, shapes, eyes, painted_words, small_world
    ):
        context = EvalContext(
            eyes("right", 50.0), eyes("right", 100.0), shapes(), "test", use_cache=False
        )
        suite = component("suites", "typographic", resamples=100)
        alone, _ = suite.run(context)
        beside = with_retention(alone, context)
        added = set(beside.metrics) - set(alone.metrics)
        assert added == {
            "retention_accuracy",
            "retention_recall_text_to_image_at_1",
            "retention_recall_text_to_image_at_5",
            "retention_kl_to_reference",
            "retention_reverse_kl_to_reference",
            "retention_cosine_to_reference",
        }
        assert beside.metrics["retention_accuracy"].n == 8  # of the small world, not of `shapes`
        assert {"retention_accuracy", "clean_accuracy"} <= {c.metric for c in beside.comparisons}
        assert {n: beside.metrics[n] for n in alone.metrics} == alone.metrics

    def test_retention_beside_itself_is_itself(self, context, small_world):
        result, _ = RetentionSuite(resamples=100).run(context)
        assert with_retention(result, context) is result

    def test_a_second_time_nothing_is_encoded(self, shapes, eyes, small_world):
        model = eyes("right")
        context = EvalContext(model, None, shapes(), "test")
        first = retention.retention_block(context, resamples=100)
        encoded = model.encoded
        assert retention.retention_block(context, resamples=100).metrics == first.metrics
        assert model.encoded == encoded


def test_by_default_it_is_measured_on_unseen_concepts_alone(monkeypatch: pytest.MonkeyPatch):
    """`evaluate` takes a suite's own splits where no data is named."""
    asked = []

    def run(self, context):
        asked.append((context.dataset.name, context.split))
        return context.result(self, 0, metrics={}), []

    monkeypatch.setattr(RetentionSuite, "run", run)
    spec = ModelSpec("m", "random", "m")
    model = SimpleNamespace(spec=spec, sha256="0" * 64, name="m", as_it_is=lambda: model)
    monkeypatch.setattr("clipalign.evals.evaluate.LoadedModel", SimpleNamespace)
    evaluate(model, suites=["retention"])  # type: ignore[arg-type]
    assert asked == [("emoji", "test-unseen-concepts")]


class TestADatasetThatIsNone:
    """What a package's dataset may get wrong is said by its name, before any number is made."""

    @pytest.fixture
    def measured(self):
        dataset = component("datasets", "emoji", concepts=4)
        model = SimpleNamespace(name="m")
        context = SimpleNamespace(dataset=dataset, split="test", models=[model], use_cache=False)
        return dataset, context

    def test_keys_tell_images_apart(self, measured, monkeypatch):
        dataset, _ = measured
        examples = dataset.examples("test")
        monkeypatch.setattr(dataset, "examples", lambda split: [examples[0], examples[0]])
        with pytest.raises(DataError, match=f"emoji have the key '{examples[0].key}'"):
            labelled(dataset, "test")

    def test_a_template_has_a_place_for_the_name(self, measured):
        with pytest.raises(DataError, match=r"'a drawing' has no \{\}"):
            EvalContext.encode_classes(measured[1], "a drawing", ["a", "b"])

    def test_an_image_is_an_image(self, measured, monkeypatch):
        dataset, _ = measured
        monkeypatch.setattr(dataset, "image", lambda example: None)
        images = image_set(dataset, "test", dataset.examples("test"))
        with pytest.raises(PluginError, match=r"emoji' of .* gives None"):
            encode_images([], images, Silent())
