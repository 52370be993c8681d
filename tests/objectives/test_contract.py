"""Every registered objective, third-party ones included, keeps the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from clipalign.build import objective as build
from clipalign.objectives import Objective, PolicyBatch
from clipalign.objectives.kto import KTO
from clipalign.plugins import registry

from .contract import ObjectiveContract

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in registry("objectives").names()),
    ("dpo", {"beta": 0.1, "label_smoothing": 0.2}),
    ("ipo", {"beta": 0.05}),
    ("kto", {"beta": 0.5, "desirable_weight": 1.3, "undesirable_weight": 0.7}),
    ("rlhf", {"beta": 1.0, "reward_chosen": 2.0, "reward_rejected": -0.5}),
    ("cross-entropy", {"label_smoothing": 0.3}),
]


@pytest.fixture(params=CASES, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
def objective(request: pytest.FixtureRequest) -> Objective:
    name, options = request.param
    return build(name, **options)


class TestContract(ObjectiveContract):
    def differentiable(
        self, objective: Objective, batch: PolicyBatch
    ) -> Callable[[PolicyBatch], Tensor]:
        if isinstance(objective, KTO):
            z0 = objective.reference_point(batch)
            return lambda other: objective.loss(other, z0)
        return objective
