"""`train`: from a configuration to a finished run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipalign.arguments import plain_arguments
from clipalign.build import regulariser
from clipalign.config import RunConfig, load_config
from clipalign.errors import Interrupted, RunError, UsageError
from clipalign.evals.card import run_card
from clipalign.files import append_jsonl, atomic_write_text
from clipalign.models.acceleration import accelerate
from clipalign.models.export import export_model
from clipalign.models.feature_cache import text_features
from clipalign.models.linear_map import LinearMap
from clipalign.models.load import default_device, load_model
from clipalign.models.load_lines import open_clip_line
from clipalign.models.trainable import apply_trainable, parse_trainable
from clipalign.plugins import call_hook
from clipalign.progress import Bar, Reporter, Silent, heard_by
from clipalign.seeding import seeded
from clipalign.tasks.manifest import read_manifest
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.tasks.prepare import made, plan_of
from clipalign.training.averaging import build_average
from clipalign.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from clipalign.training.checks import check_feedback, feedback_needed
from clipalign.training.defaults import (
    SANE_LR,
    default_lr,
    objective_of,
    regulariser_weight,
    resolved,
)
from clipalign.training.distributed import World, join
from clipalign.training.engine import Trainer
from clipalign.training.environment import environment_of
from clipalign.training.inputs import InputLoader
from clipalign.training.losses import Problem
from clipalign.training.optim import rate_scales
from clipalign.training.outcome import outcome
from clipalign.training.places import anywhere, recorded
from clipalign.training.preflight import (
    check_accumulation,
    check_keys,
    check_places,
    check_ready,
    check_torch,
)
from clipalign.training.result import TrainResult
from clipalign.training.rundir import RunDirectory
from clipalign.training.sharding import check_sharding, gathered, shard
from clipalign.training.signals import StopSignal
from clipalign.training.streams import Stream
from clipalign.training.tracking import Trackers


@plain_arguments
def train(
    config: RunConfig | str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    resume: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    device: str | None = None,
    reporter: Reporter | bool | None = None,
    **keys: Any,
) -> TrainResult:
    """Align a model with preferences.

        clipalign.train(method="kto", task="typographic")
        clipalign.train("recipe.yaml", overrides=["train.epochs=1"], output="runs/mine")

    Under torchrun the processes train as one: every process calls this with the same arguments.

    Args:
        config: a configuration, a YAML file or what it would hold, or None for the defaults.
        resume: a run directory to go on with; excludes everything but `device` and `reporter`.
        overrides: "a.b=c", its value in YAML.
        device: "cpu", "cuda", …; None for a GPU where there is one.
        reporter: hears what is being done; True prints it in plain lines on standard error.
        **keys: values by configuration key, such as method="dpo", lr in train={"lr": 1e-5}.

    Returns:
        Where everything is.

    Raises:
        ConfigError: something in the configuration is wrong; nothing was written.
        DataError, ModelError: the preferences or the model cannot be used.
        UsageError: another key is given beside `resume`, or torch was left unable to train.
        RunError: the run directory is in use, damaged or not empty.
        TrainingError: the first step's checks fail, the loss is not finite, or another process of
            this training is gone.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    check_torch()
    if resume is not None:
        if config is not None or overrides or any(v is not None for v in keys.values()):
            raise UsageError(
                "A resumed run goes on with its own configuration: give --resume alone, or start "
                "a new run with the new options."
            )
        run, settings = RunDirectory.open(Path(resume))
    else:
        settings = anywhere(
            config
            if isinstance(config, RunConfig)
            else load_config(config, overrides, check_options=True, **keys)
        )
        run = None
    device = default_device(device)
    check_keys(settings, device)
    world = join(settings.train.peer_timeout)
    say = heard_by(reporter if world.first else None)
    try:
        # of what an objective may draw; the data has a generator of its own
        with StopSignal() as signal, seeded(settings.seed, device):
            session = _Session(settings, device, say, signal, world)
            session.prepare(new=run is None)
            if run is None:
                run = world.from_first(
                    lambda: RunDirectory.create(
                        recorded(resolved(settings), session.objective, world)
                    )
                )
            with contextlib.ExitStack() as held:
                # the first process holds the run for all
                world.from_first(lambda: held.enter_context(run.lock()))
                if world.first:
                    run.sweep()
                return session.run(run)
    except Interrupted as stopped:
        how = "Nothing was written: run the same command again."
        if run is not None:
            how = f"Go on with: clipalign train --resume {run.path}"
        raise Interrupted(f"{stopped} {how}") from None


