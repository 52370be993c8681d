"""EXO: the divergence from the policy's preference to the judgement's, and not the other way."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class EXOOptions(ObjectiveOptions):
    """Options of `exo`."""

    beta: float = Field(
        0.1, gt=0, allow_inf_nan=False, description="β, how sharply the loss answers to h."
    )
    label_smoothing: float = Field(
        0.01,
        gt=0,
        lt=0.5,
        description="ε, what the judgement leaves to the rejected text; the target margin is "
        "log((1 − ε)/ε)/β nats.",
    )


class EXO(Objective):
    """EXO for pairs: reverse KL between the policy's preference p and the judgement's, 1 − ε.

        h = log π_θ(y_w|x)/π_ref(y_w|x) − log π_θ(y_l|x)/π_ref(y_l|x),  p = σ(βh)
        loss = p (log p − log(1 − ε)) + (1 − p) (log(1 − p) − log ε)

    DPO with label smoothing is the forward KL of the same two distributions; this one settles on
    the margin at which p = 1 − ε and is 0 there. ε = 0 would make it infinite.

    Ji et al. 2024, arXiv 2402.00856, eq. 16.

    Shapes: batch of [B, C] → [B]; −log 2 − ½ log(ε(1 − ε)) at π_θ = π_ref; 0 for a row without a
    pair.
    """

    Options = EXOOptions
    options: EXOOptions
    requires = "pair"

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        epsilon = self.options.label_smoothing
        logit = self.options.beta * (
            batch.log_ratio(batch.chosen) - batch.log_ratio(batch.rejected)
        )
        loss = logit.sigmoid() * (logsigmoid(logit) - math.log(1 - epsilon))
        loss = loss + (-logit).sigmoid() * (logsigmoid(-logit) - math.log(epsilon))
        return loss.masked_fill(~batch.pairs, 0.0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """KL(½ ‖ 1 − ε) for each pair."""
        epsilon = self.options.label_smoothing
        value = -math.log(2) - 0.5 * math.log(epsilon * (1 - epsilon))
        return value * batch.pairs.to(batch.policy.dtype)
