"""The policy π_θ(y|x): images × candidate texts → log-probabilities.

A contrastive model is a one-step decision maker: the state is an image x, the action one of a
finite set of texts y (arXiv 2411.08923, §3).
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_policy(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    bias: Tensor | float | None = None,
) -> Tensor:
    """The policy log π(y|x) = log softmax_y(τ T(y)·I(x) + bias).

    Computed in float32 (float64 where the features are), also under autocast: bfloat16 would
    round a logit of 30 to the nearest 1/8, which is more than many a preference margin.

    SigLIP's bias is one constant added to all logits, so it cancels in the softmax: the policy of
    a SigLIP model over a candidate set is the same with or without it.

    Args:
        image_features: [B, d] unit-norm I(x), with gradient while training.
        text_features: [C, d] unit-norm T(y) of the candidates, or [B, C, d] where each image has
            its own.
        logit_scale: τ itself, not its log: 100 for OpenAI's CLIP.
        bias: logit bias, or None for models that have none.

    Returns:
        [B, C] natural log; the probabilities of each row sum to 1.
    """
    dtype = torch.promote_types(image_features.dtype, torch.float32)
    with torch.autocast(image_features.device.type, enabled=False):
        images, texts = image_features.to(dtype), text_features.to(dtype)
        if texts.ndim == 3:
            logits = logit_scale * (texts @ images.unsqueeze(2)).squeeze(2)
        else:
            logits = logit_scale * (images @ texts.T)
        if bias is not None:
            logits = logits + bias
        return logits.log_softmax(dim=1)
