"""Regularisers: how far the policy has moved from the reference on images where it must not move.

Each is a divergence between two distributions over the candidates of one image, given as natural
logs; each is 0 exactly where they agree. The weight λ and the mean over images are the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Regulariser(nn.Module):
    """Base of every regulariser. A subclass gives `forward`."""

    forward: Callable[[Tensor, Tensor], Tensor]
    """(log π_θ [B, C] with gradient, log π_ref [B, C] without) → divergence in nats: [B]."""


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ_y p(y) (log p(y) − log q(y)), in nats.

    Args:
        log_p: [B, C] natural log.
        log_q: [B, C] natural log.

    Returns:
        [B].
    """
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


class ForwardKL(Regulariser):
    """KL(π_ref ‖ π_θ): the policy may not lose any text that the reference finds likely.

    With frozen text features T its gradient is ∂/∂I = τ (μ_θ − μ_ref), μ = Σ_y π(y|x) T(y): it
    holds the mean text where it was. The L_reg of arXiv 2411.08923.
    """

    def forward(self, policy: Tensor, reference: Tensor) -> Tensor:
        """Log-probabilities [B, C], [B, C] → nats [B]."""
        return kl(reference, policy)


class ReverseKL(Regulariser):
    """KL(π_θ ‖ π_ref): the policy may not take up any text that the reference finds unlikely.

    The penalty of RLHF (Rafailov et al. 2023, arXiv 2305.18290, eq. 3).
    """

    def forward(self, policy: Tensor, reference: Tensor) -> Tensor:
        """Log-probabilities [B, C], [B, C] → nats [B]."""
        return kl(policy, reference)


class JensenShannon(Regulariser):
    """½ KL(π_θ ‖ m) + ½ KL(π_ref ‖ m) with m = ½ (π_θ + π_ref): symmetric, at most log 2.

    Lin 1991, "Divergence measures based on the Shannon entropy", doi 10.1109/18.61115.
    """

    def forward(self, policy: Tensor, reference: Tensor) -> Tensor:
        """Log-probabilities [B, C], [B, C] → nats [B]."""
        mixture = torch.logaddexp(policy, reference) - math.log(2)
        return 0.5 * (kl(policy, mixture) + kl(reference, mixture))


class NoRegulariser(Regulariser):
    """0 everywhere: nothing holds the policy on the clean images."""

    def forward(self, policy: Tensor, reference: Tensor) -> Tensor:
        """Log-probabilities [B, C], [B, C] → zeros [B]."""
        return policy.new_zeros(len(policy))
