"""APO-zero: anchored preference optimisation, for chosen texts better than the model's own."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class APOZeroOptions(ObjectiveOptions):
    """Options of `apo-zero`."""

    beta: float = Field(
        0.5, gt=0, allow_inf_nan=False, description="β, how soon a gain or a loss saturates."
    )


class APOZero(Objective):
    """APO-zero: the chosen text becomes likelier than it was, the rejected one less likely.

        r(y) = β log π_θ(y|x)/π_ref(y|x)
        loss = 1 − σ(r(y_w)) + σ(r(y_l))

    Both are anchored at the reference, where DPO would accept that both fall. It is KTO with its
    reference point z0 held at 0, and like it takes judgements of single texts.

    D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7.

    Shapes: batch of [B, C] → [B]; ½ for each text that is there at π_θ = π_ref.
    """

    Options = APOZeroOptions
    options: APOZeroOptions
    requires = "any"

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        # 1 − σ(a) is written σ(−a), which keeps its digits where σ(a) is near 1.
        chosen = (-self.options.beta * batch.log_ratio(batch.chosen)).sigmoid()
        rejected = (self.options.beta * batch.log_ratio(batch.rejected)).sigmoid()
        return chosen.masked_fill(batch.chosen < 0, 0.0) + rejected.masked_fill(
            batch.rejected < 0, 0.0
        )

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """½ for each text that is there."""
        texts = (batch.chosen >= 0).to(batch.policy.dtype) + (batch.rejected >= 0)
        return 0.5 * texts
