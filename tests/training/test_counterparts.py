"""Rows may be held to what the reference says of other images, which show their counterpart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from clipalign.policy import log_policy
from clipalign.tasks.base import COUNTERPART, SHOWS
from clipalign.tasks.preference_set import PreferenceRow
from clipalign.training.losses import losses
from clipalign.training.streams import Stream, build_stream

WOMEN, MEN = {0, 1, 2}, {3, 4, 5}


class FakeSet:
    """Six pictures of three women and three men, and two that only the regulariser sees."""

    root, scope, candidates = Path("set"), "all", ("a man", "a woman")

    def rows(self, split: str) -> list[PreferenceRow]:
        rows = []
        for i in range(6):
            own, other = ("woman", "man") if i in WOMEN else ("man", "woman")
            columns = {SHOWS: own, COUNTERPART: other if i != 5 else "nobody"}
            partner = f"{i}.png" if i != 2 else None
            rows.append(
                PreferenceRow(
                    Path(), f"{i}.png", partner, f"a {other}", f"a {own}", columns=columns
                )
            )
        nothing = {SHOWS: "", COUNTERPART: ""}
        rows += [
            PreferenceRow(Path(), f"{i}.png", None, None, None, columns=nothing) for i in (6, 7)
        ]
        return rows


@pytest.fixture
def stream() -> Stream:
    return build_stream(FakeSet(), "train")


def pairs(stream: Stream, steps: int, seed: int = 0) -> list[tuple[int, int]]:
    found = []
    for number in range(steps):
        step = stream.step(number, 3, seed)
        found += zip(step.regularised.tolist(), step.held_to.tolist(), strict=True)
    return found


def test_each_is_held_to_an_image_of_what_it_is_to_be_like(stream: Stream) -> None:
    seen: dict[int, set[int]] = {}
    for image, held_to in pairs(stream, 200):
        seen.setdefault(image, set()).add(held_to)
    with_partner = WOMEN - {2}
    assert all(seen[i] == MEN for i in with_partner)
    assert all(seen[i] == with_partner for i in (3, 4))  # 2 has no clean image to be drawn
    assert seen[5] == {5}  # nobody shows what it is to be like
    assert all(seen[i] == {i} for i in (6, 7))


def test_the_draw_is_decided_by_seed_and_step_alone(stream: Stream) -> None:
    assert pairs(stream, 20) == pairs(stream, 20)
    assert pairs(stream, 20) != pairs(stream, 20, seed=1)
    step = stream.step(5, 3, 0)
    pieces = [piece for rank in range(2) for piece in step.pieces(2, rank, 2)]
    assert torch.equal(torch.cat([p.held_to for p in pieces]), step.held_to)


def test_without_the_columns_every_image_is_held_to_itself(stream: Stream) -> None:
    plain = dataclasses.replace(stream, counterpart=None, groups=())
    assert all(image == held_to for image, held_to in pairs(plain, 20))
    assert [a for a, _ in pairs(plain, 20)] == [a for a, _ in pairs(stream, 20)]


def test_the_regulariser_compares_with_the_reference_of_the_counterpart(make_trainer) -> None:
    trainer = make_trainer()
    problem, data = trainer.problem, trainer.data
    step = data.stream.step(0, 4, 0)
    step = dataclasses.replace(step, held_to=step.regularised.flip(0))
    found = losses(problem, data, step).regulariser
    texts = problem.texts if problem.regulariser_texts is None else problem.regulariser_texts
    model = problem.part.model
    with torch.no_grad():
        features = problem.part.image_features(data.inputs[step.regularised])
        policy = log_policy(features, texts, model.logit_scale, model.logit_bias)
        reference = log_policy(
            data.reference[step.held_to], texts, model.logit_scale, model.logit_bias
        )
        expected = (reference.exp() * (reference - policy)).sum(dim=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert float(found.detach().max()) > 0  # another image's, so not 0 at the start
