"""The image tower cut in two where training begins: blocks that never change, and the rest.

Under last:K everything before the first trained block gives the same activations at every step, so
they are computed once. The rest then starts from them: the same mathematics, without the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from clipalign.models.loaded import LoadedModel

__all__ = ["Trunk", "find_trunk"]

_Function = Callable[[Tensor], Tensor]
_TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 2e-2}


@dataclass(frozen=True)
class Trunk:
    """An image tower in two parts; `rest(frozen(pixels))` is `model.encode_image(pixels)`.

    Attributes:
        model: whose tower it is.
        blocks: how many of its blocks (stages of a convolutional tower) are frozen and cached.
    """

    model: LoadedModel
    blocks: int
    _frozen: _Function
    _rest: _Function

    @torch.no_grad()
    def frozen(self, pixels: Tensor) -> Tensor:
        """Activations [B, …] before the first trained block, of pixels [B, 3, H, W]."""
        activations: Tensor = self.model.run_image_tower(self._frozen, pixels)
        return activations.contiguous()

    def rest(self, activations: Tensor) -> Tensor:
        """I(x), [B, d] float32 of unit norm, of activations [B, …]; gradient flows."""
        return self.model.unit_image(self.model.run_image_tower(self._rest, activations))

    @torch.no_grad()
    def fits(self, pixels: Tensor) -> bool:
        """Whether both parts together are the tower, measured on a few images [B, 3, H, W]."""
        whole = self.model.encode_image(pixels)
        error = (self.rest(self.frozen(pixels)) - whole).abs().max()
        return bool(error <= _TOLERANCE[self.model.precision])

    def compiled(self) -> Trunk:
        """With the trained part compiled, for each batch size by itself as `accelerate` does."""
        rest: Any = torch.compile(self._rest, dynamic=False)
        return replace(self, _rest=rest)


def find_trunk(model: LoadedModel) -> Trunk | None:
    """Cut the tower before its first trainable block.

    Args:
        model: after `apply_trainable`.

    Returns:
        None where nothing worth caching is frozen, or no clean cut is known: of open_clip's
        VisionTransformer and ModifiedResNet, and of timm's towers with `blocks` or `stages`, one
        is. Ask `fits` before it is used.
    """
    visual = model.clip.visual
    for cut in (_vit, _resnet, _timm):
        found = cut(visual)
        if found is not None:
            before, blocks, after = found
            first = _first_trained(blocks)
            if not first or any(p.requires_grad for m in before for p in m.parameters()):
                return None
            frozen, rest = after(first)
            return Trunk(model, first, frozen, rest)
    return None


def _first_trained(blocks: Sequence[nn.Module]) -> int:
    for number, block in enumerate(blocks):
        if any(p.requires_grad for p in block.parameters()):
            return number
    return len(blocks)


_Cut = tuple[list[Any], Sequence[Any], Callable[[int], tuple[_Function, _Function]]]
"""Modules before the blocks, the blocks, and both parts for a number of frozen blocks."""


def _vit(visual: Any) -> _Cut | None:
    if not (hasattr(visual, "transformer") and hasattr(visual, "_embeds")):
        return None
    transformer, blocks = visual.transformer, visual.transformer.resblocks

    def through(some: Any, x: Tensor) -> Tensor:
        x = x if transformer.batch_first else x.transpose(0, 1).contiguous()
        x = _chain(some, x, transformer)
        return x if transformer.batch_first else x.transpose(0, 1)

    def rest(first: int, x: Tensor) -> Tensor:
        pooled, _ = visual._pool(through(blocks[first:], x))
        features: Tensor = pooled if visual.proj is None else pooled @ visual.proj
        return features

    return (
        [visual.conv1, visual.ln_pre],
        blocks,
        lambda first: (
            lambda pixels: through(blocks[:first], visual._embeds(pixels)),
            lambda x: rest(first, x),
        ),
    )


def _resnet(visual: Any) -> _Cut | None:
    if not (hasattr(visual, "attnpool") and hasattr(visual, "stem")):
        return None
    stages = [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
    stem = [m for name, m in visual.named_children() if name.startswith(("conv", "bn"))]
    return (
        stem,
        stages,
        lambda first: (
            lambda pixels: _chain(stages[:first], visual.stem(pixels)),
            lambda x: visual.attnpool(_chain(stages[first:], x)),
        ),
    )


def _timm(visual: Any) -> _Cut | None:
    trunk = getattr(visual, "trunk", None)
    if trunk is None or not hasattr(trunk, "forward_head"):
        return None
    if hasattr(trunk, "stages") and hasattr(trunk, "norm_pre"):  # ConvNeXt and its kin, whose
        # stages see to gradient checkpointing themselves
        stem, blocks, norm = [trunk.stem], trunk.stages, trunk.norm_pre
        start: _Function = trunk.stem
        of = None
    elif hasattr(trunk, "blocks") and hasattr(trunk, "_pos_embed"):  # vision transformers
        stem, blocks, norm = [trunk.patch_embed, trunk.norm_pre], trunk.blocks, trunk.norm
        of = trunk
        start = lambda x: trunk.norm_pre(  # noqa: E731
            trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(x)))
        )
    else:
        return None
    return (
        stem,
        blocks,
        lambda first: (
            lambda pixels: _chain(blocks[:first], start(pixels)),
            lambda x: visual.head(trunk.forward_head(norm(_chain(blocks[first:], x, of)))),
        ),
    )


def _chain(modules: Any, x: Tensor, tower: Any = None) -> Tensor:
    """Through modules one after another, of a tower that may ask for gradient checkpointing."""
    keep_inputs_only = torch.is_grad_enabled() and getattr(tower, "grad_checkpointing", False)
    for module in modules:
        x = checkpoint(module, x, use_reentrant=False) if keep_inputs_only else module(x)
    return x
