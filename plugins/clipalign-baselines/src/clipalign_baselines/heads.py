"""The attention heads of an image tower: where they are, what they do to a margin, taking them out.

The output of an attention layer is Σ_h O_h(head h), O_h the columns of its output projection that
belong to head h. Setting these columns to 0 zeroes the contribution of the head, in the weights:
the result is an ordinary model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipalign import ModelError
from clipalign.models.loaded import LoadedModel
from clipalign.training.reference import image_features

__all__ = ["AttentionLayer", "attention_layers", "encoder", "head_scores", "without_heads"]

_OUTPUTS = ("out_proj", "c_proj", "proj")  # what open_clip and timm call an output projection


@dataclass(frozen=True)
class AttentionLayer:
    """One layer of attention heads.

    Attributes:
        name: of the layer within the image tower.
        weight: name of its output projection's weight [d_out, heads · width] within the tower.
        heads: how many.
        only_pooled: whether the layer gives the pooled (CLS) token alone, as an attention pool.
    """

    name: str
    weight: str
    heads: int
    only_pooled: bool


def attention_layers(model: LoadedModel) -> list[AttentionLayer]:
    """The layers of an image tower that have heads, in its order: nearest to the pixels first.

    Raises:
        ModelError: it has none, as a convolutional tower with average pooling.
    """
    found = []
    for name, module in model.clip.visual.named_modules():
        heads = getattr(module, "num_heads", None)
        output = next((n for n in _OUTPUTS if isinstance(getattr(module, n, None), nn.Linear)), "")
        if not isinstance(heads, int) or not output:
            continue
        weight = getattr(module, output).weight
        if weight.shape[1] % heads:
            raise ModelError(f"{model.name}: the {heads} heads of {name} are not equally wide.")
        pool = "pool" in type(module).__name__.lower()
        found.append(AttentionLayer(name, f"{name}.{output}.weight", heads, pool))
    if not found:
        raise ModelError(
            f"The image tower of {model.name} ({type(model.clip.visual).__name__}) has no "
            "attention heads, so none can be ablated. Choose a ViT, or a ResNet with an attention "
            "pool."
        )
    return found


def head_scores(
    model: LoadedModel,
    layers: Sequence[AttentionLayer],
    pixels: Tensor,
    toward: Tensor,
    away: Tensor,
    batch_size: int = 64,
) -> list[Tensor]:
    """How much each head moves images toward one text and away from another, to first order.

    With a gate g in front of each head's columns, ∂/∂g at g = 1 of the margin
    τ (T_toward − T_away)·I(x), the mean over images: gradient times activation, over all tokens.

    Args:
        model: whose heads they are.
        layers: L of its image tower.
        pixels: [N, 3, H, W] uint8.
        toward: [N, d] features of a text for each image.
        away: [N, d] likewise.
        batch_size: images at once.

    Returns:
        For each layer [heads] float64; positive where the head pushes toward.
    """
    visual = model.clip.visual
    weights = {layer.weight: visual.get_parameter(layer.weight).detach() for layer in layers}
    totals = [torch.zeros(layer.heads, dtype=torch.float64) for layer in layers]
    direction = model.logit_scale.to(model.device) * (toward - away).to(model.device)
    for rows in torch.arange(len(pixels)).split(batch_size):
        gates = [torch.ones(layer.heads, device=model.device) for layer in layers]
        gated = {}
        for layer, gate in zip(layers, gates, strict=True):
            gate.requires_grad_()
            weight = weights[layer.weight]
            each = gate.repeat_interleave(weight.shape[1] // layer.heads)
            gated[layer.weight] = weight * each
        x = model.preprocess.normalise(pixels[rows].to(model.device))
        output = torch.func.functional_call(visual, gated, (x,))
        features = output[0] if isinstance(output, tuple) else output
        margin = (F.normalize(features.float(), dim=1) * direction[rows]).sum()
        for total, gradient in zip(totals, torch.autograd.grad(margin, gates), strict=True):
            total += gradient.double().cpu()
    return [total / len(pixels) for total in totals]


def without_heads(model: LoadedModel, heads: Mapping[str, Sequence[int]]) -> LoadedModel:
    """The model with the contribution of some heads set to zero.

    Args:
        model: it is left as it is.
        heads: name of the layer → numbers of its heads, from 0. Empty gives the same weights.

    Raises:
        ModelError: there is no such layer or head.
    """
    layers = {layer.name: layer for layer in attention_layers(model)}
    state: dict[str, Any] = dict(model.clip.state_dict())
    for name, numbers in heads.items():
        if name not in layers:
            raise ModelError(
                f"{model.name} has no attention layer {name!r}; it has {', '.join(layers)}."
            )
        layer = layers[name]
        if wrong := [number for number in numbers if not 0 <= number < layer.heads]:
            raise ModelError(
                f"{name} of {model.name} has heads 0 to {layer.heads - 1}, not {wrong}."
            )
        weight = state[f"visual.{layer.weight}"].clone()
        width = weight.shape[1] // layer.heads
        for number in numbers:
            weight[:, number * width : (number + 1) * width] = 0
        state[f"visual.{layer.weight}"] = weight
    return model.rebuilt(state)


@torch.no_grad()
def encoder(
    model: LoadedModel, pixels: Tensor, batch_size: int = 256
) -> Callable[[LoadedModel], Tensor]:
    """What gives the image features of the same pixels for models that differ in heads alone.

    Before the attention pool of a ResNet nothing differs: that part is computed once.

    Args:
        model: with all its heads.
        pixels: [N, 3, H, W] uint8.
        batch_size: images at once.

    Returns:
        Model → [N, d] float32 unit norm, on the CPU.
    """
    pool = getattr(model.clip.visual, "attnpool", None)
    if pool is None:
        return lambda without: image_features(without, pixels, batch_size)
    maps: list[Tensor] = []
    handle = pool.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0].cpu()))
    try:
        image_features(model, pixels, batch_size)
    finally:
        handle.remove()

    @torch.no_grad()
    def pooled(without: LoadedModel) -> Tensor:
        own = without.clip.visual.attnpool
        rows = [own(part.to(without.device)).float().cpu() for part in maps]
        return F.normalize(torch.cat(rows), dim=1)

    return pooled
