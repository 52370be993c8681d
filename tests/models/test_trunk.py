"""A tower cut where training begins is the same tower."""

from __future__ import annotations

import pytest
import torch

from clipalign.models.acceleration import accelerate
from clipalign.models.trainable import apply_trainable
from clipalign.models.trunk import find_trunk

TOWERS = {
    "vit": (2, (17, 32)),
    "quickgelu": (2, (17, 32)),
    "wide": (2, (25, 32)),
    "resnet": (3, (128, 2, 2)),
    "timm": (3, (48, 4, 4)),
    "siglip": (5, (101, 64)),
    "custom-text": (2, (17, 32)),
}


def pixels(model, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (count, 3, *model.image_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", TOWERS)
def test_features_and_gradients_are_those_of_the_whole_tower(tiny, name) -> None:
    model = tiny(name)
    part = apply_trainable(model, "last:1")
    trunk = find_trunk(model)
    images = pixels(model)
    assert trunk is not None
    assert trunk.fits(images)
    activations = trunk.frozen(images)
    assert (trunk.blocks, tuple(activations.shape[1:])) == TOWERS[name]
    weights = list(part.named_parameters().values())
    grads = []
    for inputs in (images, activations):
        part.trunk = trunk if inputs is activations else None
        features = part.image_features(inputs)
        grads.append([features.detach(), *torch.autograd.grad(features.sin().sum(), weights)])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_what_trains_from_the_start_has_no_trunk(tiny) -> None:
    for trainable in ("image-encoder", "last:3"):
        model = tiny("vit")
        apply_trainable(model, trainable)
        assert find_trunk(model) is None


def test_half_precision_keeps_its_own_type(tiny) -> None:
    model = tiny("vit", precision="bf16")
    apply_trainable(model, "last:1")
    trunk = find_trunk(model)
    images = pixels(model)
    assert trunk.fits(images)
    assert trunk.frozen(images).dtype == torch.bfloat16


def gradients(part, inputs) -> list[torch.Tensor]:
    """Features of the inputs, and gradients of everything that trains."""
    features = part.image_features(inputs)
    weights = list(part.named_parameters().values())
    return [features.detach(), *torch.autograd.grad(features.sin().sum(), weights)]


@pytest.mark.parametrize("name", ["vit", "timm", "siglip"])
def test_gradient_checkpointing_reaches_the_rest(tiny, name) -> None:
    model = tiny(name)
    part = apply_trainable(model, "last:1")
    part.trunk = find_trunk(model)
    activations = part.trunk.frozen(pixels(model))
    plain = gradients(part, activations)
    accelerate(model, gradient_checkpointing=True)
    saved = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        saved += tensor.numel()
        return tensor

    kept = []
    for on in (True, False):
        accelerate(model, gradient_checkpointing=True)
        if not on:
            tower = getattr(model.clip.visual, "trunk", model.clip.visual)
            tower.set_grad_checkpointing(False)
        saved = 0
        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            part.image_features(activations)
        kept.append(saved)
        for a, b in zip(gradients(part, activations), plain, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert kept[0] < 0.7 * kept[1], "most of a block is computed again, not kept"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("checkpointed", [False, True])
def test_compiling_reaches_the_rest(tiny, checkpointed) -> None:
    model = tiny("vit")
    part = apply_trainable(model, "last:1")
    part.trunk = find_trunk(model)
    activations = part.trunk.frozen(pixels(model))
    plain = gradients(part, activations)
    accelerate(model, gradient_checkpointing=checkpointed, compile=True)
    part.trunk = part.trunk.compiled()
    torch._dynamo.utils.counters.clear()
    for a, b in zip(gradients(part, activations), plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0, "it was compiled"
