"""The learning rate, against its formula, and who is decayed."""

from __future__ import annotations

import math

import pytest
import torch

from clipalign.config import TrainConfig
from clipalign.training.optim import build_optimizer, rate_at


def test_cosine_falls_from_one_to_nearly_zero_and_is_half_half_way() -> None:
    config = TrainConfig(schedule="cosine")
    rates = [rate_at(step, 100, config) for step in range(100)]
    assert rates[0] == 1.0
    assert rates[50] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))
    assert rates == sorted(rates, reverse=True)


def test_warm_up_is_linear_and_reaches_one_before_the_schedule_begins() -> None:
    config = TrainConfig(schedule="constant", warmup_steps=4)
    assert [rate_at(s, 10, config) for s in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_warm_up_longer_than_the_training_never_exceeds_one() -> None:
    config = TrainConfig(warmup_steps=50)
    assert max(rate_at(s, 10, config) for s in range(10)) <= 1.0


@pytest.mark.parametrize("name", ["adamw", "adamax", "sgd"])
def test_matrices_are_decayed_and_biases_are_not(name: str) -> None:
    parameters = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))]
    config = TrainConfig(optimizer=name, weight_decay=0.1)
    optimizer = build_optimizer(parameters, config, lr=0.01)
    decay = {p.ndim: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay == {2: 0.1, 1: 0.0}
