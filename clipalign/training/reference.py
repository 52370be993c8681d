"""The reference's image features, computed once; no second copy of the model is ever held."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clipalign.models.loaded import LoadedModel


def image_features(
    model: LoadedModel,
    pixels: Tensor,
    batch_size: int,
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """I_ref of every image.

    Args:
        model: the reference.
        pixels: [N, 3, H, W] uint8.
        batch_size: how many go through the tower at once.
        advance: told how many more are done.

    Returns:
        [N, d] float32 unit norm, on the CPU.
    """
    out = torch.empty(len(pixels), model.embed_dim)
    with torch.no_grad():
        for start in range(0, len(pixels), batch_size):
            part = pixels[start : start + batch_size].to(model.device)
            out[start : start + len(part)] = model.encode_image(part).cpu()
            if advance:
                advance(len(part))
    return out
