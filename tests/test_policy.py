"""The policy is the softmax over candidate texts of scaled cosines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from clipalign.policy import log_policy


def unit(n: int, seed: int) -> Tensor:
    x = torch.randn(n, 16, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x)


@pytest.fixture
def images() -> Tensor:
    return unit(4, seed=0)


@pytest.fixture
def texts() -> Tensor:
    return unit(7, seed=1)


def test_it_is_the_softmax_of_scaled_cosines(images: Tensor, texts: Tensor) -> None:
    weights = np.exp(100 * images.double().numpy() @ texts.double().numpy().T)
    expected = np.log(weights / weights.sum(1, keepdims=True))
    policy = log_policy(images, texts, 100.0)
    assert policy.shape == (4, 7)
    np.testing.assert_allclose(policy.numpy(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(policy.exp().sum(1), torch.ones(4))


def test_a_logit_bias_cancels(images: Tensor, texts: Tensor) -> None:
    scale, bias = torch.tensor(112.0), torch.tensor(-16.5)
    torch.testing.assert_close(
        log_policy(images, texts, scale, bias), log_policy(images, texts, scale)
    )


def test_autocast_does_not_reach_the_logits(images: Tensor, texts: Tensor) -> None:
    exact = log_policy(images, texts, 100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        policy = log_policy(images, texts, 100.0)
    assert policy.dtype == torch.float32
    assert torch.equal(policy, exact)


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_features_are_widened(
    images: Tensor, texts: Tensor, given: torch.dtype, computed: torch.dtype
) -> None:
    assert log_policy(images.to(given), texts, 100.0).dtype == computed


def test_gradient_reaches_the_image(images: Tensor, texts: Tensor) -> None:
    images.requires_grad_()
    log_policy(images, texts, 100.0)[:, 0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
