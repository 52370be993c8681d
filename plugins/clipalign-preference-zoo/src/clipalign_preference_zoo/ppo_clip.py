"""PPO's clipped surrogate, summed over all candidates instead of sampled."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class PPOClipOptions(ObjectiveOptions):
    """Options of `ppo-clip`."""

    clip: float | None = Field(
        0.2,
        gt=0,
        allow_inf_nan=False,
        description="ε, how far π_θ/π_ref may leave 1 with profit; null for no clip.",
    )
    beta: float = Field(
        0.1,
        ge=0,
        allow_inf_nan=False,
        description="β, the price of a nat of KL(π_θ ‖ π_ref), in units of reward.",
    )
    reward_chosen: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="Reward of the chosen text, where the task gives no reward of its own.",
    )
    reward_rejected: float = Field(
        -1.0,
        lt=0,
        allow_inf_nan=False,
        description="Reward of the rejected text, likewise; every other candidate is worth 0.",
    )


class PPOClip(Objective):
    """PPO-clip with the reference as the policy that acted, in closed form.

        A(y) = r(y) − Σ_y' π_ref(y'|x) r(y'),  ρ(y) = π_θ(y|x)/π_ref(y|x)
        loss = −Σ_y π_ref(y|x) min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + β KL(π_θ(·|x) ‖ π_ref(·|x))

    PPO draws actions from an older policy and corrects by ρ. Here that policy is the reference,
    whose probabilities of all candidates are known, so the expectation is a sum, the baseline is
    exact and there is neither sampling nor critic. Without the clip it is the objective `rlhf` less
    a constant, with the same gradient everywhere; the clip takes the profit from moving any
    probability by more than the factor 1 ± ε, which is what there is to compare.

    Schulman et al. 2017, arXiv 1707.06347, eq. 7.

    Shapes: batch of [B, C] → [B]; 0 at π_θ = π_ref; 0 for a row with no judgement.
    """

    Options = PPOClipOptions
    options: PPOClipOptions
    requires = "any"
    takes_rewards = True

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        policy, reference = batch.policy.exp(), batch.reference.exp()
        reward = batch.rewards(self.options.reward_chosen, self.options.reward_rejected)
        advantage = reward - (reference * reward).sum(dim=1, keepdim=True)
        gain = policy * advantage  # π_ref ρ is π_θ: no ratio that could overflow is formed
        if (clip := self.options.clip) is not None:
            held = policy.clamp(min=(1 - clip) * reference, max=(1 + clip) * reference)
            gain = torch.minimum(gain, held * advantage)
        kl = (policy * (batch.policy - batch.reference)).sum(dim=1)
        loss = self.options.beta * kl - gain.sum(dim=1)
        return loss.masked_fill(~batch.judged, 0.0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """0: the mean advantage is 0 and so is the KL."""
        return torch.zeros_like(batch.policy[:, 0])
