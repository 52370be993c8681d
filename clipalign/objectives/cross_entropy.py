"""Plain cross-entropy on the chosen text: the control to hold every preference method against."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from clipalign.objectives.base import Objective, ObjectiveOptions, PolicyBatch, gather


class CrossEntropyOptions(ObjectiveOptions):
    """Options of `cross-entropy`."""

    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="ε, the share of the target spread evenly over all candidates.",
    )


class CrossEntropy(Objective):
    """Supervised fine-tuning: it reads neither the rejected text nor the reference.

        loss = −(1 − ε) log π_θ(y_w|x) − (ε/C) Σ_y log π_θ(y|x)

    Smoothing: Szegedy et al. 2016, arXiv 1512.00567, §7.

    Shapes: batch of [B, C] → [B]; 0 for a row without a chosen text.
    """

    Options = CrossEntropyOptions
    options: CrossEntropyOptions
    requires = "chosen"
    regulariser_weight = 0.3
    needs_reference = False

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        smoothing = self.options.label_smoothing
        loss = -(1 - smoothing) * gather(batch.policy, batch.chosen)
        if smoothing:
            loss = loss - smoothing * batch.policy.mean(dim=1)
        return loss.masked_fill(batch.chosen < 0, 0.0)
