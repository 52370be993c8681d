"""Robust DPO: unbiased when a known share of the judgements is the wrong way round."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class RobustOptions(ObjectiveOptions):
    """Options of `robust`."""

    beta: float = Field(
        0.1, gt=0, allow_inf_nan=False, description="β, how sharply the loss answers to h."
    )
    flipped: float = Field(
        0.1, ge=0, lt=0.5, description="ε, the share of judgements that are the wrong way round."
    )


class Robust(Objective):
    """Robust DPO: the mean of this loss over flipped judgements is the DPO loss over clean ones.

        h = log π_θ(y_w|x)/π_ref(y_w|x) − log π_θ(y_l|x)/π_ref(y_l|x)
        loss = [−(1 − ε) log σ(βh) + ε log σ(−βh)] / (1 − 2ε)

    It differs from cDPO (option `label_smoothing` of `dpo`) in the sign of the second term: it
    corrects for the noise, where cDPO learns to be as unsure as the judgements are. It is not
    bounded from below, so a large margin is always worth more.

    Ray Chowdhury et al. 2024, arXiv 2403.00409.

    Shapes: batch of [B, C] → [B]; log 2 at π_θ = π_ref; 0 for a row without a pair.
    """

    Options = RobustOptions
    options: RobustOptions
    requires = "pair"

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        beta, flipped = self.options.beta, self.options.flipped
        h = batch.log_ratio(batch.chosen) - batch.log_ratio(batch.rejected)
        loss = flipped * logsigmoid(-beta * h) - (1 - flipped) * logsigmoid(beta * h)
        return (loss / (1 - 2 * flipped)).masked_fill(~batch.pairs, 0.0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """A loss of log 2 for each pair, whatever β and ε."""
        return math.log(2) * batch.pairs.to(batch.policy.dtype)
