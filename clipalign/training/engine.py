"""The training loop, readable in one sitting.

It knows of no method, no model and no file format: the problem gives the loss, the callbacks do
what is done beside a step. Under many processes each takes its pieces of every batch, and all come
to the same weights; only what is said and written is left to the first. The model stays in
evaluation mode throughout, so that BatchNorm and dropout never make the policy differ from the
reference.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from clipalign.config import TrainConfig
from clipalign.errors import Interrupted, RunError, TrainingError
from clipalign.training.averaging import WeightAverage
from clipalign.training.checkpoint import Checkpoint, flatten_optimizer, unflatten_optimizer
from clipalign.training.checks import check_choice, check_gradients, check_start, not_finite
from clipalign.training.distributed import (
    ALONE,
    GradientSum,
    World,
    exact_elsewhere,
    pieces_for,
)
from clipalign.training.losses import Data, Losses, Problem, losses, measures, needs_whole
from clipalign.training.optim import build_optimizer, rate_at, rate_scales
from clipalign.training.sharding import ShardedSum, gathered, is_sharded, sliced, whole
from clipalign.training.streams import Step


class Callbacks(Protocol):
    """What is done beside a step."""

    def logged(self, step: int, metrics: dict[str, float]) -> None:
        """A row of metrics after `step` steps."""

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep this state."""

    def advanced(self, step: int, loss: float) -> None:
        """One more step is done."""

    def stop_requested(self) -> bool:
        """Whether to save and stop after this step (a signal arrived)."""
        ...

    def warn(self, message: str) -> None:
        """Something that a person should know."""


