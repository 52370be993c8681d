"""Trackers: who hears of a run beside `metrics.jsonl`, which is always written.

A tracker is registered like anything else (kind "trackers") and named in a configuration:

    trackers: [tensorboard, {wandb: {project: clip}}]

It is built before the run exists, so that a missing library or a bad option is refused at once.
From then on it can harm nothing: one that raises is passed over with a warning that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

__all__ = ["Tracker", "TrackerOptions"]


class TrackerOptions(BaseModel):
    """Base of every tracker's options: typed, documented fields, unknown names refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Tracker:
    """Base of every tracker. A subclass overrides what it wants to hear.

    Its constructor imports what it needs and raises `clipalign.PluginError`, with how to install
    it, where that is missing. It may keep files of its own below the run directory.

    One that raises KeyboardInterrupt in `log` stops the training as Ctrl-C does: it is saved.

    Class attributes:
        Options: pydantic model of the tracker's options; each field has a description.
    """

    Options: ClassVar[type[TrackerOptions]] = TrackerOptions

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)

    def start(self, run_dir: Path, config: Mapping[str, Any], step: int) -> None:
        """Training begins.

        Args:
            run_dir: the run directory.
            config: the resolved configuration, as JSON-able values.
            step: optimiser steps done before; above 0 when a run is resumed.
        """

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """A line of `metrics.jsonl`.

        Args:
            step: optimiser steps done, from 1.
            metrics: finite numbers by name, such as loss and validation_loss.
        """

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Training ended: write what is held back.

        Args:
            summary: what `train` returns and prints under `--json`; None where training was
                stopped or failed, and may be resumed.
        """
