"""Each objective against its formula, written again in numpy with nothing shared.

Where TRL has the same loss, the formula is the one that its trainers compute from sums of token
log-probabilities; here a text is one action, so a log-probability is what they call a `logp`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import clipalign
from clipalign import PolicyBatch
from clipalign.testing import judged_batch

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Row:
    """One row of a batch of pairs, as plain numbers."""

    policy: Array
    reference: Array
    w: int
    l: int  # noqa: E741

    @property
    def rw(self) -> float:
        return float(self.policy[self.w] - self.reference[self.w])

    @property
    def rl(self) -> float:
        return float(self.policy[self.l] - self.reference[self.l])

    @property
    def h(self) -> float:
        return self.rw - self.rl


def table(batch: PolicyBatch) -> list[Row]:
    columns = (batch.policy, batch.reference, batch.chosen, batch.rejected)
    return [Row(p, q, int(w), int(l)) for p, q, w, l in zip(*map(np.asarray, columns))]  # noqa: B905,E741


def sigmoid(z: float) -> float:
    return float(1 / (1 + np.exp(-z)))


def exo(r: Row, beta: float = 0.7, epsilon: float = 0.2) -> float:
    p = np.array([sigmoid(beta * r.h), 1 - sigmoid(beta * r.h)])
    return float((p * np.log(p / np.array([1 - epsilon, epsilon]))).sum())


def discopop(r: Row, beta: float = 0.7, tau: float = 0.3) -> float:
    logit = beta * r.h
    blend = sigmoid(logit / tau)
    return float(-np.log(sigmoid(logit)) * (1 - blend) + np.exp(-logit) * blend)


def orpo(r: Row) -> float:
    p = np.exp(r.policy)
    odds = p / (1 - p)
    return float(-np.log(p[r.w]) - 0.4 * np.log(sigmoid(np.log(odds[r.w] / odds[r.l]))))


def f_dpo(slope: Callable[[float], float]) -> Callable[[Row], float]:
    """DPO with f'(u), u = π_θ/π_ref the ratio itself, as the f-divergences are usually written."""
    return lambda r: -np.log(sigmoid(0.7 * (slope(np.exp(r.rw)) - slope(np.exp(r.rl)))))


def listwise(k: int) -> Callable[[Row], float]:
    def loss(r: Row) -> float:
        likely = [int(i) for i in np.argsort(-r.reference) if i not in (r.w, r.l)]
        rivals = [r.l, *likely][:k]
        scores = np.exp(0.7 * (r.policy - r.reference))
        return float(-np.log(scores[r.w] / (scores[r.w] + scores[rivals].sum())))

    return loss


def ppo(r: Row, clip: float = 0.2, beta: float = 0.3) -> float:
    reward = np.zeros_like(r.policy)
    reward[r.w], reward[r.l] = 1.0, -1.0
    pi, ref = np.exp(r.policy), np.exp(r.reference)
    advantage = reward - (ref * reward).sum()
    ratio = pi / ref
    gain = np.minimum(ratio * advantage, np.clip(ratio, 1 - clip, 1 + clip) * advantage)
    return float(-(ref * gain).sum() + beta * (pi * np.log(pi / ref)).sum())


FORMULAS: list[tuple[str, Mapping[str, Any], Callable[[Row], float]]] = [
    (
        "robust",
        {"beta": 0.7, "flipped": 0.2},
        lambda r: (
            (-0.8 * np.log(sigmoid(0.7 * r.h)) + 0.2 * np.log(sigmoid(-0.7 * r.h))) / (1 - 0.4)
        ),
    ),
    ("hinge", {"beta": 0.7}, lambda r: max(0.0, 1 - 0.7 * r.h)),
    ("exo", {"beta": 0.7, "label_smoothing": 0.2}, exo),
    (
        "nca",
        {"beta": 0.7},
        lambda r: (
            -np.log(sigmoid(0.7 * r.rw))
            - 0.5 * np.log(sigmoid(-0.7 * r.rw))
            - 0.5 * np.log(sigmoid(-0.7 * r.rl))
        ),
    ),
    (
        "bco",
        {"beta": 0.7},
        lambda r: -np.log(sigmoid(0.7 * r.rw)) - np.log(sigmoid(-0.7 * r.rl)),
    ),
    ("sppo", {"beta": 0.7}, lambda r: (r.rw - 0.5 / 0.7) ** 2 + (r.rl + 0.5 / 0.7) ** 2),
    ("apo-zero", {"beta": 0.7}, lambda r: 1 - sigmoid(0.7 * r.rw) + sigmoid(0.7 * r.rl)),
    ("discopop", {"beta": 0.7, "temperature": 0.3}, discopop),
    (
        "cpo",
        {"beta": 0.7, "alpha": 0.4},
        lambda r: -np.log(sigmoid(0.7 * (r.policy[r.w] - r.policy[r.l]))) - 0.4 * r.policy[r.w],
    ),
    ("orpo", {"odds_weight": 0.4}, orpo),
    ("f-dpo", {"beta": 0.7, "divergence": "forward-kl"}, f_dpo(lambda u: -1 / u)),
    ("f-dpo", {"beta": 0.7, "divergence": "js"}, f_dpo(lambda u: np.log(2 * u / (1 + u)))),
    (
        "f-dpo",
        {"beta": 0.7, "divergence": "alpha", "alpha": 0.3},
        f_dpo(lambda u: (1 - u**-0.3) / 0.3),
    ),
    ("f-dpo", {"beta": 0.7, "divergence": "reverse-kl"}, f_dpo(lambda u: np.log(u) + 1)),
    ("listwise", {"beta": 0.7}, listwise(4)),
    ("listwise", {"beta": 0.7, "rejected": 3}, listwise(3)),
    (
        "soft-dpo",
        {"beta": 0.7, "confidence": 0.8},
        lambda r: -0.8 * np.log(sigmoid(0.7 * r.h)) - 0.2 * np.log(sigmoid(-0.7 * r.h)),
    ),
    (
        "soft-dpo",
        {"beta": 0.7, "confidence": 0.8, "form": "geometric"},
        lambda r: -np.log(sigmoid(0.7 * 0.6 * r.h)),
    ),
    ("ppo-clip", {"clip": 0.2, "beta": 0.3}, ppo),
]


