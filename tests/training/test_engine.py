"""The loop: exact under accumulation and resume, loud when something is wrong."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from clipalign.errors import Interrupted, TrainingError
from clipalign.training import engine, losses

Make = Callable[..., Any]
LORA = pytest.param(
    "lora:2", marks=pytest.mark.skipif(not find_spec("peft"), reason="peft is not installed")
)
KINDS = ["image-encoder", "last:1", LORA, "head"]


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in trainer.parameters.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("trainable", KINDS)
def test_preferences_are_learnt(make_trainer: Make, recorder: Any, trainable: str) -> None:
    seen = recorder()
    make_trainer(trainable=trainable, steps=60, recorder=seen).run()
    first, last = seen.rows[0], seen.rows[-1]
    assert first["preference_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert first["margin"] == pytest.approx(0, abs=1e-3)
    assert last["margin"] > 0.02
    assert last["preference_loss"] < first["preference_loss"]
    assert last["reward_accuracy"] > 0.8


def test_a_heavier_regulariser_holds_the_policy_nearer(make_trainer: Make, recorder: Any) -> None:
    moved = []
    for weight in (0.0, 1.0, 100.0):
        seen = recorder()
        make_trainer(steps=20, weight=weight, recorder=seen).run()
        moved.append(seen.rows[-1]["regulariser"])
    assert moved[0] > moved[1] > moved[2]


def test_only_the_part_that_trains_moves(make_trainer: Make) -> None:
    trainer = make_trainer(trainable="last:1", steps=3)
    clip = trainer.problem.part.model.clip
    before = {k: v.clone() for k, v in clip.state_dict().items()}
    trainer.run()
    trained = set(trainer.parameters)
    for name, value in clip.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in trained), name


@pytest.mark.parametrize("method", ["dpo", "ipo", "kto", "rlhf", "cross-entropy"])
def test_accumulated_parts_give_the_trajectory_of_the_whole_batch(
    make_trainer: Make, method: str
) -> None:
    whole = make_trainer(method=method, accumulate=1, optimizer="sgd")
    parts = make_trainer(method=method, accumulate=3, optimizer="sgd")
    whole.run()
    parts.run()
    for name, value in weights(whole).items():
        torch.testing.assert_close(parts.parameters[name].detach(), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("averaging", ["bma", "ema", "none"])
@pytest.mark.parametrize("trainable", KINDS)
@pytest.mark.parametrize("optimizer", ["adamw", "adamax"])
def test_a_stopped_and_resumed_training_ends_bit_for_bit_the_same(
    make_trainer: Make, recorder: Any, averaging: str, trainable: str, optimizer: str
) -> None:
    options: dict[str, Any] = {"averaging": averaging, "trainable": trainable}
    options |= {"optimizer": optimizer, "weight_decay": 0.1}
    whole = make_trainer(**options)
    whole.run()
    stopped = recorder(stop_after=4)
    with pytest.raises(Interrupted, match="step 4 of 6"):
        make_trainer(recorder=stopped, **options).run()
    resumed = make_trainer(**options)
    resumed.restore(stopped.checkpoints[-1])
    resumed.run()
    assert same(weights(whole), weights(resumed))
    assert same(whole.final_weights(), resumed.final_weights())


def test_every_row_is_seen_once_an_epoch_and_the_small_last_batch_too(make_trainer: Make) -> None:
    trainer = make_trainer(batch_size=5)
    stream = trainer.data.stream
    assert stream.steps_per_epoch(5) == 3
    for epoch in (0, 1):
        steps = [stream.step(3 * epoch + i, 5, seed=0) for i in range(3)]
        assert sorted(torch.cat([s.rows for s in steps]).tolist()) == list(range(12))
        for step in steps:  # each clean image stands beside its attacked one
            assert torch.equal(step.regularised, step.rows + 12)
    orders = {tuple(stream.step(0, 12, seed).rows.tolist()) for seed in range(3)}
    assert len(orders) == 3


def test_a_loss_that_is_not_finite_stops_with_words(make_trainer: Make) -> None:
    trainer = make_trainer()
    with torch.no_grad():
        next(iter(trainer.parameters.values())).fill_(math.nan)
    trainer.step = 1
    with pytest.raises(TrainingError, match="loss at step 2 is nan"):
        trainer.run()


def test_a_reference_of_another_model_is_noticed_before_any_step(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.data.reference.copy_(trainer.data.reference.roll(1, 0))
    before = weights(trainer)
    with pytest.raises(TrainingError, match=r"must be the reference, .*rounding explains 0\.02"):
        trainer.run()
    assert same(before, weights(trainer))


def test_a_tensor_that_the_loss_does_not_reach_is_named(make_trainer: Make) -> None:
    trainer = make_trainer()
    trainer.problem.part._parameters["stray"] = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(TrainingError, match="stray"):
        trainer.run()


def test_early_stopping_keeps_the_best_validation_weights(
    make_trainer: Make, recorder: Any
) -> None:
    seen = recorder()
    trainer = make_trainer(
        steps=40, validation=True, recorder=seen, validate_every=1, early_stopping_patience=2,
        schedule="constant", weight=50.0,
    )  # fmt: skip
    trainer.run()
    found = [r["validation_loss"] for r in seen.rows if "validation_loss" in r]
    if trainer.step < 40:
        assert min(found[-2:]) >= min(found)
    best = trainer.validate(trainer.final_weights())
    assert best["loss"] == pytest.approx(min(found), rel=1e-5)
    trainer.keep_final()
    assert same(weights(trainer), trainer.final_weights())


def test_a_training_that_stopped_early_has_stopped_for_good(
    make_trainer: Make, recorder: Any
) -> None:
    seen = recorder()
    options: dict[str, Any] = {
        "steps": 40, "validation": True, "validate_every": 1, "early_stopping_patience": 2,
        "schedule": "constant", "weight": 50.0, "lr": 0.1, "checkpoint_every_steps": 1,
    }  # fmt: skip
    stopped = make_trainer(recorder=seen, **options)
    stopped.run()
    assert stopped.step < 40
    sparse = recorder()
    make_trainer(recorder=sparse, **options, log_every=100).run()
    assert [r["step"] for r in sparse.rows if "loss" in r] == [1, stopped.step]
    for checkpoint in seen.checkpoints[-2:]:  # after the last step, and killed before it
        again = recorder()
        resumed = make_trainer(recorder=again, **options)
        resumed.restore(checkpoint)
        resumed.run()
        assert resumed.step == stopped.step
        assert again.steps == (0 if checkpoint.step == stopped.step else stopped.step)
        assert same(resumed.final_weights(), stopped.final_weights())


def test_bf16_keeps_fp32_master_weights_and_starts_at_the_reference(
    make_trainer: Make, recorder: Any
) -> None:
    seen = recorder()
    trainer = make_trainer(precision="bf16", recorder=seen)
    trainer.run()
    assert {p.dtype for p in trainer.parameters.values()} == {torch.float32}
    assert seen.rows[0]["preference_loss"] == pytest.approx(math.log(2), abs=0.02)


def test_looking_at_the_validation_split_teaches_the_objective_nothing(make_trainer: Make) -> None:
    trainer = make_trainer(steps=2, validation=True, validate_every=1)
    modes: list[bool] = []
    objective = trainer.problem.objective
    objective.register_forward_hook(lambda *_: modes.append(objective.training))
    trainer.run()
    # one step, and what is checked of the first; then the 12 rows by 4
    assert modes == [True, False, False, False, False, True, False, False, False]


def test_of_what_was_validated_the_policies_are_not_kept(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(validation=True)
    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def watched(*arguments: Any) -> losses.Losses:
        alive.append(sum(policy() is not None for policy in made))
        part = losses.losses(*arguments)
        made.append(weakref.ref(part.batch.policy))
        return part

    monkeypatch.setattr(engine, "losses", watched)
    trainer.validate(trainer.final_weights())
    assert alive == [0, 0, 0]  # the 12 rows by 4
