"""What a training came to, as its log of steps says it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Outcome", "outcome"]

_VALIDATION = "validation_"


@dataclass(frozen=True)
class Outcome:
    """The end of a log.

    Attributes:
        step: the last one taken; 0 of an empty log.
        kept: the step whose weights early stopping keeps; None where it keeps none.
        metrics: the last measures of the training batch, and those of validation: of `kept` where
            there is one, else the last.
    """

    step: int
    kept: int | None
    metrics: Mapping[str, float]

    def statement(self, total: int) -> str:
        """That training ended before step `total`, or keeps an earlier step; "" of all others."""
        if self.kept is None or self.kept == self.step == total:
            return ""
        early = f"Stopped early, after step {self.step} of {total}. " if self.step < total else ""
        return (
            f"{early}The weights of step {self.kept} are kept: their validation loss, "
            f"{self.metrics['validation_loss']:.4g}, is the lowest."
        )


def outcome(rows: Sequence[Mapping[str, float]], *, early_stopping: bool) -> Outcome:
    """Read the end of a log.

    Args:
        rows: of metrics.jsonl, in order.
        early_stopping: whether the training keeps the weights of its lowest validation loss.
    """
    metrics: dict[str, float] = {}
    for row in rows:
        metrics |= row
    step = int(metrics.pop("step", 0))
    looks = [row for row in rows if "validation_loss" in row]
    # a log that was removed on the way does not tell what went before
    if not (early_stopping and looks and rows[0]["step"] == 1):
        return Outcome(step, None, metrics)
    best = min(looks, key=lambda row: row["validation_loss"])
    measured = {name: value for name, value in best.items() if name.startswith(_VALIDATION)}
    rest = {name: value for name, value in metrics.items() if not name.startswith(_VALIDATION)}
    return Outcome(step, int(best["step"]), rest | measured)
