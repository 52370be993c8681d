"""TensorBoard: event files below the run directory, which `tensorboard --logdir runs` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from clipalign import Tracker, TrackerOptions
from clipalign_trackers.library import chart, flat, library


class TensorBoardOptions(TrackerOptions):
    """Options of `tensorboard`."""

    folder: str = Field("tensorboard", description="Of the event files, below the run directory.")


class TensorBoard(Tracker):
    """Writes scalars, and the configuration as a table of text."""

    Options = TensorBoardOptions
    options: TensorBoardOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        library("tensorboard", "tensorboard")
        self._torch = library("torch.utils.tensorboard", "tensorboard")

    def start(self, run_dir: Path, config: Mapping[str, Any], step: int) -> None:
        """Open the event file; what an earlier attempt wrote beyond `step` is hidden."""
        self._writer = self._torch.SummaryWriter(
            str(run_dir / self.options.folder), purge_step=step + 1 if step else None
        )
        rows = "\n".join(f"| {key} | {value} |" for key, value in flat(config))
        self._writer.add_text("configuration", f"| key | value |\n|-|-|\n{rows}", step)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One scalar for each metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(chart(name), value, step)

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Flush and close."""
        self._writer.close()
