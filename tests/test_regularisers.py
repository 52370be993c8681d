"""Regularisers are divergences: never negative, and 0 only where nothing has moved."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipalign.regularisers import (
    ForwardKL,
    JensenShannon,
    NoRegulariser,
    Regulariser,
    ReverseKL,
)

DIVERGENCES = [ForwardKL(), ReverseKL(), JensenShannon()]
logits = st.lists(st.floats(-8, 8), min_size=4, max_size=4)


def distribution(values: list[float]) -> Tensor:
    return torch.tensor([values], dtype=torch.float64).log_softmax(1)


@settings(max_examples=50, deadline=None)
@given(logits, logits)
def test_divergences_obey_their_inequalities(a: list[float], b: list[float]) -> None:
    p, q = distribution(a), distribution(b)
    for divergence in DIVERGENCES:
        assert divergence(p, q).item() >= -1e-12
        assert divergence(p, p).item() == pytest.approx(0, abs=1e-12)
    js = JensenShannon()
    assert js(p, q).item() <= math.log(2)
    torch.testing.assert_close(js(p, q), js(q, p))
    torch.testing.assert_close(ForwardKL()(p, q), ReverseKL()(q, p))


def test_values_are_those_of_the_definitions() -> None:
    p, q = np.array([[0.7, 0.2, 0.1]]), np.array([[0.25, 0.25, 0.5]])
    m = (p + q) / 2

    def kl(a: np.ndarray, b: np.ndarray) -> float:
        return float((a * np.log(a / b)).sum())

    policy, reference = torch.from_numpy(np.log(p)), torch.from_numpy(np.log(q))
    assert ForwardKL()(policy, reference).item() == pytest.approx(kl(q, p))
    assert ReverseKL()(policy, reference).item() == pytest.approx(kl(p, q))
    expected = (kl(p, m) + kl(q, m)) / 2
    assert JensenShannon()(policy, reference).item() == pytest.approx(expected)


def test_forward_kl_punishes_forgetting_and_reverse_kl_punishes_inventing() -> None:
    sure, torn = distribution([8, 0, 0, 0]), distribution([8, 8, 0, 0])
    assert ForwardKL()(sure, torn) > ForwardKL()(torn, sure)
    assert ReverseKL()(torn, sure) > ReverseKL()(sure, torn)


@pytest.mark.parametrize("regulariser", DIVERGENCES, ids=lambda r: type(r).__name__)
def test_gradients_are_exact_and_vanish_at_the_reference(regulariser: Regulariser) -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(3, 5, generator=generator, dtype=torch.float64).log_softmax(1)
    free = torch.randn(3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: regulariser(x.log_softmax(1), reference), free)
    start = reference.clone().requires_grad_()
    regulariser(start.log_softmax(1), reference).sum().backward()
    torch.testing.assert_close(start.grad, torch.zeros_like(start))


@pytest.mark.parametrize("regulariser", DIVERGENCES, ids=lambda r: type(r).__name__)
def test_models_certain_of_different_texts_stay_finite(regulariser: Regulariser) -> None:
    policy = torch.tensor([[0.0, -1e4]], requires_grad=True)
    value = regulariser(policy.log_softmax(1), torch.tensor([[-1e4, 0.0]]))
    value.sum().backward()
    assert value.isfinite().all()
    assert policy.grad is not None
    assert policy.grad.isfinite().all()


def test_none_is_zero_for_each_image() -> None:
    p, q = torch.randn(3, 4).log_softmax(1), torch.randn(3, 4).log_softmax(1)
    assert torch.equal(NoRegulariser()(p, q), torch.zeros(3))
