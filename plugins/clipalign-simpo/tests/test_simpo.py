"""SimPO arrives in clipalign by being installed, and computes its formula."""

from __future__ import annotations

import math

import pytest
import torch

import clipalign
from clipalign import PolicyBatch
from clipalign.testing import ObjectiveContract


class TestContract(ObjectiveContract):
    """What clipalign asks of every objective: `pytest --clipalign-objective simpo` runs it too."""

    cases = ("simpo", ("simpo", {"beta": 0.5, "gamma": 0.0}))


@pytest.fixture
def batch() -> PolicyBatch:
    policy = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]]).double().log()
    return PolicyBatch(
        policy=policy.requires_grad_(),
        reference=torch.full_like(policy, torch.nan),  # never read
        chosen=torch.tensor([0, 1, -1]),
        rejected=torch.tensor([1, 2, -1]),
    )


def test_it_is_built_by_name_and_has_the_papers_value(batch: PolicyBatch) -> None:
    loss = clipalign.objective("simpo", beta=2.0, gamma=1.0)(batch)

    def simpo(chosen: float, rejected: float) -> float:
        margin = 2.0 * (math.log(chosen) - math.log(rejected)) - 1.0
        return math.log(1 + math.exp(-margin))

    assert loss.tolist() == pytest.approx([simpo(0.5, 0.3), simpo(0.1, 0.8), 0.0])


def test_it_favours_the_chosen_text_and_leaves_unjudged_rows_alone(batch: PolicyBatch) -> None:
    clipalign.objective("simpo")(batch).sum().backward()
    assert batch.policy.grad is not None
    assert batch.policy.grad[0].sign().tolist() == [-1, 1, 0]
    assert batch.policy.grad[2].tolist() == [0, 0, 0]


def test_a_wider_margin_asks_for_more(batch: PolicyBatch) -> None:
    lenient = clipalign.objective("simpo", gamma=0.0)(batch)
    strict = clipalign.objective("simpo", gamma=2.0)(batch)
    assert (strict[:2] > lenient[:2]).all()


def test_misspelt_and_impossible_options_are_refused() -> None:
    with pytest.raises(clipalign.ConfigError, match="gamma"):
        clipalign.objective("simpo", gama=1.0, beta=-1)
