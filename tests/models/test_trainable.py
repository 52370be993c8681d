from __future__ import annotations

import sys

import open_clip
import pytest
import torch

from clipalign.errors import UsageError
from clipalign.models.library import build_clip
from clipalign.models.linear_map import LinearMap
from clipalign.models.load import load_model
from clipalign.models.towers import group_of
from clipalign.models.trainable import apply_trainable, parse_trainable
from clipalign.policy import log_policy

PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3}
TEXTS = ["a photo of an apple", "a photo of an iPod", "a note"]
ALL = ["vit", "resnet", "timm", "siglip", "custom-text"]


def nll(part, inputs):
    """−log π of the first text: a loss that reaches whatever can be reached."""
    model = part.model
    texts = part.text_features(model.encode_text(TEXTS))
    policy = log_policy(part.image_features(inputs), texts, model.logit_scale, model.logit_bias)
    return -policy[:, 0].sum()


def step(part, inputs, rate=0.01):
    """One step of plain gradient descent."""
    parameters = part.named_parameters().values()
    gradients = torch.autograd.grad(nll(part, inputs), list(parameters))
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= rate * gradient


@pytest.mark.parametrize("text", ["image-encoder", "last:1", "last:12", "lora:8", "head"])
def test_a_trainable_reads_back_as_it_was_written(text):
    assert str(parse_trainable(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("last", "write it like last:4"),
        ("last:0", "write it like last:4"),
        ("last:-1", "write it like last:4"),
        ("lora:big", "write it like lora:8"),
        ("head:3", "write it like head"),
        ("image-encodr", "Did you mean 'image-encoder'"),
        ("text-encoder", "Did you mean 'image-encoder'"),
        ("", "Known"),
    ],
)
def test_anything_else_is_refused_with_words(text, words):
    with pytest.raises(UsageError, match=words):
        parse_trainable(text)


@pytest.mark.parametrize("name", ALL)
def test_image_encoder_trains_all_of_the_image_tower_and_nothing_else(tiny, pixels_for, name):
    model = tiny(name)
    part = apply_trainable(model, "image-encoder")
    trained = part.named_parameters()
    assert list(trained) == [n for n, _ in model.clip.named_parameters() if n.startswith("visual.")]
    nll(part, pixels_for(model)).backward()
    assert all(p.grad is not None for p in trained.values())
    frozen = [p for n, p in model.clip.named_parameters() if n not in trained]
    assert not any(p.requires_grad or p.grad is not None for p in frozen)
    assert part.merge() is model
    assert not part.uses_cached_features


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("trainable", ["image-encoder", "head"])
def test_the_table_counts_every_parameter_once(tiny, name, trainable):
    model = tiny(name)
    part = apply_trainable(model, trainable)
    own = sum(p.numel() for p in model.clip.parameters())
    extra = model.embed_dim**2 if trainable == "head" else 0
    assert sum(row.parameters for row in part.rows) == own + extra
    trained = sum(p.numel() for p in part.named_parameters().values())
    assert sum(row.parameters for row in part.rows if row.trained) == trained


def test_the_table_names_what_trains_in_the_order_of_the_pixels(tiny):
    rows = apply_trainable(tiny("vit"), "last:1").rows
    assert [(row.group, row.trained) for row in rows] == [
        ("image stem", False),
        ("image blocks 1–2", False),
        ("image block 3", True),
        ("image head", True),
        ("text tower", False),
        ("logit scale and bias", False),
    ]


@pytest.mark.parametrize(
    ("name", "count", "prefixes"),
    [
        ("vit", 2, ("transformer.resblocks.1.", "transformer.resblocks.2.", "ln_post.", "proj")),
        ("resnet", 2, ("layer3.", "layer4.", "attnpool.")),
        ("timm", 1, ("trunk.stages.3.blocks.1.", "trunk.head.norm.", "head.proj.")),
        ("siglip", 1, ("trunk.blocks.5.", "trunk.norm.")),
    ],
)
def test_last_k_trains_k_blocks_and_what_follows_them(tiny, pixels_for, name, count, prefixes):
    model = tiny(name)
    part = apply_trainable(model, f"last:{count}")
    trained = part.named_parameters()
    for prefix in prefixes:
        assert any(n.startswith(f"visual.{prefix}") for n in trained), prefix
    assert all(n.removeprefix("visual.").startswith(prefixes) for n in trained)
    nll(part, pixels_for(model)).backward()
    assert all(p.grad is not None for p in trained.values())


