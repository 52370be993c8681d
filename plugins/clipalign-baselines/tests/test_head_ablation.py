"""Heads: found in every kind of tower, attributed as removing them says, taken out of weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from clipalign_baselines.attacked import Attacked
from clipalign_baselines.head_ablation import HeadAblation
from clipalign_baselines.heads import attention_layers, encoder, head_scores, without_heads

from clipalign import DataError, ModelError, UsageError
from clipalign.training.reference import image_features
from clipalign.transforms.base import load_transform


def test_the_heads_of_each_kind_of_tower_are_found(model):
    blocks = attention_layers(model("vit"))
    assert [layer.name for layer in blocks] == [f"transformer.resblocks.{i}.attn" for i in range(3)]
    assert {(layer.heads, layer.only_pooled) for layer in blocks} == {(2, False)}
    (pool,) = attention_layers(model("resnet"))
    assert (pool.name, pool.heads, pool.only_pooled) == ("attnpool", 8, True)
    assert all(
        layer.weight.endswith("attn.proj.weight") for layer in attention_layers(model("timm-vit"))
    )


def test_without_heads_to_ablate_it_is_the_identity(context, model):
    reference = model("vit")
    fitted = HeadAblation(count=0).fit(context("vit"))
    assert fitted.apply(reference).sha256 == reference.sha256
    assert without_heads(reference, {}).sha256 == reference.sha256
    assert "none" in fitted.statement()


@pytest.mark.parametrize("name", ["vit", "resnet", "timm-vit"])
def test_an_attribution_is_the_slope_of_taking_a_head_out(model, pixels, name):
    reference = model(name)
    layers = attention_layers(reference)
    x = pixels(reference)[:2]
    generator = torch.Generator().manual_seed(0)
    toward, away = F.normalize(torch.randn(2, 2, 24, generator=generator), dim=2)
    scores = head_scores(reference, layers, x, toward, away, batch_size=1)

    def margin(weight):
        state = dict(reference.clip.state_dict())
        state[f"visual.{layers[-1].weight}"] = weight
        features = image_features(reference.rebuilt(state), x, 2)
        scale = reference.logit_scale.double()
        return (scale * (features.double() * (toward - away)).sum(dim=1)).mean()

    own = reference.clip.state_dict()[f"visual.{layers[-1].weight}"]
    width, step = own.shape[1] // layers[-1].heads, 0.02
    for head in range(2):
        part = torch.zeros_like(own)
        part[:, head * width : (head + 1) * width] = own[:, head * width : (head + 1) * width]
        slope = (margin(own + step * part) - margin(own - step * part)) / (2 * step)
        assert float(scores[-1][head]) == pytest.approx(float(slope), abs=5e-3, rel=5e-2)


def test_all_heads_of_an_attention_pool_out_leaves_its_constant(model, pixels):
    reference = model("resnet")
    without = without_heads(reference, {"attnpool": list(range(8))})
    bias = reference.clip.visual.attnpool.c_proj.bias.detach()
    with torch.no_grad():
        features = without.encode_image(pixels(reference))
    torch.testing.assert_close(features, F.normalize(bias, dim=0).expand_as(features))


def test_before_an_attention_pool_nothing_is_computed_twice(model, pixels):
    reference = model("resnet")
    x = pixels(reference)
    without = without_heads(reference, {"attnpool": [1, 5]})
    encode = encoder(reference, x, batch_size=4)
    torch.testing.assert_close(encode(without), image_features(without, x, 4))


def test_the_choice_keeps_clean_accuracy_and_is_made_on_validation(context, model, tmp_path):
    fitted = HeadAblation(epsilon=1.0).fit(context("resnet"))
    scores = [head.score for head in fitted.heads]
    assert scores == sorted(scores, reverse=True)
    assert all(score > 0 for score in scores)
    best = fitted.trials[len(fitted.heads)]
    assert best.attacked == max(trial.attacked for trial in fitted.trials)
    attacked = Attacked.of(context("resnet"), "validation", seed=0, paired=True)
    reference = fitted.apply(model("resnet"))
    stream, x = attacked.stream, attacked.pixels(reference, context("resnet").reporter)
    guess = image_features(reference, x, 8) @ reference.encode_text(attacked.candidates).T
    right = guess.argmax(dim=1)[stream.image] == stream.chosen
    assert best.attacked == pytest.approx(right.double().mean().item())
    strict = HeadAblation(epsilon=0.0).fit(context("resnet"))
    assert all(trial.clean >= strict.trials[0].clean for trial in strict.trials)
    fitted.save(tmp_path / "heads.safetensors")
    assert load_transform(tmp_path / "heads.safetensors").describe() == fitted.describe()


def test_a_given_number_of_heads_is_taken_from_the_top(context, model):
    fitted = HeadAblation(count=3, last=3).fit(context("vit"))
    assert (len(fitted.heads), fitted.looked_at, fitted.trials) == (3, 6, ())
    assert "all tokens" in fitted.statement()
    assert fitted.apply(model("vit")).sha256 != model("vit").sha256


def test_what_cannot_serve_ends_in_one_message(context, model):
    with pytest.raises(ModelError, match="no attention heads"):
        HeadAblation().fit(context("convnext"))
    with pytest.raises(UsageError, match="have 2 heads"):
        HeadAblation(count=3, last=1).fit(context("vit"))
    with pytest.raises(UsageError, match="has 3 attention layers"):
        HeadAblation(last=4).fit(context("vit"))
    with pytest.raises(ModelError, match="no attention layer 'pool'; it has attnpool"):
        without_heads(model("resnet"), {"pool": [0]})
    with pytest.raises(ModelError, match="heads 0 to 7"):
        without_heads(model("resnet"), {"attnpool": [8]})


def test_preferences_without_clean_partners_are_refused(context, preferences, monkeypatch):
    from dataclasses import replace

    from clipalign_baselines import attacked

    real = attacked.build_stream
    lonely = lambda *a: replace(real(*a), clean=torch.full_like(real(*a).clean, -1))  # noqa: E731
    monkeypatch.setattr(attacked, "build_stream", lonely)
    with pytest.raises(DataError, match="a clean image, so there is nothing to fit to"):
        HeadAblation().fit(context("resnet"))
