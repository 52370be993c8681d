"""ORPO: cross-entropy with an odds ratio beside it, and no reference."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipalign import Objective, ObjectiveOptions, PolicyBatch


class ORPOOptions(ObjectiveOptions):
    """Options of `orpo`."""

    odds_weight: float = Field(
        0.1, gt=0, allow_inf_nan=False, description="λ, the share of the odds ratio in the loss."
    )


class ORPO(Objective):
    """ORPO: likelihood of the chosen text, and its odds above those of the rejected one.

        odds(y) = π_θ(y|x) / (1 − π_θ(y|x))
        loss = −log π_θ(y_w|x) − λ log σ(log odds(y_w) − log odds(y_l))

    The candidates are finite, so log(1 − π(y)) is the log-sum of all other candidates: exact also
    where π(y) rounds to 1, which a model that is sure of what it sees reaches at once.

    Hong et al. 2024, arXiv 2403.07691, eqs. 4 and 7.

    Shapes: batch of [B, C] → [B]; 0 for a row without a pair. `batch.reference` is not read.
    """

    Options = ORPOOptions
    options: ORPOOptions
    requires = "pair"
    needs_reference = False

    def forward(self, batch: PolicyBatch) -> Tensor:
        """PolicyBatch → per-image loss [B]."""
        chosen, rejected = batch.log_prob(batch.chosen), batch.log_prob(batch.rejected)
        odds = chosen - _others(batch.policy, batch.chosen)
        odds = odds - (rejected - _others(batch.policy, batch.rejected))
        loss = -chosen - self.options.odds_weight * logsigmoid(odds)
        return loss.masked_fill(~batch.pairs, 0.0)


def _others(logp: Tensor, index: Tensor) -> Tensor:
    """log(1 − π(y)) of one candidate a row.

    Args:
        logp: [B, C] log-probabilities, C ≥ 2.
        index: [B] y; any candidate where it is −1.

    Returns:
        [B].
    """
    here = torch.zeros_like(logp, dtype=torch.bool)
    here = here.scatter(1, index.clamp(min=0).unsqueeze(1), True)
    return logp.masked_fill(here, -torch.inf).logsumexp(dim=1)
