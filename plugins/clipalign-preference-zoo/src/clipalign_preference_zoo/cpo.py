"""CPO: contrast without a reference, and likelihood of the chosen text in its place."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class CPOOptions(ObjectiveOptions):
    """Options of `cpo`."""

    beta: float = Field(
        0.1, gt=0, allow_inf_nan=False, description="β, how sharply the loss answers to the odds."
    )
    alpha: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="α, the share of the chosen text's likelihood."
    )


class CPO(Objective):
    """CPO: DPO under a reference that finds all texts alike, plus cross-entropy.

        loss = −log σ(β (log π_θ(y_w|x) − log π_θ(y_l|x))) − α log π_θ(y_w|x)

    What holds the policy is the second term, which knows the data and not the model it started
    from.

    Xu et al. 2024, arXiv 2401.08417.

    Shapes: batch of [B, C] → [B]; 0 for a row without a pair. `batch.reference` is not read.
    """

    Options = CPOOptions
    options: CPOOptions
    requires = "pair"
    needs_reference = False

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        chosen, rejected = batch.log_prob(batch.chosen), batch.log_prob(batch.rejected)
        loss = -logsigmoid(self.options.beta * (chosen - rejected)) - self.options.alpha * chosen
        return loss.masked_fill(~batch.pairs, 0.0)
