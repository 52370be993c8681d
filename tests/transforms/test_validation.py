"""α by validation: what was taught and what was to stay, on a run's own preferences."""

from __future__ import annotations

import pytest
import torch

import clipalign
from clipalign.datasets.emoji_people import EmojiPeople
from clipalign.errors import DataError, UsageError
from clipalign.transforms import validation
from clipalign.transforms.context import FitContext
from clipalign.transforms.interpolate import Interpolate
from clipalign.transforms.validation import preference_metric


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    """Twelve women and men a split, each of whom prefers the flipped caption."""
    folder = tmp_path_factory.mktemp("prefs") / "set"
    return clipalign.prepare(
        "gender", "emoji-people", folder, task_options={"keep": None}, limit=12
    )


@pytest.fixture
def context(tiny, make_run, preferences):
    run = make_run("a", tiny("vit"), trainable="image-encoder", data=preferences.root)
    return FitContext.open(run)


def test_the_reference_keeps_all_and_holds_what_it_holds(context, preferences):
    reference = context.reference
    texts = reference.encode_text(preferences.candidates)
    holds = []
    for row in preferences.rows("validation"):
        if row.chosen is None:
            continue
        pixels = reference.preprocess.resize_to_uint8(preferences.read_image(row.image))
        with torch.no_grad():
            scores = (reference.encode_image(pixels[None]) @ texts.T)[0]
        chosen, rejected = (preferences.candidates.index(t) for t in (row.chosen, row.rejected))
        holds.append(bool(scores[chosen] > scores[rejected]))
    expected = (sum(holds) / len(holds) + 1) / 2
    assert preference_metric(context, reference)(reference) == pytest.approx(expected)


def test_without_a_metric_alpha_is_chosen_on_the_runs_preferences(context):
    fitted = Interpolate(alpha="auto").fit(context)
    metric = preference_metric(context, context.reference)
    assert fitted.tried[1.0] == pytest.approx(metric(context.trained))
    assert fitted.tried[fitted.alpha] == max(fitted.tried.values())


def test_pieces_of_the_preferences_give_what_the_whole_gives(context, monkeypatch):
    whole = preference_metric(context, context.reference)(context.trained)
    monkeypatch.setattr(validation, "_AT_ONCE", 1)  # a row at a time
    assert preference_metric(context, context.reference)(context.trained) == whole


def test_a_runs_images_are_those_of_its_preference_set(context):
    labelled = context.labelled
    assert (labelled.dataset, labelled.split) == ("emoji-people", "validation")
    assert len(labelled.probe.value) == len(EmojiPeople().examples("validation"))


def test_without_a_validation_split_alpha_must_be_given(tiny, make_run, tmp_path):
    only = clipalign.prepare(
        "gender",
        "emoji-people",
        tmp_path / "set",
        task_options={"keep": None},
        splits=["train"],
        limit=8,
    )
    run = make_run("b", tiny("vit"), trainable="image-encoder", data=only.root)
    context = FitContext.open(run)
    with pytest.raises(DataError, match=r"no validation split to choose α by \(it has train\)"):
        Interpolate(alpha="auto").fit(context)


def test_a_model_that_is_no_run_has_no_preferences(tiny, model_directory):
    context = FitContext.open(f"local-dir:{model_directory('vit')}")
    with pytest.raises(UsageError, match="no preferences to choose α by"):
        preference_metric(context, tiny("vit"))


def test_a_fitter_reaches_the_runs_preferences_or_those_of_a_task(
    context, preferences, model_directory
):
    assert context.preferences().content_sha256 == preferences.content_sha256
    alone = FitContext.open(f"local-dir:{model_directory('vit')}", dataset="emoji-people")
    made = alone.preferences("gender", seed=3).manifest
    assert (made.task, made.dataset, made.seed) == ("gender", "emoji-people", 3)
