"""What an objective is: typed options and a pure function of log-probabilities.

Nothing here knows of images, models or files, so that an objective can be read beside its formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class PolicyBatch:
    """What an objective sees: one row an image, one column a candidate text.

    Attributes:
        policy: [B, C] natural-log π_θ(y|x) over the C candidate texts, with gradient.
        reference: [B, C] natural-log π_ref(y|x), without gradient.
        chosen: [B] int64 index into C of the preferred text, −1 where there is none.
        rejected: [B] int64 index into C of the dispreferred text, −1 where there is none.
        reward: [B, C] reward of each candidate, where the task gives one; else None.
    """

    policy: Tensor
    reference: Tensor
    chosen: Tensor
    rejected: Tensor
    reward: Tensor | None = None

    def log_ratio(self, index: Tensor) -> Tensor:
        """r(y) = log π_θ(y|x) − log π_ref(y|x) at one candidate a row.

        Args:
            index: [B] int64 into C; rows of −1 give 0 and no gradient.

        Returns:
            [B] natural log.
        """
        return gather(self.policy, index) - gather(self.reference, index)


def gather(logp: Tensor, index: Tensor) -> Tensor:
    """Pick logp[i, index[i]]; rows whose index is −1 give 0 and pass no gradient.

    Args:
        logp: [B, C].
        index: [B] int64, −1 for none.

    Returns:
        [B].
    """
    there = index >= 0
    picked = logp.gather(1, index.clamp(min=0).unsqueeze(1)).squeeze(1)
    return torch.where(there, picked, torch.zeros_like(picked))


class ObjectiveOptions(BaseModel):
    """Base of every objective's options: frozen, documented fields, unknown names refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Objective(nn.Module):
    """Base of every objective. A subclass gives `Options`, `requires` and `forward`.

    Class attributes:
        Options: pydantic model of the objective's options; each field has a description.
        requires: what every preference row must have: "pair" (chosen and rejected), "chosen",
            or "any" (chosen, rejected or both: unpaired judgements are welcome).
        needs_reference: whether `batch.reference` is read.
        per_image: True when an image's loss depends on that image alone, so that gradient
            accumulation and data parallelism are exact; False is refused where they are asked for.
    """

    Options: ClassVar[type[ObjectiveOptions]] = ObjectiveOptions
    requires: ClassVar[Literal["pair", "chosen", "any"]] = "pair"
    needs_reference: ClassVar[bool] = True
    per_image: ClassVar[bool] = True

    forward: Callable[[PolicyBatch], Tensor]
    """PolicyBatch → per-image loss, unreduced: [B]."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = self.Options(**options)

    def initial_value(self, batch: PolicyBatch) -> Tensor | None:
        """The loss [B] that the formula gives when π_θ = π_ref, or None where it is not known.

        The first training step compares it with what `forward` returned, so that a reference
        that is not the starting point, or a mis-wired batch, is caught before any step is taken.
        """
        return None
