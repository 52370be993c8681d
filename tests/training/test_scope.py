"""What an image chooses among in training: all texts, those of its batch, or its row's own two."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from clipalign.errors import DataError
from clipalign.tasks.preference_set import PreferenceRow
from clipalign.training.losses import losses
from clipalign.training.streams import Step, build_stream

ROWS = torch.tensor([4, 1, 5])


def scoped(make_trainer, scope, **options):
    """A trainer whose images choose so, and its step over three rows."""
    trainer = make_trainer(**options)
    stream = dataclasses.replace(trainer.data.stream, scope=scope)
    trainer.data = dataclasses.replace(trainer.data, stream=stream)
    trainer.problem = dataclasses.replace(trainer.problem, regulariser_texts=None)
    texts = None if scope == "all" else stream._texts(ROWS)
    return trainer, Step(ROWS, ROWS + 12, ROWS + 12, texts)


def logits(trainer):
    """[3, 6] of the three images and all texts, by hand."""
    data, problem = trainer.data, trainer.problem
    features = problem.part.image_features(data.inputs[ROWS])
    return problem.part.model.logit_scale * features @ problem.texts.T


@pytest.mark.parametrize("trainable", ["image-encoder", "head"])
def test_the_batch_chooses_among_its_own_texts(make_trainer, trainable):
    trainer, step = scoped(make_trainer, "batch", trainable=trainable)
    # rows 4, 1, 5 choose texts 4, 1, 5 over 5, 2, 0
    assert step.texts.tolist() == [0, 1, 2, 4, 5]
    batch = losses(trainer.problem, trainer.data, step).batch
    assert batch.chosen.tolist() == [3, 1, 4]
    assert batch.rejected.tolist() == [4, 2, 0]
    if trainable != "head":
        expected = logits(trainer)[:, step.texts].log_softmax(1)
        torch.testing.assert_close(batch.policy, expected, atol=1e-4, rtol=1e-4)


def test_a_row_chooses_between_its_own_two(make_trainer):
    trainer, step = scoped(make_trainer, "row")
    result = losses(trainer.problem, trainer.data, step)
    own = torch.stack([ROWS % 6, (ROWS + 1) % 6], dim=1)
    expected = logits(trainer).gather(1, own).log_softmax(1)
    torch.testing.assert_close(result.batch.policy, expected, atol=1e-4, rtol=1e-4)
    assert result.batch.chosen.tolist() == [0, 0, 0]
    assert result.batch.rejected.tolist() == [1, 1, 1]


def test_a_missing_text_stays_missing(make_trainer):
    trainer, _ = scoped(make_trainer, "batch")
    stream = trainer.data.stream
    rejected = stream.rejected.clone()
    rejected[1] = -1
    stream = dataclasses.replace(stream, rejected=rejected)
    trainer.data = dataclasses.replace(trainer.data, stream=stream)
    step = Step(ROWS, ROWS + 12, ROWS + 12, stream._texts(ROWS))
    assert step.texts.tolist() == [0, 1, 4, 5]
    batch = losses(trainer.problem, trainer.data, step).batch
    assert batch.rejected.tolist() == [3, -1, 0]


@pytest.mark.parametrize("method", ["dpo", "ipo"])
def test_losses_of_the_margin_do_not_see_the_scope(make_trainer, method):
    found = []
    for scope in ("all", "batch", "row"):
        trainer, step = scoped(make_trainer, scope, method=method)
        with torch.no_grad():  # away from the reference, where the margin is not 0
            for p in trainer.parameters.values():
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
        found.append(losses(trainer.problem, trainer.data, step).preference)
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[0], found[2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scope", ["batch", "row"])
def test_a_step_cut_into_parts_takes_the_same_way(make_trainer, scope):
    weights = []
    for accumulate in (1, 2):
        options = {"method": "kto", "optimizer": "sgd", "steps": 3, "rows": 10}
        trainer, _ = scoped(
            make_trainer, scope, accumulate=accumulate, validation=True, validate_every=2, **options
        )
        trainer.validation = trainer.data
        trainer.run()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.parameters.values()]))
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("scope", ["batch", "row"])
def test_the_parts_of_a_step_lose_together_what_the_whole_loses(make_trainer, scope):
    trainer, step = scoped(make_trainer, scope, method="kto")
    with torch.no_grad():  # away from the reference, where the regulariser is not 0
        for p in trainer.parameters.values():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
    whole = losses(trainer.problem, trainer.data, step)
    assert whole.regulariser.max() > 1e-3
    for size in (1, 2):  # of processes
        pieces = [piece for rank in range(size) for piece in step.pieces(2, rank, size)]
        assert [len(piece.rows) for piece in pieces] == [2, 1]
        assert all(torch.equal(piece.texts, step.texts) for piece in pieces)
        parts = [losses(trainer.problem, trainer.data, piece) for piece in pieces]
        for name in ("preference", "regulariser"):
            together = torch.cat([getattr(part, name) for part in parts])
            torch.testing.assert_close(together, getattr(whole, name), atol=1e-5, rtol=1e-5)
        total = sum(part.total(0.5, 3, 3) for part in parts)
        torch.testing.assert_close(total, whole.total(0.5, 3, 3), atol=1e-5, rtol=1e-5)


def test_a_row_without_a_pair_cannot_choose_between_its_two(tmp_path):
    rows = [PreferenceRow(tmp_path, f"{i}.png", None, "a cat", "a dog") for i in range(2)]
    rows.append(PreferenceRow(tmp_path, "2.png", None, None, None))  # which only D_reg sees
    preferences = SimpleNamespace(
        root=tmp_path, scope="row", candidates=("a cat", "a dog"), rows=lambda split: rows
    )
    assert len(build_stream(preferences, "train")) == 2
    rows.append(PreferenceRow(tmp_path, "3.png", None, "a dog", None))
    with pytest.raises(DataError, match=r"3\.png has no rejected text"):
        build_stream(preferences, "train")


@pytest.mark.parametrize("scope", ["all", "batch", "row"])
def test_rewards_of_the_rows_reach_their_candidates_in_every_scope(make_trainer, scope):
    trainer, step = scoped(make_trainer, scope, method="rlhf")
    reward = torch.stack([torch.arange(12.0), -torch.arange(12.0)], dim=1)
    stream = dataclasses.replace(trainer.data.stream, reward=reward)
    trainer.data = dataclasses.replace(trainer.data, stream=stream)
    result = losses(trainer.problem, trainer.data, step)
    batch = result.batch
    rows = torch.arange(3)
    assert batch.reward[rows, batch.chosen].tolist() == [4, 1, 5]
    assert batch.reward[rows, batch.rejected].tolist() == [-4, -1, -5]
    assert batch.reward.count_nonzero() == 6
    expected = -(batch.reference.exp() * batch.reward).sum(1)  # RLHF at the start
    torch.testing.assert_close(result.preference, expected, atol=1e-3, rtol=1e-3)