@dataclass
class _Session:
    """One call of `train`: gathers what the trainer needs, in the order in which it can fail."""

    config: RunConfig
    device: str
    say: Reporter
    signal: StopSignal
    world: World

    def prepare(self, *, new: bool) -> None:
        """Objective, model, preferences, features: every refusal comes before a run exists.

        What takes no time comes first; images are read and features computed last.
        """
        config = self.config
        self.objective = objective_of(config)
        self.regulariser = regulariser(config.regulariser)
        self.trackers = Trackers(config.trackers)
        self.trainable = parse_trainable(config.trainable)
        check_accumulation(config, self.objective)
        check_sharding(config, self.world)
        check_places(config, self.device, self.world, new=new)
        needs = feedback_needed(self.objective)
        validates = config.train.validate_every is not None
        splits = ["train", "validation"] if validates else ["train"]
        planned = plan_of(config, needs=needs, validates=validates)
        if new:
            check_ready(config, planned)
        if isinstance(planned, PreferenceSet):
            check_feedback(planned, splits, config.method, needs)
        self.model = load_model(
            config.model, self.device, config.train.precision, announce=self.say.note
        )
        self.world.expect_same("model", self.model.sha256)
        self.part = apply_trainable(self.model, self.trainable, seed=config.seed)
        rate_scales(self.part, config.train)
        if isinstance(planned, PreferenceSet):
            texts, regulariser_texts = planned.candidates, planned.regulariser_candidates
        else:
            candidates = planned.candidates
            texts, regulariser_texts = candidates.preference, candidates.regulariser
        self.texts = text_features(self.model, texts)
        self.regulariser_texts = (
            None if regulariser_texts is None else text_features(self.model, regulariser_texts)
        )
        if isinstance(planned, PreferenceSet):
            self.preferences = planned
        else:
            self.preferences = made(planned, config.train.workers, self.say)
            check_feedback(self.preferences, splits, config.method, needs)
        self.world.expect_same("preference set", self.preferences.content_sha256)
        for missing in filter(None, map(self.preferences.left_out, splits)):
            self.say.note(f"Warning: {missing}")
        loader = InputLoader(
            self.part, self.preferences, config.train.workers, config.train.cache_trunk,
            self.objective.takes_rewards, self.say, self.world,
        )  # fmt: skip
        self.data, *validation = loader.load(splits)
        self.validation = validation[0] if validation else None
        steps = config.train
        accelerate(
            self.model,
            gradient_checkpointing=steps.gradient_checkpointing,
            compile=steps.compile,
            channels_last=steps.channels_last,
        )
        if steps.compile and self.part.trunk is not None:
            self.part.trunk = self.part.trunk.compiled()
        if steps.fsdp:
            shard(self.part, self.world)
        self.total = steps.steps or steps.epochs * self.data.stream.steps_per_epoch(
            steps.batch_size
        )
        self.average = build_average(
            steps.averaging, steps.averaging_options, self.part.named_parameters(), self.total
        )

    def run(self, run: RunDirectory) -> TrainResult:
        """Train, or go on training, in a run directory that this process holds."""
        config = self.config
        trainer = self._trainer(_Callbacks(run, self.say, self.signal, self.trackers))
        newest = newest_checkpoint(run.checkpoints)
        self.world.expect_same("checkpoint", newest.name if newest else "none")
        log = None
        if newest is not None:
            self._check_same(run)
            checkpoint = load_checkpoint(newest)
            log = checkpoint.plain.get("metrics_sha256")
            trainer.restore(checkpoint)
            self.say.note(f"Going on from step {trainer.step} of {trainer.total}.")
        self.world.wait()
        if not self.world.first:
            return self._finish(run, trainer)
        run.truncate_metrics(trainer.step, log)
        run.write_environment(environment_of(self.model, self.world))
        atomic_write_text(run.manifest, self.preferences.manifest.dump())
        run.seal()
        call_hook("run_started", run_dir=run.path, config=config)
        self.trackers.start(run.path, config.model_dump(mode="json"), trainer.step)
        try:
            result = self._finish(run, trainer)
        except BaseException:
            self.trackers.finish(None)
            raise
        call_hook("run_finished", run_dir=run.path, summary=result.document())
        self.trackers.finish(result.document())
        return result

    def _check_same(self, run: RunDirectory) -> None:
        """Refuse to go on with another model or other preferences than the run began with.

        Raises:
            RunError: what its configuration names is not what it was.
        """
        before, now = run.environment(), environment_of(self.model, self.world)
        instead = (
            "Put it back as it was, or start a new run with the same configuration: clipalign "
            f"train --config {shlex.quote(str(run.config))} -o NEW"
        )
        if before.get("model_sha256", self.model.sha256) != self.model.sha256:
            raise RunError(
                f"{self.config.model} is another model than the one this run began with: its "
                f"weights or configuration were changed. {instead}"
            )
        if not read_manifest(run.path).same_preferences(self.preferences.manifest):
            raise RunError(
                f"{self.preferences.root} holds other preferences than those this run began with. "
                f"{instead}"
            )
        for name in ("torch", "device", "threads"):
            if before.get(name, now[name]) != now[name]:
                self.say.note(
                    f"This run began with {name} {before[name]}, and goes on with {now[name]}: "
                    "its last bits may come out otherwise."
                )

    def _finish(self, run: RunDirectory, trainer: Trainer) -> TrainResult:
        """Take the steps that are left, and export the model."""
        config = self.config
        callbacks = trainer.callbacks
        assert isinstance(callbacks, _Callbacks)
        with self.say.progress("Training", trainer.total) as bar:
            callbacks.bar = bar
            bar.advance(trainer.step)
            self.signal.within_steps = True
            try:
                trainer.run()
            finally:
                self.signal.within_steps = False
        trainer.keep_final()
        weights = gathered(self.model.clip.state_dict()) if trainer.sharded else None
        if self.world.first:
            if self.part.weight is not None:
                LinearMap(self.part.weight.detach()).save(
                    run.linear_map, model=config.model, model_sha256=self.model.sha256
                )
            export_model(self.part.merge(), run.model, state=weights, card=run_card(run.path))
            run.seal()
        self.world.wait()
        early = config.train.early_stopping_patience is not None
        ended = outcome(run.logged(), early_stopping=early)
        if statement := ended.statement(trainer.total):
            self.say.note(statement)
        return TrainResult(
            run.path.absolute(),
            trainer.step,
            run.model.absolute(),
            open_clip_line(run.model),
            tuple((r.group, r.tensors, r.parameters, r.trained) for r in self.part.rows),
            ended.metrics,
            ended.kept,
        )

    # --- Parts ----------------------------------------------------------------------------------

    def _trainer(self, callbacks: _Callbacks) -> Trainer:
        config, steps = self.config, self.config.train
        weight = regulariser_weight(config)
        if weight and not _has_regulariser_images(self.data.stream):
            callbacks.warn("No image of the set is for the regulariser (D_reg): nothing holds.")
        lr = steps.lr or default_lr(self.trainable, config.model)
        if lr > SANE_LR and self.trainable.kind in ("image-encoder", "last"):
            callbacks.warn(f"A learning rate of {lr:g} is far above what keeps what CLIP knows.")
        problem = Problem(
            self.part, self.objective.to(self.device), self.regulariser, weight,
            steps.orthogonality, self.texts, self.regulariser_texts,
        )  # fmt: skip
        return Trainer(
            problem, self.data, self.validation, steps, lr, self.total, config.seed, self.average,
            callbacks, self.world,
        )  # fmt: skip


