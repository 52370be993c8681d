"""Kahneman–Tversky optimisation, with its reference point computed exactly for each image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from clipalign.objectives.base import Objective, ObjectiveOptions, PolicyBatch


class KTOOptions(ObjectiveOptions):
    """Options of `kto`."""

    beta: float = Field(
        0.5,
        gt=0,
        allow_inf_nan=False,
        description="β, how soon the value of a gain or a loss saturates.",
    )
    desirable_weight: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="λ_D, the weight of each chosen text."
    )
    undesirable_weight: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="λ_U, the weight of each rejected text; above λ_D it is loss aversion.",
    )


class KTO(Objective):
    """KTO: value each text against a reference point z0, saturating in gains and in losses.

        r(y) = log π_θ(y|x)/π_ref(y|x)
        z0 = stop-grad KL(π_θ(·|x) ‖ π_ref(·|x)) = Σ_y π_θ(y|x) r(y)
        loss = λ_D (1 − σ(β(r(y_w) − z0))) + λ_U (1 − σ(β(z0 − r(y_l))))

    Each text that is there adds its term, so paired and unpaired judgements mix freely. Language
    models must estimate z0 from mismatched pairs in the batch; here the candidates are finite and
    z0 is exact and belongs to its image, so a batch of 1, gradient accumulation and data
    parallelism all give the same gradient.

    Ethayarajh et al. 2024, arXiv 2402.01306, §4 (the KTO loss); for CLIP arXiv 2411.08923.

    Shapes: batch of [B, C] → [B]; ½λ_D + ½λ_U (of the texts that are there) at π_θ = π_ref.
    """

    Options = KTOOptions
    options: KTOOptions
    requires = "any"
    regulariser_weight = 0.4

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        return self.loss(batch, self.reference_point(batch))

    def reference_point(self, batch: PolicyBatch) -> Tensor:
        """z0 = KL(π_θ ‖ π_ref) over the candidates, in nats, without gradient: [B]."""
        with torch.no_grad():
            return (batch.policy.exp() * (batch.policy - batch.reference)).sum(dim=1)

    def loss(self, batch: PolicyBatch, z0: Tensor) -> Tensor:
        """The loss [B] about a given reference point z0 [B]."""
        beta = self.options.beta
        # 1 − σ(a) is written σ(−a): the difference would lose its digits where σ(a) is near 1.
        regret = torch.sigmoid(beta * (z0 - batch.log_ratio(batch.chosen)))
        relapse = torch.sigmoid(beta * (batch.log_ratio(batch.rejected) - z0))
        desirable = self.options.desirable_weight * regret
        undesirable = self.options.undesirable_weight * relapse
        return desirable.masked_fill(batch.chosen < 0, 0.0) + undesirable.masked_fill(
            batch.rejected < 0, 0.0
        )

    def frozen_at(self, batch: PolicyBatch) -> Callable[[PolicyBatch], Tensor]:
        """The loss about the reference point that `batch` has."""
        z0 = self.reference_point(batch)
        return lambda other: self.loss(other, z0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """½λ_D where a text is chosen plus ½λ_U where one is rejected: r = z0 = 0."""
        dtype = batch.policy.dtype
        return 0.5 * (
            self.options.desirable_weight * (batch.chosen >= 0).to(dtype)
            + self.options.undesirable_weight * (batch.rejected >= 0).to(dtype)
        )
