"""Batches to try an objective on."""

from __future__ import annotations

import torch
from torch import Tensor

from clipalign.objectives import PolicyBatch

B, C = 6, 5


def judged_batch(
    requires: str, *, size: int = B, dtype: torch.dtype = torch.float64, seed: int = 7
) -> PolicyBatch:
    """A batch with the judgements that an objective asks for, its policy away from its reference.

    Args:
        requires: as `Objective.requires`. "any" mixes pairs, lone chosen and lone rejected texts;
            "chosen" leaves out half the rejected.
        size: B, rows; there are 5 candidate texts.
        dtype: of the log-probabilities.
        seed: of everything.
    """
    generator = torch.Generator().manual_seed(seed)
    policy = torch.randn(size, C, generator=generator, dtype=dtype).log_softmax(1)
    reference = torch.randn(size, C, generator=generator, dtype=dtype).log_softmax(1)
    chosen = torch.randint(C, (size,), generator=generator)
    rejected = (chosen + 1 + torch.randint(C - 1, (size,), generator=generator)) % C
    row = torch.arange(size)
    if requires == "any":
        rejected = torch.where(row % 3 == 1, -1, rejected)
        chosen = torch.where(row % 3 == 2, -1, chosen)
    if requires == "chosen":
        rejected = torch.where(row % 2 == 1, -1, rejected)
    return PolicyBatch(policy, reference, chosen, rejected)


def with_policy(batch: PolicyBatch, logits: Tensor, reference: Tensor | None = None) -> PolicyBatch:
    """The same judgements under the policy softmax(logits), [B, C]."""
    return PolicyBatch(
        logits.log_softmax(1),
        batch.reference if reference is None else reference,
        batch.chosen,
        batch.rejected,
        batch.reward,
    )


def rows(batch: PolicyBatch, index: Tensor | slice) -> PolicyBatch:
    """Some rows of a batch, in the order given."""
    return PolicyBatch(
        batch.policy[index],
        batch.reference[index],
        batch.chosen[index],
        batch.rejected[index],
        None if batch.reward is None else batch.reward[index],
    )
