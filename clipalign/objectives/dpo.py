"""Direct preference optimisation, with the conservative label smoothing of cDPO."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipalign.objectives.base import Objective, ObjectiveOptions, PolicyBatch


class DPOOptions(ObjectiveOptions):
    """Options of `dpo`."""

    beta: float = Field(
        0.1,
        gt=0,
        allow_inf_nan=False,
        description="β, how sharply the loss answers to the margin: larger stays nearer π_ref.",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="ε, the share of judgements believed to be the wrong way round (cDPO).",
    )


class DPO(Objective):
    """DPO: a logistic loss on the margin h of the two log-ratios.

        h = log π_θ(y_w|x)/π_ref(y_w|x) − log π_θ(y_l|x)/π_ref(y_l|x)
        loss = −(1 − ε) log σ(βh) − ε log σ(−βh)

    The partition functions cancel in h, so the loss does not see the other candidates. With the
    text features T frozen, h = τ (T_w − T_l)·(I_θ − I_ref) (Lemma 3.1 of arXiv 2411.08923).

    Rafailov et al. 2023, arXiv 2305.18290, eq. 7; ε as in Mitchell, "A note on DPO with noisy
    preferences" (cDPO), 2023, eq. 3.

    Shapes: batch of [B, C] → [B]; log 2 at π_θ = π_ref; 0 for a row without a pair.
    """

    Options = DPOOptions
    options: DPOOptions
    requires = "pair"
    regulariser_weight = 0.1

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        beta, smoothing = self.options.beta, self.options.label_smoothing
        h = batch.log_ratio(batch.chosen) - batch.log_ratio(batch.rejected)
        loss = -(1 - smoothing) * logsigmoid(beta * h) - smoothing * logsigmoid(-beta * h)
        return loss.masked_fill(~batch.pairs, 0.0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """A loss of log 2 for each pair: h = 0, whatever β and ε."""
        return math.log(2) * batch.pairs.to(batch.policy.dtype)