@pytest.mark.parametrize(("name", "count"), [("vit", 3), ("resnet", 4), ("timm", 9), ("siglip", 6)])
def test_more_blocks_than_there_are_is_refused_and_changes_nothing(tiny, name, count):
    model = tiny(name)
    assert len(apply_trainable(model, f"last:{count}").named_parameters()) > 0
    flags = [p.requires_grad for p in model.clip.parameters()]
    with pytest.raises(UsageError, match=f"its image tower has {count}"):
        apply_trainable(model, f"last:{count + 1}")
    assert [p.requires_grad for p in model.clip.parameters()] == flags


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("ViT-B-32", 12),
        ("RN50", 4),
        ("convnext_base", 36),
        ("ViT-B-16-SigLIP", 12),
        ("PE-Core-T-16-384", 12),
        ("coca_ViT-B-32", 12),
    ],
)
def test_the_blocks_of_well_known_towers_are_counted_right(name, blocks):
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": PREPROCESS}
    with torch.device("meta"):  # names and shapes without the weights
        groups = group_of(build_clip(config))
    numbers = {number for group, number in groups.values() if group == "image blocks"}
    assert numbers == set(range(1, blocks + 1))
    assert {group for group, _ in groups.values()} == {
        "image stem",
        "image blocks",
        "image head",
        "text tower",
        "logit scale and bias",
    }


def test_a_tower_without_known_blocks_says_what_else_can_train(tiny):
    model = tiny("vit")
    model.clip.visual.blocks = model.clip.visual._modules.pop("transformer")
    with pytest.raises(UsageError, match=r"blocks .* are not known.*image-encoder"):
        apply_trainable(model, "last:1")


def test_positions_that_are_constants_stay_constants(tiny):
    model = tiny("vit")
    model.fixed = frozenset({"visual.positional_embedding"})  # as open_clip marks sin-cos positions
    assert (
        "visual.positional_embedding"
        not in apply_trainable(model, "image-encoder").named_parameters()
    )


def test_batch_statistics_stay_while_their_affine_parameters_train(tiny, pixels_for):
    model = tiny("resnet")
    part = apply_trainable(model, "image-encoder")
    buffers = {n: b.clone() for n, b in model.clip.named_buffers()}
    weight = model.clip.visual.bn1.weight.detach().clone()
    step(part, pixels_for(model))
    assert not torch.equal(model.clip.visual.bn1.weight, weight)
    assert all(torch.equal(b, buffers[n]) for n, b in model.clip.named_buffers())


def test_the_hash_names_the_weights_as_loaded_also_after_training(tiny, pixels_for):
    model = tiny("vit")
    part = apply_trainable(model, "image-encoder")
    step(part, pixels_for(model))
    assert model.sha256 == tiny("vit").sha256


def test_head_starts_at_the_reference_and_acts_on_both_sides(tiny, pixels_for):
    model = tiny("vit")
    part = apply_trainable(model, "head")
    assert part.uses_cached_features
    assert list(part.named_parameters()) == ["W"]
    with torch.no_grad():
        features, texts = model.encode_image(pixels_for(model)), model.encode_text(TEXTS)
    torch.testing.assert_close(part.image_features(features), features)
    torch.testing.assert_close(part.text_features(texts), texts)
    step(part, features, rate=0.05)
    assert part.weight is not None
    linear = LinearMap(part.weight.detach())
    torch.testing.assert_close(part.text_features(texts), linear(texts))
    torch.testing.assert_close(part.image_features(features), linear(features))
    assert part.text_features(texts).requires_grad