class _Callbacks:
    """Writes what the trainer tells into the run directory."""

    def __init__(
        self, run: RunDirectory, say: Reporter, signal: StopSignal, trackers: Trackers
    ) -> None:
        self.directory, self.say, self.signal, self.trackers = run, say, signal, trackers
        self.bar: Bar = Silent()

    def logged(self, step: int, metrics: dict[str, float]) -> None:
        # JSON has no word for infinity, which an fp16 gradient norm can be
        metrics = {k: v for k, v in metrics.items() if math.isfinite(v)}
        append_jsonl(self.directory.metrics, {"step": step, **metrics})
        with self.signal.heeding():
            call_hook("step_logged", run_dir=self.directory.path, step=step, metrics=dict(metrics))
            self.trackers.log(step, metrics)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        log = {"metrics_sha256": self.directory.metrics_sha256()}
        checkpoint = dataclasses.replace(checkpoint, plain={**checkpoint.plain, **log})
        path = save_checkpoint(self.directory.checkpoints, checkpoint)
        with self.signal.heeding():
            run = self.directory.path
            call_hook("checkpoint_saved", run_dir=run, path=path, step=checkpoint.step)

    def advanced(self, step: int, loss: float) -> None:
        self.bar.advance(1, loss=loss)

    def stop_requested(self) -> bool:
        return self.signal.requested

    def warn(self, message: str) -> None:
        self.say.note(f"Warning: {message}")


def _has_regulariser_images(stream: Stream) -> bool:
    return bool(len(stream.spare)) or bool((stream.clean >= 0).any())
