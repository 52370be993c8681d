"""What a training is refused for before anything is loaded: all that a configuration says."""

from __future__ import annotations

from pathlib import Path

import torch

from clipalign.config import RunConfig
from clipalign.errors import ConfigError, UsageError
from clipalign.files import check_writable
from clipalign.models.loaded import usable_device
from clipalign.models.spec import parse_model_spec
from clipalign.objectives.base import Objective
from clipalign.plugins import registry
from clipalign.tasks.plan import Plan
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.training.averaging import build_average
from clipalign.training.distributed import World
from clipalign.training.losses import needs_whole
from clipalign.training.rundir import RUNS, check_vacant

__all__ = ["check_accumulation", "check_keys", "check_places", "check_ready", "check_torch"]


def check_torch() -> None:
    """Whoever calls has left torch able to train.

    Raises:
        UsageError: it keeps no gradients, or makes numbers of another type.
    """
    if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
        raise UsageError(
            "torch keeps no gradients here: call train outside of torch.no_grad() and "
            "torch.inference_mode(), or after torch.set_grad_enabled(True)."
        )
    if torch.get_default_dtype() != torch.float32:
        raise UsageError(
            f"torch's default type is {torch.get_default_dtype()}, and models are trained in "
            "torch.float32: call torch.set_default_dtype(torch.float32) before."
        )


def check_keys(config: RunConfig, device: str) -> None:
    """Rules between keys, all at once.

    Raises:
        ConfigError: naming every key that goes against one.
    """
    train = config.train
    problems = []
    if train.early_stopping_patience is not None:
        if train.validate_every is None:
            problems.append("train.early_stopping_patience needs train.validate_every")
        if train.averaging == "bma":
            problems.append(
                "train.early_stopping_patience does not go with train.averaging=bma, whose weights "
                "depend on the true horizon; use ema or none"
            )
    if train.precision == "fp16" and not device.startswith("cuda"):
        problems.append(
            f"train.precision=fp16 needs a GPU, and this runs on {device}; use bf16 or fp32"
        )
    if problems:
        lines = "\n".join(f"  {p}" for p in problems)
        raise ConfigError(f"There is something wrong in the configuration:\n{lines}")
    build_average(train.averaging, train.averaging_options, {}, 1)


def check_ready(config: RunConfig, ready: PreferenceSet | Plan) -> None:
    """A new run says nothing of how to prepare, beside a set that is prepared or a table.

    Raises:
        UsageError: it names another task, or options that would change nothing.
    """
    tasks = registry("tasks")
    usual = tasks.entry(config.task).metadata.get(
        "dataset", RunConfig.model_fields["dataset"].default
    )
    if isinstance(ready, Plan):
        if config.data is not None and config.dataset != usual:
            raise UsageError(
                f"{config.data} is a table of images, so dataset={config.dataset} would change "
                "nothing: leave one of them out."
            )
        return
    made = ready.manifest
    if made.task != config.task and made.task in tasks.names():
        raise UsageError(
            f"{ready.root} holds preferences of the task {made.task!r}, and not of "
            f"{config.task!r}. Leave the task out, or name a set of that task."
        )
    without = [
        key
        for key, given in (
            ("task_options", config.task_options),
            ("dataset_options", config.dataset_options),
            ("dataset", config.dataset not in (usual, made.dataset)),
        )
        if given
    ]
    if without:
        raise UsageError(
            f"{ready.root} is prepared already, so {', '.join(without)} would change nothing: "
            "leave them out, or leave data out to prepare another set."
        )


def check_places(config: RunConfig, device: str, world: World, *, new: bool) -> None:
    """The model is there, the device can be used, and the place of the run is free.

    Args:
        config: of the run.
        device: as it was asked for.
        world: its first process looks at the run directory for all.
        new: whether the run is to be made; one that goes on has its directory.

    Raises:
        ModelError: the spec names nothing.
        UsageError: the device cannot be used.
        RunError: the run directory holds something.
        StorageError: it could not be written.
    """
    parse_model_spec(config.model)
    usable_device(device)
    if new:
        world.from_first(lambda: _check_output(config.output))


def _check_output(output: Path | None) -> None:
    if output is not None:
        check_vacant(output)
    check_writable(output or RUNS)


def check_accumulation(config: RunConfig, loss: Objective) -> None:
    """Batches may be cut into pieces only where the objective looks at one image at a time.

    Raises:
        ConfigError: they are, and it does not.
    """
    if config.train.accumulate == 1:
        return
    if not loss.per_image:
        raise ConfigError(
            f"The objective {config.method!r} compares images within a batch, so accumulating "
            "gradients would change it: set train.accumulate=1."
        )
    if needs_whole(loss):
        raise ConfigError(
            f"The objective {config.method!r} keeps a state, which it must update once a step with "
            "the whole batch: set train.accumulate=1."
        )
