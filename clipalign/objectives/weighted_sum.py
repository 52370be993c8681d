"""A weighted sum of objectives, as a recipe's `objective` list asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from clipalign.objectives.base import Objective, PolicyBatch

_STRICTER: tuple[Literal["any", "chosen", "pair"], ...] = ("any", "chosen", "pair")


class WeightedSum(Objective):
    """Several objectives over the same batch.

        loss = Σ_k w_k loss_k

    It needs what any of its terms needs: the strictest of their judgements, the reference or
    rewards if one reads them; it is per image only if all are; its λ is theirs, weighted as
    they are. A row contributes to the terms that it can feed.

    Args:
        terms: weight w_k > 0 and objective of each.

    Shapes: batch of [B, C] → [B].
    """

    exceptions: ClassVar[Mapping[str, str]] = {
        "docstring_has_formula_and_paper": "a sum has no paper of its own"
    }

    def __init__(self, terms: Sequence[tuple[float, Objective]]) -> None:
        super().__init__()
        self.weights = tuple(weight for weight, _ in terms)
        self.terms = tuple(term for _, term in terms)
        self.registered = nn.ModuleList(self.terms)  # their buffers are saved and moved with it
        self.requires = max((t.requires for t in self.terms), key=_STRICTER.index)
        self.needs_reference = any(t.needs_reference for t in self.terms)
        self.takes_rewards = any(t.takes_rewards for t in self.terms)
        self.per_image = all(t.per_image for t in self.terms)
        self.regulariser_weight = sum(w * t.regulariser_weight for w, t in terms)

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        return self._total([term(batch) for term in self.terms])

    def initial_value(self, batch: PolicyBatch) -> Tensor | None:
        """The sum of the terms' values, where all know theirs."""
        values = [term.initial_value(batch) for term in self.terms]
        known = [value for value in values if value is not None]
        return self._total(known) if len(known) == len(values) else None

    def frozen_at(self, batch: PolicyBatch) -> Callable[[PolicyBatch], Tensor]:
        """The sum of the terms, each frozen at `batch`."""
        parts = [term.frozen_at(batch) for term in self.terms]
        return lambda other: self._total([part(other) for part in parts])

    def _total(self, losses: Sequence[Tensor]) -> Tensor:
        weighted = [w * loss for w, loss in zip(self.weights, losses, strict=True)]
        return torch.stack(weighted).sum(dim=0)