def test_a_merged_head_is_a_plain_model_and_training_can_go_on(tiny, pixels_for):
    model = tiny("vit")
    part = apply_trainable(model, "head")
    with torch.no_grad():
        features, texts = model.encode_image(pixels_for(model)), model.encode_text(TEXTS)
    step(part, features, rate=0.05)
    merged = part.merge()
    with torch.no_grad():
        expected = part.image_features(features) @ part.text_features(texts).T
        folded = merged.encode_image(pixels_for(model)) @ merged.encode_text(TEXTS).T
    torch.testing.assert_close(folded, expected, rtol=1e-5, atol=1e-5)
    kept = folded.clone()
    step(part, features, rate=0.05)
    with torch.no_grad():
        again = merged.encode_image(pixels_for(model)) @ merged.encode_text(TEXTS).T
    torch.testing.assert_close(again, kept)


def test_without_peft_lora_says_how_to_install_it(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"pip install 'clipalign\[lora\]'"):
        apply_trainable(tiny("vit"), "lora:2")


@pytest.mark.parametrize("name", ALL)
def test_every_adapter_gets_a_gradient_and_merges_into_plain_weights(tiny, pixels_for, name):
    pytest.importorskip("peft")
    model = tiny(name)
    pixels = pixels_for(model)
    with torch.no_grad():
        reference = model.encode_image(pixels)
    plain_names = list(model.clip.state_dict())
    part = apply_trainable(model, "lora:2", seed=5)
    trained = part.named_parameters()
    assert trained
    assert all(".lora_" in n for n in trained)
    torch.testing.assert_close(part.image_features(pixels), reference, rtol=1e-5, atol=1e-6)

    nll(part, pixels).backward()
    for n, parameter in trained.items():
        assert parameter.grad is not None, n
        # Some B have a gradient that is zero by symmetry; A's is zero while B is.
        assert (n in part.zero_gradient_at_start) == (".lora_A." in n)
        if n in part.zero_gradient_at_start:
            assert not parameter.grad.any()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(2)
        for n, parameter in trained.items():
            if ".lora_B." in n:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
                before = part.image_features(pixels)
    nll(part, pixels).backward()
    assert all(p.grad is not None and p.grad.any() for p in trained.values())

    merged = part.merge()
    assert list(merged.clip.state_dict()) == plain_names
    with torch.no_grad():
        before = part.image_features(pixels)
        torch.testing.assert_close(merged.encode_image(pixels), before, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(part.image_features(pixels), before, rtol=0, atol=0)
    assert (before - reference).abs().max() > 1e-3
    assert sum(r.parameters for r in part.rows if r.trained) == sum(
        p.numel() for p in trained.values()
    )


def test_the_weights_under_the_adapters_stay_what_they_were(tiny, pixels_for):
    pytest.importorskip("peft")
    model = tiny("vit")
    part = apply_trainable(model, "lora:2")
    with torch.no_grad():
        for name, parameter in part.named_parameters().items():
            if ".lora_B." in name:
                parameter.fill_(0.123)

    def frozen() -> dict[str, torch.Tensor]:
        state = model.clip.state_dict()
        return {n: tensor.clone() for n, tensor in state.items() if ".lora_" not in n}

    before = frozen()
    for _ in range(3):
        nll(part, pixels_for(model)).backward()
    assert all(torch.equal(tensor, before[n]) for n, tensor in frozen().items())


def test_lora_starts_the_same_for_the_same_seed(tiny):
    pytest.importorskip("peft")
    first, second, other = (
        apply_trainable(tiny("vit"), "lora:2", seed=seed).named_parameters() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert not all(torch.equal(first[n], other[n]) for n in first)


@pytest.mark.parametrize("text", ["image-encoder", "head", "last:1"])
def test_texts_have_the_same_bits_before_a_part_is_trainable_and_after(text):
    model = load_model("emoji-tiny")
    names = [f"a photo of a {name}." for name in ("apple", "pear", "plum")]
    before = model.encode_text(names)
    apply_trainable(model, parse_trainable(text), seed=0)
    assert torch.equal(model.encode_text(names), before)
