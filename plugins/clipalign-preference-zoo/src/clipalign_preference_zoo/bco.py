"""BCO: judgements as the labels of a binary classifier whose logit is the reward."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class BCOOptions(ObjectiveOptions):
    """Options of `bco`."""

    beta: float = Field(0.5, gt=0, allow_inf_nan=False, description="β, the scale of the rewards.")


class BCO(Objective):
    """BCO: is a text desirable? The classifier's threshold follows the rewards seen so far.

        r(y) = β log π_θ(y|x)/π_ref(y|x)
        δ = mean of all rewards of the steps before this one, without gradient
        loss = −log σ(r(y_w) − δ) − log σ(−(r(y_l) − δ))

    Each text that is there adds its term, so paired and unpaired judgements mix freely. δ is a
    running mean in a buffer: it is part of every checkpoint, starts at 0, which is the mean reward
    of the reference, and is the same for all images of a step. A step changes it, so cutting a
    batch into parts would change the loss: `per_image` is False.

    Jung et al. 2024, arXiv 2404.04656, without its weights for unequal prompts, which need an
    encoder of prompts.

    Shapes: batch of [B, C] → [B]; log 2 for each text that is there at π_θ = π_ref and δ = 0.
    """

    Options = BCOOptions
    options: BCOOptions
    requires = "any"
    per_image = False

    threshold: Tensor
    """δ, a number."""
    seen: Tensor
    """Rewards that δ is the mean of, a count."""

    def __init__(self, **options: float) -> None:
        super().__init__(**options)
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        chosen = self.options.beta * batch.log_ratio(batch.chosen)
        rejected = self.options.beta * batch.log_ratio(batch.rejected)
        delta = self.threshold.clone()
        if self.training:
            self._update(
                torch.cat([chosen[batch.chosen >= 0], rejected[batch.rejected >= 0]]).detach()
            )
        desirable = -logsigmoid(chosen - delta)
        undesirable = -logsigmoid(delta - rejected)
        return desirable.masked_fill(batch.chosen < 0, 0.0) + undesirable.masked_fill(
            batch.rejected < 0, 0.0
        )

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """−log σ(−δ) where a text is chosen and −log σ(δ) where one is rejected."""
        delta = self.threshold.to(batch.policy.dtype)
        chosen = -logsigmoid(-delta) * (batch.chosen >= 0)
        return chosen - logsigmoid(delta) * (batch.rejected >= 0)

    def _update(self, rewards: Tensor) -> None:
        """Take rewards [n] into the running mean."""
        self.seen += len(rewards)
        if len(rewards):
            self.threshold += (rewards.mean() - self.threshold) * (len(rewards) / self.seen)
