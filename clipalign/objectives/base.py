"""What an objective is: typed options and a pure function of log-probabilities.

Nothing here knows of images, models or files, so that an objective can be read beside its formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        reward: [B, C] reward of each candidate, where the task gives one (columns `reward_chosen`
            and `reward_rejected` of its rows; 0 for all other candidates); else None.
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

    def log_prob(self, index: Tensor) -> Tensor:
        """Log π_θ(y|x) at one candidate a row, for losses that read no reference.

        Args:
            index: [B] int64 into C; rows of −1 give 0 and no gradient.

        Returns:
            [B] natural log.
        """
        return gather(self.policy, index)

    @property
    def pairs(self) -> Tensor:
        """Rows with both a chosen and a rejected text: [B] bool."""
        return (self.chosen >= 0) & (self.rejected >= 0)

    @property
    def judged(self) -> Tensor:
        """Rows with a chosen or a rejected text: [B] bool."""
        return (self.chosen >= 0) | (self.rejected >= 0)

    def rewards(self, chosen: float, rejected: float) -> Tensor:
        """`reward` where the task gives one; else made of the judgements.

        Args:
            chosen: reward of the chosen text; every text that nobody judged is worth 0.
            rejected: reward of the rejected text.

        Returns:
            [B, C].
        """
        if self.reward is not None:
            return self.reward
        columns = torch.arange(self.policy.shape[1], device=self.policy.device)
        # An index of −1 equals no column, and so rewards nothing.
        is_chosen = (columns == self.chosen.unsqueeze(1)).to(self.policy.dtype)
        is_rejected = (columns == self.rejected.unsqueeze(1)).to(self.policy.dtype)
        return chosen * is_chosen + rejected * is_rejected


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
        takes_rewards: whether `batch.reward` is read. A set of which some rows have no reward is
            then refused, and else has none for all.
        per_image: True when an image's loss depends on that image alone, so that gradient
            accumulation and data parallelism are exact; False is refused where they are asked for.
        regulariser_weight: λ of a run that names none, found by trying; it weighs a mean KL against
            this loss, and so depends on how large its gradient is.
        exceptions: promises of `clipalign.testing.ObjectiveContract` that the formula itself
            breaks, by the name of the test, each with why; the contract checks that it does.

    What the loss learns from one step to the next lies in registered buffers, so that a resume is
    exact, and changes in training mode alone: validation puts the objective into evaluation mode.
    An objective that has a buffer is called once a step, with all rows of the batch, and refuses
    `train.accumulate`: one that counts its calls in training mode knows the step. Without buffers
    it may be called with parts of the batch.
    """

    Options: ClassVar[type[ObjectiveOptions]] = ObjectiveOptions
    requires: Literal["pair", "chosen", "any"] = "pair"
    needs_reference: bool = True
    takes_rewards: bool = False
    per_image: bool = True
    regulariser_weight: float = 1.0
    exceptions: ClassVar[Mapping[str, str]] = {}

    forward: Callable[[PolicyBatch], Tensor]
    """PolicyBatch → per-image loss, unreduced: [B]."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = self.Options(**options)

    def initial_value(self, batch: PolicyBatch) -> Tensor | None:
        """The loss [B] that the formula gives when π_θ = π_ref, or None where it is not known.

        Only a loss that reads no reference may leave it unknown: the contract asks the others.

        The first training step compares it, in evaluation mode, with what `forward` returns of
        the reference in place of the policy, so that a wrong formula is caught before any step is
        taken.
        """
        return None

    def frozen_at(self, batch: PolicyBatch) -> Callable[[PolicyBatch], Tensor]:
        """The function whose gradient at `batch` is that of `forward`.

        `forward` itself, unless a stop-gradient in the formula holds some part still: override
        this to return the loss with that part as it is at `batch`. For gradient checks.
        """
        return self
