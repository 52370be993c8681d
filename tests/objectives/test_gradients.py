"""With the text features frozen, the gradients on the image feature have closed forms.

The policy is softmax(τ T·I) with I free (before normalisation), in float64, as in Lemma 3.1 of
arXiv 2411.08923 and what follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from clipalign.objectives import Objective, PolicyBatch
from clipalign.objectives.dpo import DPO
from clipalign.objectives.ipo import IPO
from clipalign.objectives.rlhf import RLHF
from clipalign.policy import log_policy
from clipalign.regularisers import ForwardKL

B, C, D = 4, 6, 8
TAU = 20.0


@dataclass
class Scene:
    """Images before and after some training, and frozen texts."""

    texts: Tensor
    image: Tensor
    image_ref: Tensor
    batch: PolicyBatch

    @property
    def difference(self) -> Tensor:
        """T_w − T_l: [B, D]."""
        return self.texts[self.batch.chosen] - self.texts[self.batch.rejected]

    @property
    def h(self) -> Tensor:
        """τ (T_w − T_l)·(I_θ − I_ref): [B]."""
        return TAU * (self.difference * (self.image - self.image_ref)).sum(1).detach()

    def gradient(self, loss: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(loss.sum(), self.image)
        return gradient


@pytest.fixture
def scene() -> Scene:
    generator = torch.Generator().manual_seed(3)

    def unit(n: int) -> Tensor:
        x = torch.randn(n, D, generator=generator, dtype=torch.float64)
        return torch.nn.functional.normalize(x)

    texts, image_ref = unit(C), unit(B)
    image = (image_ref + 0.1 * unit(B)).requires_grad_()
    batch = PolicyBatch(
        policy=log_policy(image, texts, TAU),
        reference=log_policy(image_ref, texts, TAU),
        chosen=torch.tensor([0, 1, 2, 3]),
        rejected=torch.tensor([5, 0, 4, 1]),
    )
    return Scene(texts, image, image_ref, batch)


def test_the_margin_is_a_projection_of_how_far_the_image_moved(scene: Scene) -> None:
    """Lemma 3.1: the partition functions cancel."""
    batch = scene.batch
    h = batch.log_ratio(batch.chosen) - batch.log_ratio(batch.rejected)
    torch.testing.assert_close(h, scene.h)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_pushes_along_the_text_difference(scene: Scene, beta: float) -> None:
    push = -beta * TAU * torch.sigmoid(-beta * scene.h)
    torch.testing.assert_close(
        scene.gradient(DPO(beta=beta)(scene.batch)), push.unsqueeze(1) * scene.difference
    )


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_ipo_pushes_until_its_target_margin(scene: Scene, beta: float) -> None:
    push = 2 * TAU * (scene.h - 1 / (2 * beta))
    torch.testing.assert_close(
        scene.gradient(IPO(beta=beta)(scene.batch)), push.unsqueeze(1) * scene.difference
    )


def test_rlhf_follows_the_exact_policy_gradient(scene: Scene) -> None:
    """∂(reward)/∂I = τ Σ_y π(y) A(y) T(y): the sum REINFORCE samples from."""
    beta, batch = 0.3, scene.batch
    pi = batch.policy.exp().detach()
    one = torch.eye(C, dtype=torch.float64)
    worth = one[batch.chosen] - one[batch.rejected]
    worth = worth - beta * (batch.policy - batch.reference).detach()
    advantage = worth - (pi * worth).sum(1, keepdim=True)
    expected = TAU * (pi * advantage) @ scene.texts
    torch.testing.assert_close(scene.gradient(RLHF(beta=beta)(batch)), -expected)


def test_the_kl_regulariser_holds_the_mean_text(scene: Scene) -> None:
    """∂/∂I KL(π_ref ‖ π_θ) = τ (μ_θ − μ_ref), μ = Σ_y π(y|x) T(y)."""
    policy, reference = scene.batch.policy, scene.batch.reference
    mean = policy.exp().detach() @ scene.texts
    mean_ref = reference.exp() @ scene.texts
    loss = ForwardKL()(policy, reference)
    torch.testing.assert_close(scene.gradient(loss), TAU * (mean - mean_ref))


def minimise(objective: Objective, batch: PolicyBatch) -> tuple[Tensor, Tensor]:
    """The best policy [B, C] over free logits, and its loss [B]."""
    logits = batch.reference.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def at(free: Tensor) -> Tensor:
        policy = free.log_softmax(1)
        return objective.forward(PolicyBatch(policy, batch.reference, batch.chosen, batch.rejected))

    def closure() -> Tensor:
        solver.zero_grad()
        total = at(logits).sum()
        total.backward()
        return total

    solver.step(closure)
    return logits.detach().log_softmax(1), at(logits.detach())


def test_the_best_rlhf_policy_is_the_reference_tilted_by_reward(scene: Scene) -> None:
    """π* = π_ref e^{r/β} / Z, and the loss there is −β log Z."""
    beta, one = 0.5, torch.eye(C, dtype=torch.float64)
    reward = one[scene.batch.chosen] - one[scene.batch.rejected]
    tilted = scene.batch.reference + reward / beta
    best, loss = minimise(RLHF(beta=beta), scene.batch)
    torch.testing.assert_close(best.exp(), tilted.softmax(1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(loss, -beta * tilted.logsumexp(1), atol=1e-6, rtol=1e-5)


def test_the_best_ipo_policy_has_exactly_the_target_margin(scene: Scene) -> None:
    beta, batch = 0.3, scene.batch
    best, loss = minimise(IPO(beta=beta), batch)
    row = torch.arange(B)
    moved = best - batch.reference
    h = moved[row, batch.chosen] - moved[row, batch.rejected]
    torch.testing.assert_close(h, torch.full_like(h, 1 / (2 * beta)))
    torch.testing.assert_close(loss, torch.zeros_like(loss))
