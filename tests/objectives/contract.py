"""What every objective promises, whoever wrote it.

Subclass `ObjectiveContract` and give it an `objective` fixture; pytest then runs each promise.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from clipalign.objectives import Objective, PolicyBatch

B, C = 6, 5


def judged_batch(
    requires: str, *, size: int = B, dtype: torch.dtype = torch.float64, seed: int = 7
) -> PolicyBatch:
    """A batch with the judgements that an objective asks for, its policy away from its reference.

    "any" mixes pairs, lone chosen and lone rejected texts; "chosen" leaves out half the rejected.
    """
    generator = torch.Generator().manual_seed(seed)
    policy = torch.randn(size, C, generator=generator, dtype=dtype).log_softmax(1)
    reference = torch.randn(size, C, generator=generator, dtype=dtype).log_softmax(1)
    chosen = torch.randint(C, (size,), generator=generator)
    rejected = (chosen + 1 + torch.randint(C - 1, (size,), generator=generator)) % C
    row = torch.arange(size)
    if requires == "any":
        rejected = torch.where(row % 3 == 1, -1, rejected)
        chosen = torch.where(row % 3 == 2, -1, chosen)
    if requires == "chosen":
        rejected = torch.where(row % 2 == 1, -1, rejected)
    return PolicyBatch(policy, reference, chosen, rejected)


def with_policy(batch: PolicyBatch, logits: Tensor, reference: Tensor | None = None) -> PolicyBatch:
    """The same judgements under softmax(logits)."""
    return PolicyBatch(
        logits.log_softmax(1),
        batch.reference if reference is None else reference,
        batch.chosen,
        batch.rejected,
    )


def rows(batch: PolicyBatch, index: Tensor | slice) -> PolicyBatch:
    """Some rows of a batch, in the order given."""
    return PolicyBatch(
        batch.policy[index], batch.reference[index], batch.chosen[index], batch.rejected[index]
    )


class ObjectiveContract:
    """The promises. A subclass gives the fixture `objective`."""

    @pytest.fixture
    def batch(self, objective: Objective) -> PolicyBatch:
        return judged_batch(objective.requires)

    def differentiable(
        self, objective: Objective, batch: PolicyBatch
    ) -> Callable[[PolicyBatch], Tensor]:
        """What the gradient of `forward` is the gradient of.

        `forward` itself, unless a stop-gradient in the formula holds some part of it still:
        override this to return the loss with that part frozen at `batch`.
        """
        return objective

    # --- shape and value ------------------------------------------------------------------

    def test_one_finite_loss_an_image(self, objective: Objective, batch: PolicyBatch) -> None:
        loss = objective(batch)
        assert loss.shape == (B,)
        assert loss.dtype == batch.policy.dtype
        assert loss.isfinite().all()

    def test_a_batch_of_one_is_a_batch(self, objective: Objective) -> None:
        loss = objective(judged_batch(objective.requires, size=1))
        assert loss.shape == (1,)
        assert loss.isfinite().all()

    def test_starts_at_its_initial_value(self, objective: Objective, batch: PolicyBatch) -> None:
        start = with_policy(batch, batch.reference)
        expected = objective.initial_value(start)
        if expected is None:
            assert not objective.needs_reference, (
                "only a reference-free loss may not know its start"
            )
            return
        assert expected.shape == (B,)
        torch.testing.assert_close(objective(start), expected)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_extreme_log_probabilities_stay_finite(self, objective: Objective, sign: int) -> None:
        """Two models that are certain of different texts: log-probabilities of −10 000."""
        batch = judged_batch(objective.requires, dtype=torch.float32)
        target = torch.where(batch.chosen >= 0, batch.chosen, batch.rejected)
        logits = torch.full((B, C), -1e4).scatter(1, target.unsqueeze(1), 0.0)
        opposite = logits.roll(1, dims=1).log_softmax(1)
        policy = (logits if sign > 0 else logits.roll(1, dims=1)).requires_grad_()
        reference = opposite if sign > 0 else logits.detach().log_softmax(1)
        loss = objective(with_policy(batch, policy, reference))
        loss.sum().backward()
        assert loss.isfinite().all()
        assert policy.grad is not None
        assert policy.grad.isfinite().all()

    # --- gradient -------------------------------------------------------------------------

    def test_gradient_is_the_derivative_of_the_loss(
        self, objective: Objective, batch: PolicyBatch
    ) -> None:
        loss = self.differentiable(objective, batch)
        logits = batch.policy.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda free: loss(with_policy(batch, free)), logits)
        (frozen,) = torch.autograd.grad(loss(with_policy(batch, logits)).sum(), logits)
        (actual,) = torch.autograd.grad(objective(with_policy(batch, logits)).sum(), logits)
        torch.testing.assert_close(actual, frozen)

    def test_a_small_step_from_the_reference_obeys_every_judgement(
        self, objective: Objective, batch: PolicyBatch
    ) -> None:
        logits = batch.reference.clone().requires_grad_()
        objective(with_policy(batch, logits)).sum().backward()
        assert logits.grad is not None
        moved = (logits - 1e-4 * logits.grad).log_softmax(1).detach() - batch.reference
        for change, chosen, rejected in zip(moved, batch.chosen, batch.rejected, strict=True):
            if rejected < 0:
                assert change[chosen] > 0
            elif chosen < 0:
                assert change[rejected] < 0
            else:
                assert change[chosen] > change[rejected]

    # --- symmetry -------------------------------------------------------------------------

    def test_order_of_the_images_does_not_matter(
        self, objective: Objective, batch: PolicyBatch
    ) -> None:
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        torch.testing.assert_close(objective(rows(batch, order)), objective(batch)[order])

    def test_order_of_the_candidates_does_not_matter(
        self, objective: Objective, batch: PolicyBatch
    ) -> None:
        order = torch.tensor([2, 4, 0, 3, 1])
        place = torch.argsort(order)  # where each candidate has gone

        def follow(index: Tensor) -> Tensor:
            return torch.where(index >= 0, place[index.clamp(min=0)], index)

        shuffled = PolicyBatch(
            batch.policy[:, order],
            batch.reference[:, order],
            follow(batch.chosen),
            follow(batch.rejected),
        )
        torch.testing.assert_close(objective(shuffled), objective(batch))

    def test_accumulating_over_halves_gives_the_gradient_of_the_whole(
        self, objective: Objective, batch: PolicyBatch
    ) -> None:
        if not objective.per_image:
            pytest.skip("the objective says that its images depend on each other")
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(B, 3, generator=generator, dtype=torch.float64)
        weight = torch.randn(3, C, generator=generator, dtype=torch.float64).requires_grad_()

        def gradient(part: slice) -> Tensor:
            subset = with_policy(rows(batch, part), images[part] @ weight)
            return torch.autograd.grad(objective(subset).sum(), weight)[0]

        whole = gradient(slice(0, B))
        torch.testing.assert_close(gradient(slice(0, 2)) + gradient(slice(2, B)), whole)

    def test_rows_without_a_judgement_contribute_nothing(
        self, objective: Objective, batch: PolicyBatch
    ) -> None:
        unjudged = torch.tensor([True, False, True, False, False, True])
        logits = batch.policy.clone().requires_grad_()
        partly = PolicyBatch(
            logits.log_softmax(1),
            batch.reference,
            batch.chosen.masked_fill(unjudged, -1),
            batch.rejected.masked_fill(unjudged, -1),
        )
        loss = objective(partly)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert (loss[unjudged] == 0).all()
        assert (gradient[unjudged] == 0).all()
        torch.testing.assert_close(loss[~unjudged], objective(batch)[~unjudged])

    # --- words ----------------------------------------------------------------------------

    def test_options_survive_json(self, objective: Objective) -> None:
        options = objective.options
        assert type(options).model_validate_json(options.model_dump_json()) == options

    def test_options_are_described_and_strict(self, objective: Objective) -> None:
        for name, field in objective.Options.model_fields.items():
            assert field.description, f"option '{name}' has no description"
        with pytest.raises(ValidationError):
            objective.Options.model_validate({"no_such_option": 1})

    def test_docstring_has_formula_and_paper(self, objective: Objective) -> None:
        text = inspect.getdoc(type(objective)) or ""
        assert re.search(r"^ {4}.*loss = ", text, re.MULTILINE), "no formula 'loss = …'"
        assert re.search(r"arXiv \d{4}\.\d{4,5}|doi 10\.", text), "no paper"
        assert "[B]" in text, "no shapes"
