"""Every registered objective, third-party ones included, keeps the contract."""

from __future__ import annotations

import pytest

from clipalign.build import objective as build
from clipalign.objectives import Objective
from clipalign.plugins import registry
from clipalign.testing import ObjectiveContract


class TestContract(ObjectiveContract):
    cases = (
        *registry("objectives").names(),
        ("dpo", {"beta": 0.1, "label_smoothing": 0.2}),
        ("ipo", {"beta": 0.05}),
        ("kto", {"beta": 0.5, "desirable_weight": 1.3, "undesirable_weight": 0.7}),
        ("rlhf", {"beta": 1.0, "reward_chosen": 2.0, "reward_rejected": -0.5}),
        ("cross-entropy", {"label_smoothing": 0.3}),
    )


class TestContractOfASum(ObjectiveContract):
    @pytest.fixture
    def objective(self) -> Objective:
        return build([{"dpo": {"weight": 0.7, "beta": 0.5}}, {"kto": {"weight": 0.3}}, "ipo"])
