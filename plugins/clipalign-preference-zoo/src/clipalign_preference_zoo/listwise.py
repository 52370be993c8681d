"""Listwise: one chosen text against K rejected ones, of which the candidates hold plenty."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class ListwiseOptions(ObjectiveOptions):
    """Options of `listwise`."""

    beta: float = Field(
        0.1, gt=0, allow_inf_nan=False, description="β, how sharply the loss answers to a margin."
    )
    rejected: int | None = Field(
        None, ge=1, description="K, rejected texts an image; null for all other candidates."
    )


class Listwise(Objective):
    """Plackett–Luce DPO: the chosen text comes first of a list whose other K are not ordered.

        r(y) = β log π_θ(y|x)/π_ref(y|x)
        loss = −log [e^{r(y_w)} / (e^{r(y_w)} + Σ_{l=1..K} e^{r(y_l)})]

    A preference row names at most one rejected text. It is the first of the K; the others are the
    candidates that the reference finds likeliest for the image, without y_w: those that are most
    easily mistaken for it. For K = 1 and a row with a rejected text this is DPO.

    The Plackett–Luce model of Rafailov et al. 2023, arXiv 2305.18290, appendix A.3, with one place
    ranked; as a loss over several negatives Chen et al. 2024 (S-DPO), arXiv 2406.09215.

    Shapes: batch of [B, C] → [B]; log(1 + K) at π_θ = π_ref; 0 for a row without a chosen text.
    """

    Options = ListwiseOptions
    options: ListwiseOptions
    requires = "chosen"

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        r = self.options.beta * (batch.policy - batch.reference)
        listed = r.gather(1, self._list(batch))
        loss = listed.logsumexp(dim=1) - listed[:, 0]
        return loss.masked_fill(batch.chosen < 0, 0.0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """log(1 + K) where a text is chosen."""
        k = self._count(batch)
        return math.log(1 + k) * (batch.chosen >= 0).to(batch.policy.dtype)

    def _count(self, batch: PolicyBatch) -> int:
        """K, at most the C − 1 candidates that are not chosen."""
        others = batch.policy.shape[1] - 1
        return min(self.options.rejected or others, others)

    def _list(self, batch: PolicyBatch) -> Tensor:
        """The chosen text and its K rivals: [B, 1 + K] int64 into C."""
        first = batch.chosen.clamp(min=0).unsqueeze(1)
        rank = batch.reference.detach()
        named = batch.rejected.clamp(min=0).unsqueeze(1)
        there = (batch.rejected >= 0).unsqueeze(1)
        rank = torch.where(there, rank.scatter(1, named, torch.inf), rank)
        rank = rank.scatter(1, first, -torch.inf)
        return torch.cat([first, rank.topk(self._count(batch), dim=1).indices], dim=1)