@pytest.mark.parametrize(
    ("name", "options", "formula"),
    FORMULAS,
    ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(FORMULAS)],
)
@pytest.mark.parametrize("seed", [7, 8])
def test_the_loss_is_its_formula(
    name: str, options: Mapping[str, Any], formula: Callable[[Row], float], seed: int
) -> None:
    batch = judged_batch("pair", size=12, seed=seed)
    loss = clipalign.objective(name, **options)(batch)
    np.testing.assert_allclose(loss.numpy(), [formula(r) for r in table(batch)], atol=1e-13)


def test_aot_compares_the_sorted_margins_of_the_batch() -> None:
    batch = judged_batch("pair", size=12)
    rows = table(batch)
    policy = np.array([r.policy[r.w] - r.policy[r.l] for r in rows])
    reference = np.array([r.reference[r.w] - r.reference[r.l] for r in rows])
    expected = -np.log(1 / (1 + np.exp(-0.7 * (np.sort(policy) - np.sort(reference)))))
    loss = clipalign.objective("aot", beta=0.7)(batch).numpy()
    np.testing.assert_allclose(loss[np.argsort(policy)], expected)
    np.testing.assert_allclose(loss.mean(), expected.mean())


# --- How they are related -----------------------------------------------------------------------


def same(one: clipalign.Objective, other: clipalign.Objective) -> None:
    batch = judged_batch("pair", size=12)
    torch.testing.assert_close(one(batch), other(batch))


def test_dpo_is_a_special_case_of_five() -> None:
    dpo = clipalign.objective("dpo", beta=0.7)
    same(clipalign.objective("robust", beta=0.7, flipped=0), dpo)
    same(clipalign.objective("f-dpo", beta=0.7, divergence="reverse-kl"), dpo)
    same(clipalign.objective("listwise", beta=0.7, rejected=1), dpo)
    same(clipalign.objective("soft-dpo", beta=0.7, confidence=1.0), dpo)
    cdpo = clipalign.objective("dpo", beta=0.7, label_smoothing=0.2)
    same(clipalign.objective("soft-dpo", beta=0.7, confidence=0.8), cdpo)


def test_robust_over_flipped_judgements_is_dpo_over_clean_ones() -> None:
    clean = judged_batch("pair", size=12)
    wrong = PolicyBatch(clean.policy, clean.reference, clean.rejected, clean.chosen)
    robust = clipalign.objective("robust", beta=0.7, flipped=0.3)
    mean = 0.7 * robust(clean) + 0.3 * robust(wrong)
    torch.testing.assert_close(mean, clipalign.objective("dpo", beta=0.7)(clean))


