"""AOT: the distribution of margins over a batch is moved, not each margin by itself."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class AOTOptions(ObjectiveOptions):
    """Options of `aot`."""

    beta: float = Field(
        0.1, gt=0, allow_inf_nan=False, description="β, how sharply the loss answers to a gap."
    )


class AOT(Objective):
    """AOT for pairs: each quantile of the policy's margins above the same of the reference's.

        Δ_θ = log π_θ(y_w|x) − log π_θ(y_l|x),  Δ_ref likewise
        loss = −log σ(β (Δ_θ(i) − Δ_ref(i))),  both sorted over the batch, i the rank

    First-order stochastic dominance of one set of margins over the other; sorting is the optimal
    transport in one dimension. The loss of rank i is given to the image whose Δ_θ has that rank.
    Images are compared with one another, so `per_image` is False and larger batches say more.

    Melnyk et al. 2024, arXiv 2406.05882.

    Shapes: batch of [B, C] → [B]; log 2 at π_θ = π_ref; 0 for a row without a pair.
    """

    Options = AOTOptions
    options: AOTOptions
    requires = "pair"
    per_image = False

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        paired = batch.pairs.nonzero().squeeze(1)
        margin = (batch.log_prob(batch.chosen) - batch.log_prob(batch.rejected))[paired]
        r = batch.log_ratio(batch.chosen) - batch.log_ratio(batch.rejected)
        reference = (margin - r[paired]).detach()
        ordered, rank = margin.sort(stable=True)
        loss = -logsigmoid(self.options.beta * (ordered - reference.sort().values))
        return torch.zeros_like(r).index_put((paired[rank],), loss)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """A loss of log 2 for each pair."""
        return math.log(2) * batch.pairs.to(batch.policy.dtype)
