"""Each objective against its formula, written again in numpy with nothing shared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from clipalign.objectives import PolicyBatch
from clipalign.objectives.cross_entropy import CrossEntropy
from clipalign.objectives.dpo import DPO
from clipalign.objectives.ipo import IPO
from clipalign.objectives.kto import KTO
from clipalign.objectives.rlhf import RLHF
from clipalign.testing.batches import B, judged_batch

Array = np.ndarray[Any, np.dtype[np.float64]]
ROWS = np.arange(B)


def log_ratios(batch: PolicyBatch) -> tuple[Array, Array, Array, Array]:
    """log π_θ, log π_ref and the two log-ratios r_w, r_l of a batch of pairs."""
    policy, reference = batch.policy.numpy(), batch.reference.numpy()
    r = policy - reference
    return policy, reference, r[ROWS, batch.chosen.numpy()], r[ROWS, batch.rejected.numpy()]


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def test_dpo_is_the_logistic_loss_of_the_margin() -> None:
    batch = judged_batch("pair")
    _, _, r_w, r_l = log_ratios(batch)
    expected = -np.log(sigmoid(0.7 * (r_w - r_l)))
    np.testing.assert_allclose(DPO(beta=0.7)(batch).numpy(), expected)


def test_cdpo_is_the_expected_dpo_loss_under_flipped_labels() -> None:
    batch = judged_batch("pair")
    flipped = PolicyBatch(batch.policy, batch.reference, batch.rejected, batch.chosen)
    torch.testing.assert_close(
        DPO(label_smoothing=0.2)(batch), 0.8 * DPO()(batch) + 0.2 * DPO()(flipped)
    )


def test_ipo_is_the_squared_distance_to_its_target_margin() -> None:
    batch = judged_batch("pair")
    _, _, r_w, r_l = log_ratios(batch)
    np.testing.assert_allclose(IPO(beta=0.3)(batch).numpy(), (r_w - r_l - 1 / 0.6) ** 2)


def test_kto_values_both_texts_about_the_exact_kl() -> None:
    batch = judged_batch("pair")
    policy, reference, r_w, r_l = log_ratios(batch)
    z0 = (np.exp(policy) * (policy - reference)).sum(1)
    expected = 1.2 * (1 - sigmoid(1.5 * (r_w - z0))) + 0.6 * (1 - sigmoid(1.5 * (z0 - r_l)))
    kto = KTO(beta=1.5, desirable_weight=1.2, undesirable_weight=0.6)
    np.testing.assert_allclose(kto(batch).numpy(), expected)


def test_kto_of_a_pair_is_the_sum_of_its_two_unpaired_judgements() -> None:
    batch, nothing = judged_batch("pair"), torch.full((B,), -1)
    desirable = PolicyBatch(batch.policy, batch.reference, batch.chosen, nothing)
    undesirable = PolicyBatch(batch.policy, batch.reference, nothing, batch.rejected)
    kto = KTO()
    torch.testing.assert_close(kto(batch), kto(desirable) + kto(undesirable))


def test_kto_passes_no_gradient_through_its_reference_point() -> None:
    batch = judged_batch("pair")
    z0 = KTO().reference_point(
        PolicyBatch(batch.policy.requires_grad_(), batch.reference, batch.chosen, batch.rejected)
    )
    assert not z0.requires_grad
    assert (z0 > 0).all()


def test_rlhf_is_expected_reward_less_the_price_of_the_kl() -> None:
    batch = judged_batch("pair")
    policy, reference, _, _ = log_ratios(batch)
    reward = np.zeros_like(policy)
    reward[ROWS, batch.chosen.numpy()] = 1.0
    reward[ROWS, batch.rejected.numpy()] = -1.0
    pi = np.exp(policy)
    expected = -(pi * reward).sum(1) + 0.1 * (pi * (policy - reference)).sum(1)
    np.testing.assert_allclose(RLHF(beta=0.1)(batch).numpy(), expected)


def test_rlhf_prefers_the_rewards_of_the_task_to_its_own() -> None:
    batch = judged_batch("pair")
    reward = torch.randn(batch.policy.shape, dtype=torch.float64)
    graded = PolicyBatch(batch.policy, batch.reference, batch.chosen, batch.rejected, reward)
    kl = (batch.policy.exp() * (batch.policy - batch.reference)).sum(1)
    expected = 0.5 * kl - (batch.policy.exp() * reward).sum(1)
    torch.testing.assert_close(RLHF(beta=0.5)(graded), expected)
    start = PolicyBatch(batch.reference, batch.reference, batch.chosen, batch.rejected, reward)
    torch.testing.assert_close(RLHF().initial_value(start), RLHF()(start))


def test_cross_entropy_is_torchs_own_and_blind_to_the_reference() -> None:
    batch = judged_batch("pair")
    blind = PolicyBatch(
        batch.policy, torch.full_like(batch.reference, torch.nan), batch.chosen, batch.rejected
    )
    for smoothing in (0.0, 0.3):
        expected = torch.nn.functional.cross_entropy(
            batch.policy, batch.chosen, reduction="none", label_smoothing=smoothing
        )
        torch.testing.assert_close(CrossEntropy(label_smoothing=smoothing)(blind), expected)


@settings(max_examples=25, deadline=None)
@given(extra=st.lists(st.floats(-5, 5), min_size=1, max_size=4))
def test_dpo_and_ipo_do_not_see_the_other_candidates_and_kto_does(extra: list[float]) -> None:
    """More candidate texts change the partition function, which cancels in the margin."""
    batch = judged_batch("pair")
    more = torch.tensor(extra, dtype=torch.float64).expand(B, -1)
    wider = PolicyBatch(
        torch.cat([batch.policy, more], 1).log_softmax(1),
        torch.cat([batch.reference, more + 1], 1).log_softmax(1),
        batch.chosen,
        batch.rejected,
    )
    torch.testing.assert_close(DPO()(wider), DPO()(batch))
    torch.testing.assert_close(IPO()(wider), IPO()(batch))
    assert not torch.allclose(KTO()(wider), KTO()(batch), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (DPO, {"beta": 0.0}),
        (DPO, {"label_smoothing": 0.5}),
        (IPO, {"beta": -1.0}),
        (IPO, {"beta": float("inf")}),
        (KTO, {"desirable_weight": -0.1}),
        (RLHF, {"beta": 0.0}),
        (RLHF, {"reward_rejected": 0.5}),
        (CrossEntropy, {"label_smoothing": 1.0}),
    ],
)
def test_options_out_of_bounds_are_refused(objective: type, options: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        objective(**options)


def test_rlhf_refuses_to_prefer_nothing() -> None:
    with pytest.raises(ValidationError, match="both 0"):
        RLHF(reward_chosen=0.0, reward_rejected=0.0)