def test_exo_is_zero_where_the_policy_is_as_sure_as_the_judgement() -> None:
    target = np.log(0.8 / 0.2) / 0.7  # the margin in nats at which p = 1 − ε
    logits = torch.tensor([[target, 0.0, 0.3]], dtype=torch.float64)
    batch = PolicyBatch(
        logits.log_softmax(1),
        torch.zeros(1, 3, dtype=torch.float64).log_softmax(1),
        torch.tensor([0]),
        torch.tensor([1]),
    )
    loss = clipalign.objective("exo", beta=0.7, label_smoothing=0.2)(batch)
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_f_dpo_goes_from_reverse_to_forward_kl_with_alpha() -> None:
    batch = judged_batch("pair")
    near_0 = clipalign.objective("f-dpo", divergence="alpha", alpha=1e-6)(batch)
    near_1 = clipalign.objective("f-dpo", divergence="alpha", alpha=1 - 1e-6)(batch)
    reverse = clipalign.objective("f-dpo", divergence="reverse-kl")(batch)
    forward = clipalign.objective("f-dpo", divergence="forward-kl")(batch)
    torch.testing.assert_close(near_0, reverse, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(near_1, forward, atol=1e-5, rtol=1e-5)


def test_apo_zero_is_kto_about_a_reference_point_of_zero() -> None:
    batch = judged_batch("any")
    kto = clipalign.objective("kto", beta=0.7)
    zero = torch.zeros(len(batch.policy), dtype=torch.float64)
    torch.testing.assert_close(
        clipalign.objective("apo-zero", beta=0.7)(batch),
        kto.loss(batch, zero),  # type: ignore[operator]
    )


def test_soft_labels_come_from_the_rewards_of_the_task() -> None:
    batch = judged_batch("pair")
    reward = torch.randn(batch.policy.shape, dtype=torch.float64)
    graded = PolicyBatch(batch.policy, batch.reference, batch.chosen, batch.rejected, reward)
    each = torch.arange(len(reward))
    sure = ((reward[each, batch.chosen] - reward[each, batch.rejected]) / 2).sigmoid()
    flipped = PolicyBatch(batch.policy, batch.reference, batch.rejected, batch.chosen)
    dpo = clipalign.objective("dpo", beta=0.7)
    expected = sure * dpo(batch) + (1 - sure) * dpo(flipped)
    soft = clipalign.objective("soft-dpo", beta=0.7, temperature=2.0)
    torch.testing.assert_close(soft(graded), expected)


def gradient(objective: clipalign.Objective, batch: PolicyBatch) -> torch.Tensor:
    logits = batch.policy.clone().requires_grad_()
    moved = PolicyBatch(logits.log_softmax(1), batch.reference, batch.chosen, batch.rejected)
    return torch.autograd.grad(objective(moved).sum(), logits)[0]


def test_ppo_without_a_clip_has_the_gradient_of_the_exact_rlhf() -> None:
    batch = judged_batch("any", size=12)
    rlhf = clipalign.objective("rlhf", beta=0.3)
    unclipped = clipalign.objective("ppo-clip", beta=0.3, clip=None)
    torch.testing.assert_close(gradient(unclipped, batch), gradient(rlhf, batch))
    # they differ by the baseline, the reward that the reference expects
    start = PolicyBatch(batch.reference, batch.reference, batch.chosen, batch.rejected)
    torch.testing.assert_close(unclipped(batch), rlhf(batch) - rlhf(start))


def test_ppo_leaves_the_reference_with_the_gradient_of_rlhf_and_is_stopped_by_the_clip() -> None:
    batch = judged_batch("pair", size=12)
    start = PolicyBatch(batch.reference, batch.reference, batch.chosen, batch.rejected)
    rlhf = clipalign.objective("rlhf", beta=0.3)
    ppo_clip = clipalign.objective("ppo-clip", beta=0.3)
    torch.testing.assert_close(gradient(ppo_clip, start), gradient(rlhf, start))

    sure = batch.reference.clone()
    sure[torch.arange(12), batch.chosen] += 3.0  # far beyond 1.2 times as likely
    free = clipalign.objective("ppo-clip", beta=0.0)
    far = PolicyBatch(sure, batch.reference, batch.chosen, batch.rejected)
    each = torch.arange(12)
    clipped = gradient(free, far)[each, batch.chosen]
    unclipped = gradient(clipalign.objective("ppo-clip", beta=0.0, clip=None), far)
    assert (clipped > unclipped[each, batch.chosen]).all()


def test_orpo_knows_the_odds_of_a_text_that_is_certain() -> None:
    """In float32 π = 1 − e^{−40} is 1 and log(1 − π) would be −∞."""
    logits = torch.tensor([[40.0, 0.0, -3.0]], requires_grad=True)
    batch = PolicyBatch(
        logits.log_softmax(1), torch.zeros(1, 3), torch.tensor([1]), torch.tensor([0])
    )
    loss = clipalign.objective("orpo", odds_weight=1.0)(batch)
    loss.sum().backward()
    assert loss.item() == pytest.approx(40 + 80, rel=1e-3)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 1] < -1.5


def test_listwise_takes_no_more_rivals_than_there_are() -> None:
    same(clipalign.objective("listwise", rejected=99), clipalign.objective("listwise"))


def test_the_margin_of_a_discovered_loss_has_a_hump_at_zero() -> None:
    """What the docstring says of DiscoPOP: the loss rises around h = 0 and falls on either side."""
    h = torch.linspace(-30, 30, 601, dtype=torch.float64)
    logits = torch.stack([h, torch.zeros_like(h)], 1)
    index = torch.zeros(601, dtype=torch.int64)
    batch = PolicyBatch(
        logits.log_softmax(1), torch.zeros_like(logits).log_softmax(1), index, index + 1
    )
    slope = clipalign.objective("discopop")(batch).diff()
    rising = h[:-1][slope > 0]
    assert rising.min() < 0 < rising.max()
    assert rising.max() - rising.min() < 5
    assert (slope[:250] < 0).all()
    assert (slope[350:] < 0).all()
