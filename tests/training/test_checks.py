"""What is proved before any weight moves: that every row can feed the objective, and the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clipalign.build import objective
from clipalign.errors import DataError, PluginError, TrainingError
from clipalign.objectives.base import PolicyBatch
from clipalign.objectives.dpo import DPO
from clipalign.tasks.preference_set import PreferenceRow
from clipalign.training.checks import check_feedback

PAIR = ("chosen", "rejected")


def row(name: str, chosen: str | None, rejected: str | None) -> PreferenceRow:
    return PreferenceRow(Path(), f"{name}.png", None, chosen, rejected)


def test_a_row_that_cannot_feed_the_objective_is_refused_in_every_split_that_is_read() -> None:
    rows = {
        "train": (row("a", "cat", "dog"), row("kept", None, None)),
        "validation": (row("b", "cat", "dog"), row("c", "cat", None)),
    }
    preferences: Any = SimpleNamespace(rows=rows.__getitem__)
    check_feedback(preferences, ["train"], "dpo", PAIR)
    check_feedback(preferences, ["train", "validation"], "kto", ())
    with pytest.raises(DataError, match=r"'dpo' needs chosen and rejected .* c\.png has no rej"):
        check_feedback(preferences, ["train", "validation"], "dpo", PAIR)


def test_rounding_of_a_precision_is_allowed_however_sharply_the_loss_answers(
    make_trainer: Callable[..., Any],
) -> None:
    generator = torch.Generator().manual_seed(0)

    def rounded(precision: str) -> Any:
        trainer = make_trainer(method=objective("dpo", beta=50.0), precision=precision, steps=1)
        reference = trainer.data.reference
        reference += 3e-3 * torch.randn(reference.shape, generator=generator)
        return trainer

    rounded("bf16").run()
    with pytest.raises(TrainingError, match="must be the reference"):
        rounded("fp32").run()


def test_a_batch_with_one_text_is_refused_by_its_size(make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer(method="kto", scope="batch", batch_size=1, steps=1)
    stream = trainer.data.stream
    judged = replace(stream, rejected=torch.full_like(stream.rejected, -1))
    trainer.data = replace(trainer.data, stream=judged)
    with pytest.raises(TrainingError, match=r"one text alone.*--batch-size, which is 1"):
        trainer.run()


class Mistaken(DPO):
    """Says of itself what is not so."""

    def initial_value(self, batch: PolicyBatch) -> torch.Tensor:
        return 0.5 * super().initial_value(batch)


def test_an_objective_that_does_not_start_where_it_says_is_named(
    make_trainer: Callable[..., Any],
) -> None:
    with pytest.raises(PluginError, match=r"Mistaken of .* loss of 0\.693147, and .* be 0\.346574"):
        make_trainer(method=Mistaken()).run()


class Scalar(DPO):
    """Gives one number for all images as what it starts at."""

    def initial_value(self, batch: PolicyBatch) -> Any:
        return 0.6931


def test_an_initial_value_that_is_not_one_an_image_is_named(
    make_trainer: Callable[..., Any],
) -> None:
    with pytest.raises(PluginError, match=r"initial_value .* Scalar .* \[\d+\], and gave 0\.6931"):
        make_trainer(method=Scalar()).run()
