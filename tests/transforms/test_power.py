"""A head's W_t: composed in the stated order, folded exactly, and only into its own model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipalign.errors import ModelError, RunError, UsageError
from clipalign.models.linear_map import LinearMap
from clipalign.transforms.base import load_transform
from clipalign.transforms.context import FitContext
from clipalign.transforms.maps import compose
from clipalign.transforms.power import Power, PowerTransform, powers_of

TEXTS = ["a photo of a man", "a photo of a woman", "a nurse", "an engineer"]


def logits(model, pixels, linear=None):
    with torch.no_grad():
        image, text = model.encode_image(pixels).double(), model.encode_text(TEXTS).double()
        if linear is not None:
            image, text = linear(image), linear(text)
        return model.logit_scale.double() * image @ text.T


def fit(run, **options) -> PowerTransform:
    return Power(**options).fit(FitContext.open(run))


def test_the_first_map_is_applied_first(random_map):
    a, b = random_map(6, seed=1), random_map(6, seed=2)
    x = F.normalize(torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator()), dim=1)
    both = compose([(a, 0.4), (b, -0.7)])
    one_by_one = LinearMap(b.weight.double()).power(-0.7)(
        LinearMap(a.weight.double()).power(0.4)(x)
    )
    torch.testing.assert_close(both(x), one_by_one, rtol=0, atol=1e-12)
    other_way = compose([(b, -0.7), (a, 0.4)])
    assert (other_way(x) - one_by_one).abs().max() > 1e-3


def test_composing_at_t_0_is_the_reference(random_map):
    both = compose([(random_map(6, seed=1), 0.0), (random_map(6, seed=2), 0.0)]).weight
    torch.testing.assert_close(both.T @ both, torch.eye(6, dtype=torch.float64))


def test_one_map_composed_has_the_metric_of_sigma_2t(random_map):
    linear = LinearMap(random_map(6).weight.double())
    _, sigma, vt = linear.svd
    w = compose([(linear, -1.3)]).weight
    torch.testing.assert_close(w.T @ w, vt.T @ torch.diag(sigma**-2.6) @ vt)


def test_maps_of_different_widths_do_not_compose(random_map):
    with pytest.raises(ModelError, match="width 6 and 7"):
        compose([(random_map(6), 1.0), (random_map(7), 1.0)])


@pytest.mark.parametrize("name", ["vit", "resnet", "custom-text"])
def test_folded_into_a_model_the_logits_are_those_of_w_t(tiny, pixels_for, make_run, name):
    model = tiny(name)
    run = make_run("a", model)
    linear, _ = LinearMap.load(run / "linear_map.safetensors")
    pixels = pixels_for(model)
    for t in (-0.5, 0.4, 1.0):
        folded = fit(run, t=t).apply(model)
        expected = logits(model, pixels, LinearMap(linear.weight.double()).power(t))
        torch.testing.assert_close(logits(folded, pixels), expected, rtol=1e-5, atol=1e-5)
    reference = fit(run, t=0).apply(model)
    torch.testing.assert_close(
        logits(reference, pixels), logits(model, pixels), rtol=1e-5, atol=1e-5
    )


def test_maps_of_two_runs_fold_in_the_stated_order(tiny, pixels_for, make_run):
    model = tiny("vit")
    first, second = make_run("first", model), make_run("second", model)
    fitted = fit(second, t=0.6, after={str(first): -0.8})
    assert [(part.run, part.t) for part in fitted.maps] == [(str(first), -0.8), (str(second), 0.6)]
    expected = compose(
        [
            (LinearMap.load(first / "linear_map.safetensors")[0], -0.8),
            (LinearMap.load(second / "linear_map.safetensors")[0], 0.6),
        ]
    )
    pixels = pixels_for(model)
    torch.testing.assert_close(
        logits(fitted.apply(model), pixels), logits(model, pixels, expected), rtol=1e-5, atol=1e-5
    )


def test_a_map_too_steep_for_float32_is_said(tiny, make_run, notes):
    model = tiny("vit")
    sigma = torch.linspace(1.0, 1e-4, model.embed_dim)
    run = make_run("steep", model, linear=LinearMap(torch.diag(sigma)))
    Power(t=-1.0).fit(FitContext.open(run, reporter=notes))
    assert not notes.lines
    Power(t=-2.0).fit(FitContext.open(run, reporter=notes))
    assert len(notes.lines) == 1
    assert "at t=-2 the map stretches one direction 1.0e+08 times" in notes.lines[0]


def test_a_saved_transform_is_the_same_transform(tiny, make_run, tmp_path):
    fitted = fit(make_run("a", tiny("vit")), t=0.3)
    fitted.save(tmp_path / "t.safetensors")
    loaded = load_transform(tmp_path / "t.safetensors")
    assert isinstance(loaded, PowerTransform)
    assert loaded.describe() == fitted.describe()
    assert torch.equal(loaded.linear.weight, fitted.linear.weight)
    # and the lines that it gives for a model that takes no fold do what they say
    image = text = torch.randn(2, 24)
    scope = {"image": image, "text": text}
    lines = fitted.unfolded(tmp_path / "t.safetensors")
    assert len(lines.splitlines()) == 3
    exec(lines, scope)
    torch.testing.assert_close(scope["image"], fitted.linear(image.double()))


def test_what_is_no_transform_is_not_loaded(tmp_path, random_map):
    random_map(4).save(tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="not a saved transform"):
        load_transform(tmp_path / "w.safetensors")


def test_a_map_of_another_model_names_both(tiny, make_run):
    vit, other = tiny("vit"), tiny("quickgelu")
    with torch.no_grad():
        other.clip.logit_scale += 1
    other.__dict__.pop("sha256", None)
    fitted = fit(make_run("a", vit), t=0.5)
    with pytest.raises(ModelError) as caught:
        fitted.apply(other)
    assert vit.sha256[:12] in str(caught.value)
    assert other.sha256[:12] in str(caught.value)


def test_a_map_of_another_width_is_refused(tiny, make_run):
    fitted = fit(make_run("a", tiny("vit")), t=0.5)
    with pytest.raises(ModelError, match=r"of width 24, and .* features of width 32"):
        fitted.apply(tiny("custom-text"))


def test_the_reference_changed_since_training_is_noticed_before_anything_is_encoded(
    tiny, make_run, random_map
):
    model = tiny("vit")
    run = make_run("a", model)
    random_map(24).save(run / "linear_map.safetensors", model="vit", model_sha256="f" * 64)
    with pytest.raises(ModelError, match="trained on the model ffffffffffff…"):
        powers_of(FitContext.open(run))
    random_map(24).save(run / "linear_map.safetensors")
    with pytest.raises(ModelError, match="does not say which model"):
        fit(run, t=0.5)


def test_a_run_that_trained_no_head_says_what_to_do(tiny, make_run):
    run = make_run("a", tiny("vit"), trainable="image-encoder")
    with pytest.raises(UsageError, match=r"trained image-encoder.*--trainable head.*interpolate"):
        fit(run, t=0.5)


def test_a_model_into_which_w_is_folded_already_points_at_its_run(tiny, make_run):
    run = make_run("a", tiny("vit"))
    with pytest.raises(UsageError, match=f"folded into it already: name the run, {run}"):
        fit(run / "model", t=0.5)


def test_an_unfinished_run_says_how_to_go_on(tiny, make_run):
    run = make_run("a", tiny("vit"))
    (run / "linear_map.safetensors").unlink()
    with pytest.raises(RunError, match=f"--resume {run}"):
        fit(run, t=0.5)


def test_auto_needs_a_concept(tiny, make_run):
    run = make_run("a", tiny("vit"), task="typographic", dataset="emoji")
    with pytest.raises(UsageError, match="'typographic' has no concept"):
        fit(run, t="auto")
