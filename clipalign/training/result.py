"""What `train` gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["TrainResult"]


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes:
        run: the run directory, absolute.
        steps: optimiser steps taken.
        model: the exported open_clip directory, absolute.
        open_clip_line: the Python line that loads it.
        trainable: rows (group, tensors, parameters, trained) of what trained.
        metrics: the last measures of the training batch, and those of validation: the last, or
            of `kept_step`.
        kept_step: the step whose weights are kept, where early stopping chose among them.
    """

    run: Path
    steps: int
    model: Path
    open_clip_line: str
    trainable: tuple[tuple[str, int, int, bool], ...]
    metrics: Mapping[str, float]
    kept_step: int | None = None

    def __fspath__(self) -> str:
        """The run, so that it stands wherever a path does: `evaluate(result)`."""
        return str(self.run)

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON and for the hook `run_finished`."""
        parts = [
            {"part": part, "tensors": tensors, "parameters": parameters, "trained": trained}
            for part, tensors, parameters, trained in self.trainable
        ]
        paths = {"run": str(self.run), "model": str(self.model)}
        return dataclasses.asdict(self) | paths | {"trainable": parts}
