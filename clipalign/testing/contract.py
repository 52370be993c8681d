"""What every objective promises, whoever wrote it.

Subclass `ObjectiveContract` and list `cases`, or give it an `objective` fixture of your own; pytest
then runs each promise.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from clipalign.build import objective as build
from clipalign.objectives import Objective, PolicyBatch
from clipalign.testing.batches import B, C, judged_batch, rows, with_policy

Case: TypeAlias = str | tuple[str, Mapping[str, Any]]


class ObjectiveContract:
    """The promises of an objective.

    A formula that breaks one says so in `Objective.exceptions`, and the contract then demands that
    it is broken: an exception that is not needed fails.

    Class attributes:
        cases: objectives by name, or by name and options.
    """

    cases: ClassVar[Sequence[Case]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One run of each promise for each case."""
        if self.cases and "objective" in metafunc.fixturenames:
            metafunc.parametrize("objective", self.cases, ids=_case_id, indirect=True)

    @pytest.fixture
    def objective(self, request: pytest.FixtureRequest) -> Objective:
        """The objective of the case."""
        name, options = (request.param, {}) if isinstance(request.param, str) else request.param
        return build(name, **options)

    @pytest.fixture
    def batch(self, objective: Objective) -> PolicyBatch:
        """Rows with the judgements that the objective asks for."""
        return judged_batch(objective.requires)

    @pytest.fixture(autouse=True)
    def _at_rest(self, request: pytest.FixtureRequest, objective: Objective) -> None:
        objective.eval()  # what it learns from step to step stands still
        promise = request.node.originalname.removeprefix("test_")
        if reason := objective.exceptions.get(promise):
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))

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
                "write initial_value: only a reference-free loss may not know its start"
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
        loss = objective.frozen_at(batch)
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
        torch.testing.assert_close(loss[~unjudged], objective(rows(batch, ~unjudged)))

    # --- needs and state --------------------------------------------------------------------

    def test_a_reference_that_is_not_needed_is_not_read(
        self, objective: Objective, batch: PolicyBatch
    ) -> None:
        if objective.needs_reference:
            pytest.skip("the objective says that it reads the reference")
        blind = PolicyBatch(
            batch.policy, torch.full_like(batch.reference, torch.nan), batch.chosen, batch.rejected
        )
        torch.testing.assert_close(objective(blind), objective(batch))

    def test_state_survives_a_checkpoint(self, objective: Objective, batch: PolicyBatch) -> None:
        """Interrupted after two steps and restored, the next losses are the same bit for bit."""
        assert not list(objective.parameters()), "nothing trains an objective: use a buffer"
        restored = copy.deepcopy(objective)
        steps = [judged_batch(objective.requires, seed=seed) for seed in range(4)]
        objective.train()
        for step in steps[:2]:
            objective(step)
        restored.load_state_dict({k: v.clone() for k, v in objective.state_dict().items()})
        restored.train()
        for step in steps[2:]:
            assert objective(step).equal(restored(step))

    def test_state_stands_still_in_evaluation(
        self, objective: Objective, batch: PolicyBatch
    ) -> None:
        before = {name: value.clone() for name, value in objective.state_dict().items()}
        assert objective(batch).equal(objective(batch))
        assert all(value.equal(before[name]) for name, value in objective.state_dict().items())

    # --- words ----------------------------------------------------------------------------

    def test_options_survive_json(self, objective: Objective) -> None:
        options = objective.options
        assert type(options).model_validate_json(options.model_dump_json()) == options

    def test_options_are_described_and_strict(self, objective: Objective) -> None:
        for name, field in objective.Options.model_fields.items():
            assert field.description, f"option '{name}' has no description"
        assert "weight" not in objective.Options.model_fields, "the word is that of weighted sums"
        with pytest.raises(ValidationError):
            objective.Options.model_validate({"no_such_option": 1})

    def test_docstring_has_formula_and_paper(self, objective: Objective) -> None:
        text = inspect.getdoc(type(objective)) or ""
        assert re.search(r"^ {4}.*loss = ", text, re.MULTILINE), "no formula 'loss = …'"
        assert re.search(r"arXiv \d{4}\.\d{4,5}|doi 10\.|[Uu]npublished", text), (
            "no source: 'arXiv 2305.18290', 'doi 10.…', or 'Unpublished' as long as it is"
        )
        assert "[B]" in text, "no shapes such as '[B, C] → [B]'"

    def test_exceptions_name_promises(self, objective: Objective) -> None:
        for promise, reason in objective.exceptions.items():
            assert hasattr(self, f"test_{promise}"), f"there is no promise '{promise}'"
            assert reason


def _case_id(case: Case) -> str:
    return case if isinstance(case, str) else "-".join([case[0], *map(str, case[1].values())])
