"""Between two checkpoints: the ends are the checkpoints, the middle is the mean."""

from __future__ import annotations

import pytest
import torch

from clipalign.errors import ModelError, UsageError
from clipalign.models.linear_map import LinearMap
from clipalign.transforms.base import load_transform
from clipalign.transforms.context import FitContext
from clipalign.transforms.interpolate import Interpolate, interpolate


@pytest.fixture
def pair(tiny):
    """A model and what a training made of it."""

    def make(name="vit"):
        start, end = tiny(name), tiny(name)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in end.clip.visual.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        end.__dict__.pop("sha256", None)
        return start, end

    return make


def same(a, b):
    a, b = a.clip.state_dict(), b.clip.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["vit", "resnet", "siglip"])
def test_the_ends_are_the_checkpoints_bit_for_bit(pair, name):
    start, end = pair(name)
    assert same(interpolate(start, end, 0), start)
    assert same(interpolate(start, end, 1.0), end)


def test_in_between_every_weight_is_the_weighted_mean(pair):
    start, end = pair("resnet")
    a, b = start.clip.state_dict(), end.clip.state_dict()
    for alpha in (0.25, 0.5, 1.5):
        for name, mixed in interpolate(start, end, alpha).clip.state_dict().items():
            if mixed.is_floating_point():
                expected = torch.lerp(a[name].double(), b[name].double(), alpha)
                torch.testing.assert_close(mixed, expected.float())
    assert not same(start, end)  # and both are as they were


def test_models_that_are_built_differently_are_refused(tiny):
    with pytest.raises(ModelError, match=r"nothing between .* built differently: .*visual"):
        interpolate(tiny("vit"), tiny("resnet"), 0.5)
    with pytest.raises(ModelError, match=r"model_cfg\.quick_gelu is None in the one and True"):
        interpolate(tiny("vit"), tiny("quickgelu"), 0.5)


@pytest.mark.parametrize("name", ["vit", "siglip"])
def test_a_head_is_interpolated_with_the_identity_whether_or_not_a_tower_had_a_projection(
    tiny, random_map, name
):
    base = tiny(name)
    eye, w = torch.eye(base.embed_dim), random_map(base.embed_dim)
    trained = w.fold(base)
    pixels = torch.randint(0, 256, (4, 3, *base.image_size), dtype=torch.uint8)
    texts = ["a photo of a dog.", "a photo of a cat."]

    def features(model):
        with torch.no_grad():
            return model.encode_image(pixels), model.encode_text(texts)

    for alpha in (0.0, 0.4, 1.0):
        expected = LinearMap((1 - alpha) * eye + alpha * w.weight)
        for found, plain in zip(
            features(interpolate(base, trained, alpha)), features(base), strict=True
        ):
            torch.testing.assert_close(found, expected(plain), atol=1e-5, rtol=0)
    assert all(map(torch.equal, features(interpolate(base, trained, 0)), features(base)))
    assert same(interpolate(base, trained, 1), trained)


def test_a_run_that_trained_a_head_without_projection_is_interpolated(tiny, make_run, random_map):
    base = tiny("siglip")
    run = make_run("head", base, linear=random_map(base.embed_dim))
    context = FitContext.open(run)
    fitted = Interpolate(alpha=0.5).fit(context)
    assert fitted.against_sha256 == base.sha256
    mixed = fitted.apply(context.trained).clip.state_dict()["visual.head.proj.weight"]
    whole = context.trained.clip.state_dict()["visual.head.proj.weight"]
    torch.testing.assert_close(mixed, (torch.eye(base.embed_dim) + whole) / 2)
    assert not torch.equal(mixed, whole)


@pytest.fixture
def context(tiny, make_run):
    run = make_run("a", tiny("vit"), trainable="image-encoder")
    return lambda **fields: FitContext.open(run, **fields)


def test_alpha_goes_from_the_reference_to_the_trained_model(context, tiny):
    fitted = Interpolate(alpha=0.0).fit(context())
    assert same(fitted.apply(context().trained), tiny("vit"))
    whole = Interpolate(alpha=1.0).fit(context())
    assert same(whole.apply(context().trained), context().trained)


def test_auto_takes_the_best_of_the_metric_and_on_a_tie_the_smaller_edit(context):
    asked = []

    def metric(model):
        asked.append(model)
        return -abs(round(len(asked) - 1 - 4.5, 1))  # the fourth and the fifth are as good

    fitted = Interpolate(alpha="auto", metric=metric).fit(context())
    assert fitted.alpha == 0.4
    assert list(fitted.tried) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert "α = 0.4 is the best of 11" in fitted.statement()
    assert same(asked[10], context().trained)


def test_beyond_the_ends_it_extrapolates_and_says_so(context, notes):
    fitted = Interpolate(alpha=1.5).fit(context(reporter=notes))
    assert fitted.alpha == 1.5
    assert any("extrapolates" in line for line in notes.lines)


def test_a_saved_transform_loads_the_other_model_again(context, tmp_path, model_directory):
    fitted = Interpolate(alpha=0.3).fit(context())
    fitted.save(tmp_path / "t.safetensors")
    loaded = load_transform(tmp_path / "t.safetensors")
    trained = context().trained
    assert loaded.describe() == fitted.describe()
    assert same(loaded.apply(trained), fitted.apply(trained))


def test_another_model_may_be_the_start(context, tiny, model_directory):
    against = f"local-dir:{model_directory('vit')}"
    fitted = Interpolate(alpha=0.0, against=against).fit(context())
    assert fitted.against == against
    assert same(fitted.apply(context().trained), tiny("vit"))


def test_a_start_that_changed_since_is_refused(context):
    fitted = Interpolate(alpha=0.3).fit(context())
    changed = type(fitted)(0.3, fitted.against, "f" * 64)
    with pytest.raises(ModelError, match="was ffffffffffff… when this was fitted"):
        changed.apply(context().trained)


def test_a_model_that_is_no_run_needs_another_to_go_to(model_directory):
    context = FitContext.open(f"local-dir:{model_directory('vit')}")
    with pytest.raises(UsageError, match="no model that it started from"):
        Interpolate(alpha=0.5).fit(context)