@dataclass
class Trainer:
    """Trains one problem.

    Args:
        problem: losses and what trains.
        data: the training split.
        validation: the validation split, or None.
        config: how steps are taken.
        lr: peak learning rate.
        total: optimiser steps in all.
        seed: of the order of the data.
        average: of the weights.
        callbacks: what is done beside a step, in the first process alone.
        world: the processes that train together.
    """

    problem: Problem
    data: Data
    validation: Data | None
    config: TrainConfig
    lr: float
    total: int
    seed: int
    average: WeightAverage
    callbacks: Callbacks
    world: World = ALONE
    step: int = 0
    best: float = math.inf
    waited: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pieces = pieces_for(self.config.accumulate, self.world)
        self.parameters = self.problem.part.named_parameters()
        self.sharded = is_sharded(self.parameters)
        # whether a process takes part even in a piece of which it has no rows
        self.whole = self.sharded or (self.world.size > 1 and needs_whole(self.problem.objective))
        self.optimizer = build_optimizer(
            self.parameters.values(),
            self.config,
            self.lr,
            rate_scales(self.problem.part, self.config),
        )
        device = self.problem.part.model.device
        # fp16 gradients underflow without scaling; bf16 has fp32's range and needs none
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=self.config.precision == "fp16" and device.type == "cuda"
        )

    def run(self) -> None:
        """Train to the end, or until early stopping; do nothing where that has been reached.

        Raises:
            TrainingError: the first step's checks fail, or a loss is not finite.
            Interrupted: a signal arrived; the state has been saved.
        """
        saved_at, saved_step = time.monotonic(), self.step
        while not self.done:
            row = self._step()
            self.step += 1
            self.average.update(self.parameters)
            seen = self._look() if self._validate_now() else {}
            if self.world.first:
                if self.step % self.config.log_every == 0 or self.step == 1 or self.done:
                    self.callbacks.logged(self.step, row)
                if seen:
                    self.callbacks.logged(self.step, seen)
                self.callbacks.advanced(self.step, row["loss"])
            every = self.config.checkpoint_every_steps
            minutes = self.config.checkpoint_every_minutes
            due = bool(every and self.step % every == 0) or bool(
                minutes and time.monotonic() - saved_at >= 60 * minutes
            )
            due, stop = self.world.any(due, self.callbacks.stop_requested())
            if due or stop:
                self._save()
                saved_at, saved_step = time.monotonic(), self.step
            if stop and not self.done:
                raise Interrupted(f"Stopped after step {self.step} of {self.total}; saved.")
        if saved_step != self.step:
            self._save()

    @property
    def done(self) -> bool:
        """Whether no step is left: all were taken, or early stopping has run out of patience."""
        patience = self.config.early_stopping_patience
        return self.step >= self.total or (patience is not None and self.waited >= patience)

    def final_weights(self) -> dict[str, Tensor]:
        """The weights to keep: the average, or the best of validation under early stopping."""
        return self.best_weights or self.average.average()

    def _step(self) -> dict[str, float]:
        """One optimiser step; returns what is logged of it."""
        lr = self.lr * rate_at(self.step, self.total, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)  # absent from an early checkpoint
        self.optimizer.zero_grad(set_to_none=True)
        batch = self.data.stream.step(self.step, self.config.batch_size, self.seed)
        self._expect(self.step + 1)
        gradients = (
            ShardedSum()
            if self.sharded
            else GradientSum(list(self.parameters.values()), self.world)
        )
        parts = []
        with self._heard():
            for piece in self._own(batch):
                if len(piece) or self.whole:
                    part = losses(self.problem, self.data, piece, self.world)
                    loss = part.total(self.problem.weight, len(batch.rows), len(batch.regularised))
                    self.scaler.scale(loss).backward()
                    parts.append(part)
                gradients.add()
        row = self._measured([part.table() for part in parts])
        if not math.isfinite(row["loss"]):
            raise not_finite(parts, self.problem, self.step + 1, row["loss"])
        gradients.finish()
        self.scaler.unscale_(self.optimizer)
        if self.step == 0:
            self._check_first(parts)
        norm = self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return row | {"lr": lr, "grad_norm": norm}

    def _heard(self) -> contextlib.AbstractContextManager[None]:
        """Where the passes themselves wait for other processes, say in words that one is gone."""
        return self.world.heard() if self.sharded else contextlib.nullcontext()

    def _expect(self, step: int) -> None:
        """Have the images of a later step decoded meanwhile, where that is left to the step."""
        if step < self.total and not isinstance(self.data.inputs, Tensor):
            later = self.data.stream.step(step, self.config.batch_size, self.seed)
            for piece in self._own(later):
                self.data.inputs.expect(self.data.stream.images(piece))

    def _own(self, batch: Step) -> list[Step]:
        """This process's pieces of a batch."""
        return batch.pieces(self.pieces, self.world.rank, self.world.size)

    def _measured(self, tables: list[Tensor]) -> dict[str, float]:
        """The measures of what all processes did, from the tables of this one's parts."""
        table = torch.cat([torch.empty(0, 5, dtype=torch.float64), *tables])
        return measures(self.world.gather(table), self.problem.penalty(), self.problem.weight)

    def _check_first(self, parts: list[Losses]) -> None:
        check_choice(parts, self.config.batch_size)
        check_start(parts, self.config.precision, self.problem)
        if zero := check_gradients(self.problem.part):
            names = ", ".join(zero[:3]) + (" …" if len(zero) > 3 else "")
            self.callbacks.warn(f"No gradient in the first step reaches {names}.")

    def _clip(self) -> float:
        limit = self.config.clip_grad_norm
        norm = nn.utils.clip_grad_norm_(
            self.parameters.values(), math.inf if limit is None else limit
        )
        norm = whole(norm)
        if not bool(torch.isfinite(norm)) and not self.scaler.is_enabled():
            raise TrainingError(
                f"The gradient at step {self.step + 1} is not finite. Start a new run with a "
                "lower --lr, or with --precision fp32."
            )
        return float(norm)

    # --- Validation -----------------------------------------------------------------------------

    def _validate_now(self) -> bool:
        every = self.config.validate_every
        return bool(self.validation and every and self.step % every == 0)

    def _look(self) -> dict[str, float]:
        """Validate; under early stopping keep the best weights, or count the wait.

        Returns:
            What is logged of it.
        """
        row = self.validate(self.average.average())
        if self.config.early_stopping_patience is not None:
            if row["loss"] < self.best:
                self.best, self.waited = row["loss"], 0
                self.best_weights = {k: v.clone() for k, v in self.average.average().items()}
            else:
                self.waited += 1
        return {f"validation_{k}": v for k, v in row.items()}

    @torch.no_grad()
    def validate(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """The measures of the validation split at the given weights."""
        assert self.validation is not None
        stream, size = self.validation.stream, self.config.batch_size
        current = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._load(weights)
        steps = [stream.step(i, size, self.seed) for i in range(stream.steps_per_epoch(size))]
        self.problem.objective.eval()  # looking changes nothing that it has learnt
        tables = [  # and not the parts, whose policies together are [rows, C]
            losses(self.problem, self.validation, piece, self.world).table()
            for step in steps
            for piece in self._own(step)
            if len(piece) or self.whole
        ]
        row = self._measured(tables)
        self.problem.objective.train()
        self._load(current)
        return row

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(sliced(weights[name], parameter))

    def keep_final(self) -> None:
        """Put the final weights into the model."""
        self._load(self.final_weights())

    # --- State ----------------------------------------------------------------------------------

    def _save(self) -> None:
        """Let the first process keep the state, while the others wait."""
        state = self.state() if self.world.first or self.sharded else None
        if self.world.first and state is not None:
            self.callbacks.checkpoint(state)
        self.world.wait()

    def state(self) -> Checkpoint:
        """Everything that the next step depends on."""
        optimizer, optimizer_plain = flatten_optimizer(self.optimizer.state_dict())
        average, average_plain = self.average.state()
        random, device = {"cpu": torch.get_rng_state()}, self.problem.part.model.device
        if device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(device)
        return Checkpoint(
            self.step,
            {
                "trainable": gathered(self.parameters),
                "optimizer": gathered(optimizer),
                "average": gathered(average),
                "best": gathered(self.best_weights),
                "objective": self.problem.objective.state_dict(),
                "random": random,
            },
            {
                "optimizer": optimizer_plain,
                "average": average_plain,
                "scaler": self.scaler.state_dict(),
                "best": self.best,
                "waited": self.waited,
                "pieces": self.pieces,
                "processes": self.world.size,
            },
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on exactly where `state` was taken.

        Raises:
            RunError: on this number of processes it would not be exact.
        """
        tensors, plain = checkpoint.tensors, checkpoint.plain
        self._split_as(plain.get("pieces", self.config.accumulate), plain.get("processes", 1))
        self.step = checkpoint.step
        self._load(tensors["trainable"])
        self.optimizer.load_state_dict(
            unflatten_optimizer(tensors["optimizer"], plain["optimizer"])
        )
        for parameter, state in self.optimizer.state.items():
            for key, value in state.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    # fused kernels pair elements as they lie in memory (channels last)
                    state[key] = torch.empty_like(parameter).copy_(sliced(value, parameter))
        self.average.restore(self._sliced(tensors["average"]), plain["average"])
        self.best_weights = self._sliced(tensors["best"])
        self.problem.objective.load_state_dict(tensors["objective"])
        if plain["scaler"]:
            self.scaler.load_state_dict(plain["scaler"])
        self.best, self.waited = float(plain["best"]), int(plain["waited"])
        torch.set_rng_state(tensors["random"]["cpu"])
        device = self.problem.part.model.device
        if "cuda" in tensors["random"] and device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random"]["cuda"], device)

    def _sliced(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: sliced(value, self.parameters[name]) for name, value in weights.items()}

    def _split_as(self, pieces: int, processes: int) -> None:
        """Cut batches as before, so that every sum comes out the same to the bit."""
        together = needs_whole(self.problem.objective)  # it sees a batch as one, not in pieces
        alone = together or self.sharded  # a reduce-scatter adds in an order of its own
        exact = [processes] if alone else exact_elsewhere(pieces, processes)
        if self.world.size != processes and self.world.size not in exact:
            raise RunError(
                f"This run was trained by {processes} processes with batches in {pieces} pieces, "
                f"and cannot go on exactly with {self.world.size}: its gradients would be summed "
                f"in another order. Use {' or '.join(map(str, exact))}. (A new run with "
                "train.accumulate=8 can move between 1, 2, 4 and 8.)"
            )
        self.pieces = pieces
