"""SimPO: preference optimisation without a reference model."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class SimPOOptions(ObjectiveOptions):
    """Options of `simpo`."""

    beta: float = Field(
        2.0, gt=0, allow_inf_nan=False, description="β, the scale of the implicit reward."
    )
    gamma: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="γ, the margin by which the chosen text's reward must lead.",
    )


class SimPO(Objective):
    """SimPO: a logistic loss on the policy's own log-odds of the pair, less a target margin.

        loss = −log σ(β (log π_θ(y_w|x) − log π_θ(y_l|x)) − γ)

    The paper divides each log-probability by the length of its text; here a text is one action of
    a one-step policy, so its length is 1.

    Meng et al. 2024, arXiv 2405.14734, eq. 6.

    Shapes: batch of [B, C] → [B]; 0 for a row without a pair. `batch.reference` is not read.
    """

    Options = SimPOOptions
    options: SimPOOptions
    requires = "pair"
    needs_reference = False

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        log_odds = batch.log_prob(batch.chosen) - batch.log_prob(batch.rejected)
        loss = -logsigmoid(self.options.beta * log_odds - self.options.gamma)
        return loss.masked_fill(~batch.pairs, 0.0)
