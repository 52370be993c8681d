"""Identity preference optimisation: a squared loss with a finite target margin."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from clipalign.objectives.base import Objective, ObjectiveOptions, PolicyBatch


class IPOOptions(ObjectiveOptions):
    """Options of `ipo`."""

    beta: float = Field(
        0.01,
        gt=0,
        allow_inf_nan=False,
        description="β sets the target margin 1/(2β) in nats; 0.01 asks for a margin of 50.",
    )


class IPO(Objective):
    """IPO: regress the margin h of the two log-ratios onto 1/(2β), and no further.

        h = log π_θ(y_w|x)/π_ref(y_w|x) − log π_θ(y_l|x)/π_ref(y_l|x)
        loss = (h − 1/(2β))²

    Unlike DPO the pull reverses once the margin is reached, so that certain judgements do not
    drive the policy without bound.

    Azar et al. 2023, arXiv 2310.12036, eq. 17, where β is called τ.

    Shapes: batch of [B, C] → [B]; 1/(4β²) at π_θ = π_ref; 0 for a row without a pair.
    """

    Options = IPOOptions
    options: IPOOptions
    requires = "pair"
    regulariser_weight = 10.0

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        h = batch.log_ratio(batch.chosen) - batch.log_ratio(batch.rejected)
        loss = (h - 1 / (2 * self.options.beta)).square()
        return loss.masked_fill(~batch.pairs, 0.0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """A loss of 1/(4β²) for each pair: h = 0."""
        return batch.pairs.to(batch.policy.dtype) / (4 * self.options.beta**2)
