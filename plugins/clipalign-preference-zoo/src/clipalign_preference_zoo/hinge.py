"""Hinge (SLiC): a pair that is far enough apart is left alone."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class HingeOptions(ObjectiveOptions):
    """Options of `hinge`."""

    beta: float = Field(
        0.1,
        gt=0,
        allow_inf_nan=False,
        description="β; beyond a margin of 1/β nats a pair has no gradient.",
    )


class Hinge(Objective):
    """Hinge: a linear pull until the margin of the two log-ratios is 1/β, and none beyond it.

        h = log π_θ(y_w|x)/π_ref(y_w|x) − log π_θ(y_l|x)/π_ref(y_l|x)
        loss = max(0, 1 − βh)

    Zhao et al. 2023 (SLiC-HF), arXiv 2305.10425, whose margin is one of log-probabilities; taken
    relative to π_ref as in Liu et al. 2023 (RSO), arXiv 2309.06657.

    Shapes: batch of [B, C] → [B]; 1 at π_θ = π_ref; 0 for a row without a pair.
    """

    Options = HingeOptions
    options: HingeOptions
    requires = "pair"

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        h = batch.log_ratio(batch.chosen) - batch.log_ratio(batch.rejected)
        return (1 - self.options.beta * h).relu().masked_fill(~batch.pairs, 0.0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """A loss of 1 for each pair."""
        return batch.pairs.to(batch.policy.dtype)
