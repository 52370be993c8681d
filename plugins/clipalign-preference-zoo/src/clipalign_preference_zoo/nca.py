"""NCA: a loss that also asks whether the chosen text itself became more likely."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class NCAOptions(ObjectiveOptions):
    """Options of `nca`."""

    beta: float = Field(0.2, gt=0, allow_inf_nan=False, description="β, the scale of both rewards.")


class NCA(Objective):
    """NCA for pairs: noise contrast on each text's absolute reward, not on their difference.

        r(y) = β log π_θ(y|x)/π_ref(y|x)
        loss = −log σ(r(y_w)) − ½ log σ(−r(y_w)) − ½ log σ(−r(y_l))

    A margin alone can grow while both texts lose probability; here the chosen text's reward has a
    target of its own (r = log 2, where r(y_w)'s two terms balance), so it rises.

    Chen et al. 2024, arXiv 2402.05369.

    Shapes: batch of [B, C] → [B]; 2 log 2 at π_θ = π_ref; 0 for a row without a pair.
    """

    Options = NCAOptions
    options: NCAOptions
    requires = "pair"

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        chosen = self.options.beta * batch.log_ratio(batch.chosen)
        rejected = self.options.beta * batch.log_ratio(batch.rejected)
        loss = -logsigmoid(chosen) - 0.5 * (logsigmoid(-chosen) + logsigmoid(-rejected))
        return loss.masked_fill(~batch.pairs, 0.0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """A loss of 2 log 2 for each pair."""
        return 2 * math.log(2) * batch.pairs.to(batch.policy.dtype)
