"""DiscoPOP: a loss that a language model found by searching through programs."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class DiscoPOPOptions(ObjectiveOptions):
    """Options of `discopop`."""

    beta: float = Field(
        0.1, gt=0, allow_inf_nan=False, description="β, how sharply the loss answers to h."
    )
    temperature: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Of the blend, in units of βh: below 1, or the exponential part is unbounded.",
    )


class DiscoPOP(Objective):
    """DiscoPOP, the log-ratio modulated loss: logistic below a margin of 0, exponential above it.

        h = log π_θ(y_w|x)/π_ref(y_w|x) − log π_θ(y_l|x)/π_ref(y_l|x)
        l = βh,  g = σ(l/temperature)
        loss = (1 − g) (−log σ(l)) + g e^{−l}

    It is not convex: just around l = 0, where training starts, it *rises* with the margin, since
    the blend moves from log 2 to 1 faster than either part falls. A first step from π_θ = π_ref is
    therefore against the judgements, and images on either side of the hump part ways.

    Lu et al. 2024, arXiv 2406.08414, eq. 5.

    Shapes: batch of [B, C] → [B]; ½ log 2 + ½ at π_θ = π_ref; 0 for a row without a pair.
    """

    Options = DiscoPOPOptions
    options: DiscoPOPOptions
    requires = "pair"
    exceptions = {  # noqa: RUF012
        "a_small_step_from_the_reference_obeys_every_judgement": "the formula has a hump at h = 0"
    }

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        h = batch.log_ratio(batch.chosen) - batch.log_ratio(batch.rejected)
        logit, temperature = self.options.beta * h, self.options.temperature
        logistic = (-logit / temperature).sigmoid() * -logsigmoid(logit)
        # g e^{−l} in one exponent: g alone would be 0 where e^{−l} is infinite
        exponential = (logsigmoid(logit / temperature) - logit).exp()
        return (logistic + exponential).masked_fill(~batch.pairs, 0.0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """½ log 2 + ½ for each pair."""
        return (0.5 * math.log(2) + 0.5) * batch.pairs.to(batch.policy.dtype)
