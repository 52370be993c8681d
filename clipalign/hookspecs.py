"""Every place where a package can extend clipalign.

A plugin is a module that an entry point of the group `clipalign` names:

    [project.entry-points.clipalign]
    simpo = "clipalign_simpo"

and that implements any of the hooks below with `@clipalign.hookimpl`:

    import clipalign

    @clipalign.hookimpl
    def register_objectives(register):
        register("simpo", "clipalign_simpo.simpo:SimPO", summary="Reference-free, with a margin.")

The module is imported by every command, `clipalign --help` included, so it imports nothing heavy:
what it registers is a *target*, "package.module:attribute", which is imported when it is used.
Arguments that an implementation does not need may be left out of its signature.

To try something out, `clipalign.register` names it for one process and needs no package.

There are two kinds of hooks. *Registration* hooks run once, when clipalign first looks something
up. *Life-cycle* hooks run in the middle of a command; one that raises is reported as a warning
that names its package, and the run goes on. No hook is called within the arithmetic of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from clipalign.config import RunConfig

API_VERSION = 1
"""Version of this interface. A plugin may say which one it was written for: `CLIPALIGN_API = 1`."""

KINDS = (
    "objectives",
    "regularisers",
    "tasks",
    "datasets",
    "suites",
    "transforms",
    "trackers",
    "commands",
)
"""What can be registered; the hook of a kind is `register_<kind>`."""

hookspec = pluggy.HookspecMarker("clipalign")
hookimpl = pluggy.HookimplMarker("clipalign")


class Register(Protocol):
    """Announces one thing by name; handed to every registration hook."""

    def __call__(self, name: str, target: str, *, summary: str, **metadata: Any) -> None:
        """Announce `name`.

        Args:
            name: what users type: lower-case letters, digits and ". _ -".
            target: "package.module:attribute", imported when it is first used.
            summary: one line for lists and help.
            **metadata: further facts that a list may show without importing the target.
        """


# --- Registration -------------------------------------------------------------------------------


@hookspec
def register_objectives(register: Register) -> None:
    """Preference losses. The target is a subclass of `clipalign.Objective`."""


@hookspec
def register_regularisers(register: Register) -> None:
    """What holds clean images near the reference. The target is a `clipalign.Regulariser`."""


@hookspec
def register_tasks(register: Register) -> None:
    """Makers of preferences. The target builds a `clipalign.tasks.base.Task`.

    Its metadata may say what goes with the task where a configuration leaves it open: `dataset`,
    `trainable`, `train` (a mapping) and the `suite` that a training ends with; `suite_options` (a
    tuple) names the task's options that the suite takes too, and is then given.
    """


@hookspec
def register_datasets(register: Register) -> None:
    """Sources of images. The target builds a `clipalign.datasets.base.Dataset`.

    Its metadata may say in `path` which option NAME:PATH fills, with `named_by_path` (true) that
    results are called after that path too, and in `epochs` how many passes a training takes, where
    neither configuration nor task says.
    """


@hookspec
def register_suites(register: Register) -> None:
    """Evaluations. The target builds a `clipalign.evals.base.Suite`.

    Its metadata may name metrics of it: in `axes` (a tuple) those that `compare` weighs against
    each other and has for columns, in `headline` (a tuple) those that tables and reports begin
    with. Paired tests read one value an image from the column of a metric's own name, in the rows
    that stand beside a result, and from the column `group` which images are not independent; for
    other rows `units` names a "package.module:function" (see `clipalign.evals.units`).
    """


@hookspec
def register_transforms(register: Register) -> None:
    """Edits without training. The target builds a `clipalign.transforms.base.Fitter`."""


@hookspec
def register_trackers(register: Register) -> None:
    """Listeners to a run's metrics beside `metrics.jsonl`. The target is a `clipalign.Tracker`."""


@hookspec
def register_commands(register: Register) -> None:
    """Commands of `clipalign`. The target is a `typer.Typer` or a function that Typer can run."""


# --- Life-cycle ---------------------------------------------------------------------------------


@hookspec
def run_started(run_dir: Path, config: RunConfig) -> None:
    """Training begins or resumes.

    Args:
        run_dir: the run directory; `config.yaml` is already there.
        config: the resolved configuration, frozen.
    """


@hookspec
def step_logged(run_dir: Path, step: int, metrics: Mapping[str, Any]) -> None:
    """A line has been written to `metrics.jsonl`.

    A plugin that raises KeyboardInterrupt here stops the training as Ctrl-C does: it is saved.

    Args:
        run_dir: the run directory.
        step: optimiser steps done, from 1.
        metrics: what the line says besides the step; a copy.
    """


@hookspec
def checkpoint_saved(run_dir: Path, path: Path, step: int) -> None:
    """A checkpoint is complete on disk.

    Args:
        run_dir: the run directory.
        path: the checkpoint.
        step: optimiser steps done.
    """


@hookspec
def run_finished(run_dir: Path, summary: Mapping[str, Any]) -> None:
    """Training ended and the model was exported.

    Args:
        run_dir: the run directory.
        summary: what `train` returns and prints under `--json`, its paths absolute; a copy.
    """
