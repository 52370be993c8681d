"""DPO with soft labels: a judgement is held with a probability."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class SoftDPOOptions(ObjectiveOptions):
    """Options of `soft-dpo`."""

    beta: float = Field(
        0.1, gt=0, allow_inf_nan=False, description="β, how sharply the loss answers to h."
    )
    confidence: float = Field(
        0.9,
        gt=0.5,
        le=1,
        description="p̂ of every judgement, where the task gives no reward to take it from.",
    )
    temperature: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="Reward that makes a judgement e times as likely as its opposite.",
    )
    form: Literal["linear", "geometric"] = Field(
        "linear", description="How p̂ enters: as weights of both orders, or as a smaller margin."
    )


class SoftDPO(Objective):
    """Soft-label DPO: p̂ is the probability that y_w really is preferred to y_l.

        h = log π_θ(y_w|x)/π_ref(y_w|x) − log π_θ(y_l|x)/π_ref(y_l|x)
        p̂ = σ((reward(y_w) − reward(y_l))/temperature), or `confidence`
        loss = −p̂ log σ(βh) − (1 − p̂) log σ(−βh)      linear
        loss = −log σ(β(2p̂ − 1)h)                      geometric

    With one confidence for all, the linear form is cDPO with ε = 1 − p̂: rewards that differ from
    image to image are what this objective is for. The geometric form lets go of a pair that nobody
    is sure of, where the linear one draws its margin to 0.

    Furuta et al. 2024, arXiv 2409.06691.

    Shapes: batch of [B, C] → [B]; log 2 at π_θ = π_ref; 0 for a row without a pair.
    """

    Options = SoftDPOOptions
    options: SoftDPOOptions
    requires = "pair"
    takes_rewards = True

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        logit = self.options.beta * (
            batch.log_ratio(batch.chosen) - batch.log_ratio(batch.rejected)
        )
        sure = self._confidence(batch)
        if self.options.form == "geometric":
            loss = -logsigmoid((2 * sure - 1) * logit)
        else:
            loss = -sure * logsigmoid(logit) - (1 - sure) * logsigmoid(-logit)
        return loss.masked_fill(~batch.pairs, 0.0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """A loss of log 2 for each pair."""
        return math.log(2) * batch.pairs.to(batch.policy.dtype)

    def _confidence(self, batch: PolicyBatch) -> Tensor:
        """p̂ of each row: [B]."""
        if batch.reward is None:
            return torch.full_like(batch.policy[:, 0], self.options.confidence)
        rewards = [
            batch.reward.gather(1, index.clamp(min=0).unsqueeze(1)).squeeze(1)
            for index in (batch.chosen, batch.rejected)
        ]
        return ((rewards[0] - rewards[1]) / self.options.temperature).sigmoid()
