"""One learned token: what it costs nothing, what it is at the start, that it learns."""

from __future__ import annotations

import open_clip
import pytest
import torch
from clipalign_baselines.defense_prefix import DefensePrefix, encode_with, prefix_loss
from clipalign_baselines.prompts import class_names, token_embedding, with_word

from clipalign import DataError, ModelError, UsageError
from clipalign.models.export import export_model
from clipalign.models.load import load_model
from clipalign.transforms.base import load_transform

TEXTS = ["a photo of a dog.", "an image of a red panda.", "cat"]


def test_texts_without_the_token_and_images_are_those_of_the_reference(model, pixels):
    reference = model("vit")
    student = with_word(reference, "<prefix>", torch.ones(32))
    assert torch.equal(student.encode_text(TEXTS), reference.encode_text(TEXTS))
    with torch.no_grad():
        x = pixels(reference)
        assert torch.equal(student.encode_image(x), reference.encode_image(x))


def test_nothing_learned_from_a_word_is_the_reference_with_that_word(context, model):
    reference = model("vit")
    fitted = DefensePrefix(epochs=0, init="real").fit(context("vit"))
    student = fitted.apply(reference)
    with_token = student.encode_text(["a photo of a <prefix> dog.", "a <prefix> cat"])
    with_real = reference.encode_text(["a photo of a real dog.", "a real cat"])
    assert torch.equal(with_token, with_real)
    assert student.class_prefix == "<prefix> "


def test_the_loss_is_its_formula_and_zero_where_nothing_moves():
    clean = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]).double().log()
    reference = torch.tensor([[0.6, 0.2, 0.2], [0.3, 0.4, 0.3]]).double().log()
    attacked = torch.tensor([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]]).double().log()
    true = torch.tensor([0, 1])
    kl = (reference.exp() * (reference - clean)).sum(dim=1).mean()
    expected = -(attacked[0, 0] + attacked[1, 1]) / 2 + 3 * kl
    torch.testing.assert_close(prefix_loss(attacked, true, clean, reference, 3.0), expected)
    certain = torch.tensor([[0.0, -torch.inf]]).double()
    soft = torch.tensor([[0.5, 0.5]]).double().log()
    assert prefix_loss(certain, torch.tensor([0]), soft, soft, 3.0) == 0


def test_many_prompts_in_parts_give_the_gradient_of_all_at_once(model, monkeypatch):
    student = with_word(model("vit"), "<prefix>", torch.zeros(32))
    tokens = student.tokenize([f"a photo of a <prefix> {name}" for name in ("cat", "dog", "owl")])
    vector = torch.linspace(-1, 1, 32).requires_grad_()
    weights = torch.arange(24.0)
    found = []
    for at_once in (128, 2):
        monkeypatch.setattr("clipalign_baselines.defense_prefix._TEXTS_AT_ONCE", at_once)
        features = encode_with(student, tokens, vector)
        found.append(torch.autograd.grad((features @ weights).square().sum(), vector)[0])
    assert found[0].abs().max() > 0
    torch.testing.assert_close(found[0], found[1])


def test_it_learns_and_every_seed_gives_its_own_token_again(context):
    def fit(seed):
        return DefensePrefix(epochs=3, lr=0.5, batch_size=8, seed=seed).fit(context("vit"))

    first, again, other = fit(0), fit(0), fit(1)
    assert first.losses[-1] < first.losses[0]
    assert first.steps == 6
    assert torch.equal(first.vector, again.vector)
    assert not torch.equal(first.vector, other.vector)


def test_it_is_saved_exported_and_loaded_by_open_clip_alone(context, model, tmp_path):
    fitted = DefensePrefix(epochs=1).fit(context("resnet"))
    fitted.save(tmp_path / "prefix.safetensors")
    loaded = load_transform(tmp_path / "prefix.safetensors")
    assert loaded.describe() == fitted.describe()
    student = loaded.apply(model("resnet"))
    export_model(student, tmp_path / "model")
    spec = f"local-dir:{tmp_path / 'model'}"
    own = load_model(spec)
    assert own.class_prefix == "<prefix> "
    plain, _, _ = open_clip.create_model_and_transforms(spec)
    tokens = open_clip.get_tokenizer(spec)(["a photo of a <prefix> dog."])
    expected = student.encode_text(["a photo of a <prefix> dog."])
    with torch.no_grad():
        torch.testing.assert_close(plain.eval().encode_text(tokens, normalize=True), expected)
    with pytest.raises(ModelError, match="a word before class names already"):
        with_word(own, "<other>", torch.zeros(32))


def test_class_names_are_found_in_prompts():
    assert class_names("a photo of a {}.", ["a photo of a cat.", "a photo of a car."]) == [
        "cat",
        "car",
    ]
    with pytest.raises(DataError, match="Name the template"):
        class_names("a photo of a {}.", ["an image of a cat."])


def test_what_cannot_serve_ends_in_one_message(context, model):
    with pytest.raises(UsageError, match="tokens"):
        DefensePrefix(init="antidisestablishmentarianism").fit(context("vit"))
    with pytest.raises(DataError, match="Name the template"):
        DefensePrefix(template="{} texture.").fit(context("vit"))
    with pytest.raises(ModelError, match="fitted to the model"):
        DefensePrefix(epochs=0).fit(context("vit")).apply(model("resnet"))
    odd = with_word(model("vit"), "<prefix>", torch.zeros(32))
    odd.tokenizer = lambda texts, **_: None
    with pytest.raises(ModelError, match="cannot learn a word"):
        token_embedding(odd)
