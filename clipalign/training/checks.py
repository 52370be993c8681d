"""What is proved before any weight has moved: of the preferences, and of the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from clipalign.errors import DataError, PluginError, TrainingError
from clipalign.models.trainable import TrainablePart
from clipalign.objectives.base import Objective, PolicyBatch
from clipalign.plugins import owner_of
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.training.losses import Losses, Problem
from clipalign.training.sharding import whole

_ROUNDING = {"fp32": 1e-3, "bf16": 1e-2, "fp16": 1e-2}
"""Of a cosine: how far one image's may lie apart in two batches; on GPUs fp32 may be TF32."""
_TOLERANCE = 1e-3
"""Of a loss of policy = reference, times 1 + its value."""


def check_start(parts: list[Losses], precision: str, problem: Problem) -> None:
    """The policy is the reference, and the loss has the value that its formula gives there.

    They are two checks, for a loss may answer to a difference of log-probabilities by any factor.
    The first allows for rounding, which the logit scale magnifies; the second, of the reference in
    place of the policy, has none to allow for.

    Raises:
        TrainingError: the policy is not the reference; nothing has been trained.
        PluginError: the loss has another value, or does not depend on the policy.
    """
    objective, scale = problem.objective, float(problem.part.model.logit_scale)
    allowed = 2 * scale * _ROUNDING[precision]  # of the logit, and of the sum that it is part of
    for part in parts:
        if len(part.preference) and not part.preference.requires_grad:
            raise PluginError(
                f"The loss of the objective {type(objective).__name__} of {owner_of(objective)} "
                "has no gradient: it would train nothing."
            )
        apart = (part.batch.policy.detach() - part.batch.reference).abs()
        if bool((apart > allowed).any()):
            raise TrainingError(
                "Before the first step the policy must be the reference, but a log-probability "
                f"differs by {float(apart.max()):.3g} nats, and rounding explains {allowed:.3g}. "
                "The reference features do not belong to this model: clear the cache, or report "
                "this."
            )
        _check_value(part.batch, objective)


@torch.no_grad()
def _check_value(batch: PolicyBatch, objective: Objective) -> None:
    """The objective of policy = reference is the value that it says it has there."""
    start = replace(batch, policy=batch.reference)
    objective.eval()  # looking changes nothing that it has learnt
    expected, value = objective.initial_value(start), objective(start)
    objective.train()
    if expected is None:
        return
    if not isinstance(expected, torch.Tensor) or expected.shape != value.shape:
        given = list(expected.shape) if isinstance(expected, torch.Tensor) else f"{expected!r:.100}"
        raise PluginError(
            f"initial_value of the objective {type(objective).__name__} of {owner_of(objective)} "
            f"must give one value an image, {list(value.shape)}, and gave {given}."
        )
    wrong = ~((value - expected).abs() <= _TOLERANCE * (1 + expected.abs()))  # or no number
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        raise PluginError(
            f"At policy = reference the objective {type(objective).__name__} of "
            f"{owner_of(objective)} gives an image a loss of {float(value[i]):.6g}, and by its own "
            f"formula (initial_value) it must be {float(expected[i]):.6g}. Report it to its author."
        )


def check_choice(parts: list[Losses], rows: int) -> None:
    """The images of the first step have texts to choose among.

    Args:
        parts: of the step.
        rows: preferences a step.

    Raises:
        TrainingError: there is one text alone, whose probability is always 1.
    """
    if any(part.batch.policy.shape[1] == 1 for part in parts):
        raise TrainingError(
            "Images choose among the texts of their batch, and the first step has one text alone, "
            f"which leaves no choice. Raise --batch-size, which is {rows}, or prepare a set "
            "with more texts to choose among."
        )


def check_gradients(part: TrainablePart) -> list[str]:
    """Every tensor that should train has a gradient.

    Returns:
        Names of tensors whose gradient is exactly zero in this step (a dead unit, for example):
        worth a warning and no more.

    Raises:
        TrainingError: a tensor is not reached by the loss at all, or nothing has a gradient.
    """
    parameters = part.named_parameters()
    missing = [n for n, p in parameters.items() if p.grad is None]
    if missing:
        raise TrainingError(
            f"{len(missing)} of {len(parameters)} trainable tensors are not reached by the loss "
            f"(no gradient): {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}. "
            "Choose another --trainable."
        )
    zero = [n for n, p in parameters.items() if p.grad is not None and not whole(p.grad).any()]
    if len(zero) == len(parameters):
        raise TrainingError(
            "The gradient of the first step is zero everywhere: the objective says nothing about "
            "these preferences. Look at their texts, and at the objective's options."
        )
    return [n for n in zero if n not in part.zero_gradient_at_start]


def not_finite(parts: list[Losses], problem: Problem, step: int, loss: float) -> TrainingError:
    """What to say of a loss that is no number: whether the policy is one says whose fault it is."""
    for part in parts:
        if not bool(part.batch.policy.isfinite().all()):
            continue
        for kind, made_by, value in (
            ("objective", problem.objective, part.preference),
            ("regulariser", problem.regulariser, part.regulariser),
        ):
            if not bool(value.isfinite().all()):
                return TrainingError(
                    f"The loss at step {step} is {loss}, though the log-probabilities are finite: "
                    f"the {kind} {type(made_by).__name__} of {owner_of(made_by)} makes it so. "
                    "Change its options, or report it to its author."
                )
    return TrainingError(
        f"The loss at step {step} is {loss}. Start a new run with a lower --lr, or with "
        "--precision fp32."
    )


def feedback_needed(loss: Objective) -> tuple[str, ...]:
    """The texts that every row must have for an objective."""
    return {"pair": ("chosen", "rejected"), "chosen": ("chosen",), "any": ()}[loss.requires]


def check_feedback(
    preferences: PreferenceSet, splits: Sequence[str], method: str, need: Sequence[str]
) -> None:
    """Refuse an objective that some row of these splits cannot feed, before anything is loaded.

    A row without what the objective needs would have a loss of 0, in validation as in training.
    """
    for row in (row for split in splits for row in preferences.rows(split)):
        if row.chosen is None and row.rejected is None:
            continue
        lacking = [n for n in need if getattr(row, n) is None]
        if lacking:
            raise DataError(
                f"The objective {method!r} needs {' and '.join(need)} in every row, and "
                f"{row.image} has no {' and no '.join(lacking)}. Use kto, which takes judgements "
                "of single texts."
            )
