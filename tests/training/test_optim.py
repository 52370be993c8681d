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
@pytest.mark.parametrize("decay", [1e-3, 0.5])
def test_matrices_are_decayed_beside_the_gradient_and_biases_are_not(
    name: str, decay: float
) -> None:
    sizes = ((2, 2), (3, 3), (2,))
    parameters = [torch.nn.Parameter(torch.ones(size)) for size in sizes]
    unreached = torch.nn.Parameter(torch.ones(2, 2))
    config = TrainConfig(optimizer=name, weight_decay=decay)
    optimizer = build_optimizer([*parameters, unreached], config, 1.0, [1.0, 0.5, 1.0, 1.0])
    for rate in (0.1, 0.02):
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    expected = (
        (1 - 0.1 * decay) * (1 - 0.02 * decay), (1 - 0.05 * decay) * (1 - 0.01 * decay), 1.0
    )  # fmt: skip
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, value))
    assert torch.equal(unreached, torch.ones(2, 2))
