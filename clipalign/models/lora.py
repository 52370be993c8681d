"""Low-rank adapters in the image tower, through peft (extra "lora")."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from clipalign.errors import UsageError
from clipalign.models.library import open_clip_module
from clipalign.seeding import seeded

if TYPE_CHECKING:
    from clipalign.models.loaded import LoadedModel

__all__ = ["add_adapters", "merged_state"]


def add_adapters(model: LoadedModel, rank: int, seed: int) -> Any:
    """Put adapters x ↦ (W + B A) x of one rank into the image tower; B starts at zero.

    Returns:
        peft's handle of the adapters, for `merged_state`.

    Raises:
        UsageError: peft is not installed, or the tower has no layer that an adapter fits.
    """
    try:
        from peft import LoraConfig, LoraModel
        from peft.tuners.lora.layer import MultiheadAttention
    except ImportError as error:
        raise UsageError(
            "Training lora:R needs the package peft. Install it with: pip install 'clipalign[lora]'"
        ) from error
    targets = _targets(model.clip.visual)
    if not targets:
        raise UsageError(
            f"The image tower of {model.name} has no layer that a LoRA adapter fits. Train "
            "image-encoder, last:K or head."
        )
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    with seeded(seed, model.device):
        adapters = LoraModel(model.clip.visual, config, "default")
    for module in adapters.modules():
        if isinstance(module, MultiheadAttention):
            _hold_still(module)
    model.clip.eval()  # new modules start in training mode
    return adapters


def merged_state(model: LoadedModel, adapters: Any) -> dict[str, Tensor]:
    """All weights under open_clip's names, with the adapters multiplied in.

    The tower is copied first: merging and unmerging in place would round the frozen weights.
    """
    visual = copy.deepcopy(adapters).merge_and_unload()
    state = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
    rest = model.clip.state_dict()
    return state | {n: tensor for n, tensor in rest.items() if not n.startswith("visual.")}


def _hold_still(attention: Any) -> None:
    """Put an attention's frozen weights back after every call.

    peft adds B A to them before it and subtracts it again afterwards, which rounds. In a long
    training they would drift, and a resumed one, which begins with the model's own, would not end
    with the same bits.
    """
    base = attention.get_base_layer()
    out = base.out_proj.get_base_layer()
    frozen = base.in_proj_weight.data, out.weight.data

    def put_back(*_: Any) -> None:
        base.in_proj_weight.data, out.weight.data = frozen

    attention.register_forward_hook(put_back, always_call=True)


def _targets(visual: nn.Module) -> list[str]:
    """Names of the layers that take an adapter and give it a gradient.

    nn.MultiheadAttention and open_clip's attention pool of the ResNets use the weights of their
    inner layers without calling these, so an adapter on such a layer would never train: the first
    is adapted as a whole, the second left out. Convolutions are adapted where they outweigh the
    linear layers; a ViT's patch embedding is not.
    """
    pool = open_clip_module().modified_resnet.AttentionPool2d
    linear: list[str] = []
    convolutions: list[str] = []
    inside: list[str] = []
    for name, module in visual.named_modules():
        if any(name.startswith(outer) for outer in inside):
            continue
        if isinstance(module, (nn.MultiheadAttention, pool)):
            inside.append(f"{name}.")
            if getattr(module, "_qkv_same_embed_dim", False):  # what peft supports
                linear.append(name)
        elif isinstance(module, nn.Linear):
            linear.append(name)
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            convolutions.append(name)
    return (
        linear + convolutions
        if _weights(visual, convolutions) > _weights(visual, linear)
        else linear
    )


def _weights(visual: nn.Module, names: list[str]) -> int:
    return sum(p.numel() for name in names for p in visual.get_submodule(name).parameters())
