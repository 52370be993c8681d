"""f-DPO: DPO whose policy is held to the reference by another divergence than reverse KL."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class FDPOOptions(ObjectiveOptions):
    """Options of `f-dpo`."""

    beta: float = Field(
        0.1, gt=0, allow_inf_nan=False, description="β, how sharply the loss answers to the margin."
    )
    divergence: Literal["forward-kl", "js", "alpha", "reverse-kl"] = Field(
        "js", description="What holds the policy to the reference; reverse-kl is DPO itself."
    )
    alpha: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="α of the α-divergence: towards 0 the reverse KL, towards 1 the forward KL.",
    )


class FDPO(Objective):
    """f-DPO: the implicit reward of a text is the derivative of f at its probability ratio.

        r(y) = log π_θ(y|x)/π_ref(y|x)
        f'(r) = −e^{−r} (forward KL),  log 2σ(r) (Jensen–Shannon),  (1 − e^{−αr})/α (α-divergence),
                r + 1 (reverse KL)
        loss = −log σ(β (f'(r(y_w)) − f'(r(y_l))))

    Constants cancel. Forward KL and α punish a chosen text that loses probability exponentially;
    Jensen–Shannon stops paying for a chosen text that gains. Beyond a fall of e^{40} an exponential
    goes on as its tangent, so that loss and gradient stay finite.

    Wang et al. 2023, arXiv 2309.16240.

    Shapes: batch of [B, C] → [B]; log 2 at π_θ = π_ref; 0 for a row without a pair.
    """

    Options = FDPOOptions
    options: FDPOOptions
    requires = "pair"

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        margin = self._slope(batch.log_ratio(batch.chosen)) - self._slope(
            batch.log_ratio(batch.rejected)
        )
        return -logsigmoid(self.options.beta * margin).masked_fill(~batch.pairs, 0.0)

    def initial_value(self, batch: PolicyBatch) -> Tensor:
        """A loss of log 2 for each pair."""
        return math.log(2) * batch.pairs.to(batch.policy.dtype)

    def _slope(self, r: Tensor) -> Tensor:
        """F' less its constant, at log-ratios [B]."""
        match self.options.divergence:
            case "forward-kl":
                return -_exp(-r)
            case "js":
                return logsigmoid(r)
            case "alpha":
                return -_exp(-self.options.alpha * r) / self.options.alpha
            case "reverse-kl":
                return r


_LARGEST = 40.0  # e^{40} ≈ 2e17 leaves room for β and for sums in float32


def _exp(x: Tensor) -> Tensor:
    """e^x, and its tangent beyond x = 40."""
    return x.clamp(max=_LARGEST).exp() + math.exp(_LARGEST) * (x - _LARGEST).relu()
