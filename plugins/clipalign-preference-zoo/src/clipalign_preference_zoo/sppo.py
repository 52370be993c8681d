"""SPPO: each text's log-ratio is drawn to a target of its own."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class SPPOOptions(ObjectiveOptions):
    """Options of `sppo`."""

    beta: float = Field(
        0.05,
        gt=0,
        allow_inf_nan=False,
        description="β; the targets of the two log-ratios are 1/(2β) and −1/(2β) nats.",
    )


class SPPO(Objective):
    """SPPO with certain judgements: a chosen text wins, a rejected one loses.

        r(y) = log π_θ(y|x)/π_ref(y|x)
        loss = (r(y_w) − 1/(2β))² + (r(y_l) + 1/(2β))²

    The paper regresses r(y) onto (P(y wins) − ½)/β, with P from a judge of pairs; here P is 1 and
    0. log π_θ(y_w|x) cannot exceed 0, so where the reference is nearly certain of y_w already the
    first target is out of reach and its gradient is what remains.

    Wu et al. 2024, arXiv 2405.00675, eq. 4.7 with P = 1 and 0.

    Shapes: batch of [B, C] → [B]; 1/(2β²) at π_θ = π_ref; 0 for a row without a pair.
    """

    Options = SPPOOptions
    options: SPPOOptions
    requires = "pair"
    regulariser_weight = 100.0  # squares of tens of nats outweigh a KL

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        target = 0.5 / self.options.beta
        win = (batch.log_ratio(batch.chosen) - target).square()
        loss = win + (batch.log_ratio(batch.rejected) + target).square()
        return loss.masked_fill(~batch.pairs, 0.0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """A loss of 1/(2β²) for each pair."""
        return batch.pairs.to(batch.policy.dtype) / (2 * self.options.beta**2)
