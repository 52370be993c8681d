"""Weights & Biases."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from clipalign import Tracker, TrackerOptions
from clipalign_trackers.library import chart, library


class WandBOptions(TrackerOptions):
    """Options of `wandb`."""

    project: str = Field("clipalign", description="Project that runs are put into.")
    entity: str | None = Field(None, description="User or team; null for your default.")
    group: str | None = Field(None, description="Runs of one group are shown together.")
    tags: tuple[str, ...] = Field((), description="Of the run.")
    mode: Literal["online", "offline", "disabled"] | None = Field(
        None, description="null for WANDB_MODE, or else online; offline runs wait for `wandb sync`."
    )


class WandB(Tracker):
    """Logs metrics and the configuration; its files lie in RUN/wandb.

    A resumed run goes on under the same id, which RUN/wandb-id keeps.
    """

    Options = WandBOptions
    options: WandBOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._wandb = library("wandb", "wandb")

    def start(self, run_dir: Path, config: Mapping[str, Any], step: int) -> None:
        """Begin a run, or go on with the one of this directory."""
        kept = run_dir / "wandb-id"
        if not kept.is_file():
            kept.write_text(secrets.token_hex(4))
        self._run = self._wandb.init(
            project=self.options.project,
            entity=self.options.entity,
            group=self.options.group,
            tags=list(self.options.tags) or None,
            mode=self.options.mode,
            name=run_dir.name,
            id=kept.read_text().strip(),
            resume="allow" if step else None,
            dir=str(run_dir),
            config=dict(config),
            # standard output is the command's: it may be carrying a JSON document
            settings=self._wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row."""
        self._run.log({chart(name): value for name, value in metrics.items()}, step=step)

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Close the run; one that was stopped is marked as such."""
        if summary is not None:
            self._run.summary.update({"steps": summary["steps"], "model": summary["model"]})
        self._run.finish(exit_code=0 if summary is not None else 1)
