"""Every objective of the zoo keeps clipalign's contract, with its defaults and away from them."""

from __future__ import annotations

import pytest
from clipalign_preference_zoo import OBJECTIVES

import clipalign
from clipalign import Objective
from clipalign.testing import ObjectiveContract


class TestContract(ObjectiveContract):
    cases = (
        *OBJECTIVES,
        ("robust", {"beta": 1.5, "flipped": 0.3}),
        ("hinge", {"beta": 2.0}),
        ("exo", {"beta": 1.0, "label_smoothing": 0.2}),
        ("bco", {"beta": 2.0}),
        ("cpo", {"beta": 1.0, "alpha": 0.0}),
        ("orpo", {"odds_weight": 2.0}),
        ("f-dpo", {"divergence": "forward-kl", "beta": 1.0}),
        ("f-dpo", {"divergence": "alpha", "alpha": 0.3, "beta": 1.0}),
        ("f-dpo", {"divergence": "reverse-kl"}),
        ("listwise", {"rejected": 1}),
        ("listwise", {"rejected": 3, "beta": 1.0}),
        ("soft-dpo", {"form": "geometric"}),
        ("soft-dpo", {"confidence": 1.0}),
        ("ppo-clip", {"clip": None, "beta": 1.0}),
    )


class TestContractOfASumWithState(ObjectiveContract):
    @pytest.fixture
    def objective(self) -> Objective:
        return clipalign.objective([{"bco": {"weight": 0.5, "beta": 1.0}}, {"sppo": {}}])
