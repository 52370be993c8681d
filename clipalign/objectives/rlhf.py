"""Reinforcement learning from feedback, exact: candidates are finite, so nothing is sampled."""

from __future__ import annotations

from pydantic import Field, model_validator
from torch import Tensor

from clipalign.objectives.base import Objective, ObjectiveOptions, PolicyBatch


class RLHFOptions(ObjectiveOptions):
    """Options of `rlhf`."""

    beta: float = Field(
        0.1,
        gt=0,
        allow_inf_nan=False,
        description="β, the price of a nat of KL(π_θ ‖ π_ref), in units of reward.",
    )
    reward_chosen: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="Reward of the chosen text, where the task gives no reward of its own.",
    )
    reward_rejected: float = Field(
        -1.0,
        le=0,
        allow_inf_nan=False,
        description="Reward of the rejected text, likewise; every other candidate is worth 0.",
    )

    # The bounds keep a rejected text from being worth more than one that nobody judged (0).
    @model_validator(mode="after")
    def _chosen_is_worth_more(self) -> RLHFOptions:
        if self.reward_chosen == self.reward_rejected:
            raise ValueError("reward_chosen and reward_rejected are both 0: nothing is preferred")
        return self


class RLHF(Objective):
    """RLHF: expected reward less a price on leaving the reference, summed over all candidates.

        loss = −(Σ_y π_θ(y|x) r(y) − β KL(π_θ(·|x) ‖ π_ref(·|x)))

    The gradient is exact: no sampling, no critic, zero variance. With frozen text features T,

        −∂loss/∂I = τ Σ_y π_θ(y|x) A(y) T(y),  A = (r − β log π_θ/π_ref) − E_π[r − β log π_θ/π_ref]

    and the optimum is π*(y|x) = π_ref(y|x) e^{r(y)/β} / Z(x), where the loss is −β log Z(x).

    r is `batch.reward`, or else `reward_chosen` at y_w, `reward_rejected` at y_l and 0 elsewhere.

    The objective: Rafailov et al. 2023, arXiv 2305.18290, eq. 3, and its optimum, eq. 4; for CLIP
    arXiv 2411.08923.

    Shapes: batch of [B, C] → [B]; −Σ_y π_ref r at π_θ = π_ref; 0 for a row with no judgement.
    """

    Options = RLHFOptions
    options: RLHFOptions
    requires = "any"
    takes_rewards = True
    regulariser_weight = 0.3

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        advantage = self._reward(batch) - self.options.beta * (batch.policy - batch.reference)
        loss = -(batch.policy.exp() * advantage).sum(dim=1)
        return loss.masked_fill(~batch.judged, 0.0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """−Σ_y π_ref(y|x) r(y): the KL is 0."""
        loss = -(batch.reference.exp() * self._reward(batch)).sum(dim=1)
        return loss.masked_fill(~batch.judged, 0.0)

    def _reward(self, batch: PolicyBatch) -> Tensor:
        """The reward of each candidate: [B, C]."""
        return batch.rewards(self.options.reward_chosen, self.options.reward_rejected)
