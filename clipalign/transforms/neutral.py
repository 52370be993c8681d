"""The neutral t*: where W_t makes a model indifferent between the two values of a concept.

First the roots of the group gap, by bisection; then the choice: among all t in range, roots
included, the one whose concept accuracy is nearest to ½ with the activity accuracy down by at most
ε from t = 0 (arXiv 2411.08923). Where several are equally near, the smallest gap decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from clipalign.errors import UsageError
from clipalign.evals.statistics import Interval
from clipalign.transforms.choice import Choice
from clipalign.transforms.probe import Floats
from clipalign.transforms.spectrum import Powers

__all__ = ["Neutral", "find_neutral", "find_root"]

_STEPS = 100  # of the range


@dataclass(frozen=True)
class Neutral:
    """The neutral t, and how sure it is.

    Attributes:
        concept, values: as the probe names them.
        t: t*.
        interval: of t*, by resampling groups of images; None for fewer than two groups.
        root: the t nearest to 0 at which the group gap closes; None where none in range does.
        plain_root: the same of the gap without normalisation, Σ_k σ_k^{2t} c_k.
        low, high: range searched.
        gap_low, gap_high: the group gap at its ends.
        epsilon: largest drop of the activity accuracy that was allowed.
        concept_accuracy, concept_accuracy_at_0: share of right values at t* and at t = 0.
        activity_accuracy, activity_accuracy_at_0: None where there are no activities.
        images: N.
        independent: groups of images, which are what is resampled.
    """

    concept: str
    values: tuple[str, str]
    t: float
    interval: Interval | None
    root: float | None
    plain_root: float | None
    low: float
    high: float
    gap_low: float
    gap_high: float
    epsilon: float
    concept_accuracy: float
    concept_accuracy_at_0: float
    activity_accuracy: float | None
    activity_accuracy_at_0: float | None
    images: int
    independent: int

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON and YAML."""
        return asdict(self) | {"values": list(self.values)}

    @classmethod
    def rebuild(cls, document: Mapping[str, Any]) -> Self:
        """What `document` was of."""
        interval = document["interval"] and Interval(**document["interval"])
        values = tuple(document["values"])
        return cls(**{**document, "interval": interval, "values": values})

    def statement(self) -> str:
        """What was found, in sentences."""
        near = ""
        if self.interval is not None:
            over = f"{self.images} images"
            if self.independent < self.images:
                over = f"{self.independent} groups of {over}"
            near = (
                f" [{self.interval.low:.2f}, {self.interval.high:.2f}] "
                f"({100 * self.interval.level:g} % bootstrap over {over})"
            )
        words = [
            f"t* = {self.t:.3f}{near}: {self.concept} accuracy {_percent(self.concept_accuracy)} "
            f"({_percent(self.concept_accuracy_at_0)} at t = 0)"
        ]
        if self.activity_accuracy is None or self.activity_accuracy_at_0 is None:
            words[0] += "; without activities nothing bounds what that costs."
        else:
            words[0] += (
                f", activity accuracy {_percent(self.activity_accuracy)} "
                f"({_percent(self.activity_accuracy_at_0)} at t = 0)."
            )
        if self.root is None:
            words.append(
                f"The group gap has no root in [{self.low:g}, {self.high:g}]: it is "
                f"{self.gap_low:.4f} at {self.low:g} and {self.gap_high:.4f} at {self.high:g}, so "
                "no t there is neutral and this one only comes nearest. Train longer, or search a "
                "wider range."
            )
        else:
            words.append(f"The group gap closes at t = {self.root:.3f}.")
        return " ".join(words)


def find_neutral(
    powers: Powers,
    *,
    low: float = 0.0,
    high: float = 1.0,
    epsilon: float = 0.03,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Neutral:
    """Find t*.

    Args:
        powers: of the map, with the probe's features.
        low: where the range to search begins.
        high: where it ends.
        epsilon: largest drop of the activity accuracy from t = 0, as a share.
        resamples: of the bootstrap; each resample repeats the choice.
        level: coverage of the interval.
        seed: of the resampling.

    Raises:
        UsageError: the range is empty, or no t in it keeps the activity accuracy.
    """
    if not low < high:
        raise UsageError(f"The range {low:g} to {high:g} of t is empty.")
    grid = np.linspace(low, high, _STEPS + 1)
    root = find_root(powers.gap, grid)
    plain_root = find_root(powers.plain_gap, grid)
    ts = grid if root is None else np.unique(np.append(grid, root))
    start = powers.at(0.0)
    choice = Choice(start)
    for t in ts:
        choice.add(powers.at(float(t)))
    chosen = choice.best(epsilon)
    if chosen < 0:
        raise UsageError(
            f"No t from {low:g} to {high:g} keeps the activity accuracy within {epsilon:g} of what "
            "it is at t = 0. Allow more with --epsilon, or give a --range that holds 0."
        )
    best, probe = powers.at(float(ts[chosen])), start.features.probe
    return Neutral(
        concept=probe.name,
        values=probe.values,
        t=float(ts[chosen]),
        interval=choice.interval(ts, epsilon, resamples, level, seed),
        root=root,
        plain_root=plain_root,
        low=low,
        high=high,
        gap_low=powers.gap(low),
        gap_high=powers.gap(high),
        epsilon=epsilon,
        concept_accuracy=best.concept_accuracy,
        concept_accuracy_at_0=start.concept_accuracy,
        activity_accuracy=best.activity_accuracy,
        activity_accuracy_at_0=start.activity_accuracy,
        images=len(probe.value),
        independent=choice.independent,
    )


def find_root(f: Callable[[float], float], grid: Floats) -> float | None:
    """The root of f nearest to 0 of those that a grid brackets, by bisection.

    Args:
        f: continuous.
        grid: [T] ascending; between neighbours f is taken to change its sign at most once.

    Returns:
        A root to the last digits; None where no two neighbours differ in sign.
    """
    signs = [np.sign(f(float(t))) for t in grid]
    roots = [float(t) for t, sign in zip(grid, signs, strict=True) if sign == 0]
    for i in range(len(grid) - 1):
        if signs[i] * signs[i + 1] < 0:
            roots.append(_bisect(f, float(grid[i]), float(grid[i + 1]), float(signs[i])))
    return min(roots, key=abs) if roots else None


def _bisect(f: Callable[[float], float], low: float, high: float, sign: float) -> float:
    """The root between low, where f has this sign, and high, where it has the other."""
    while True:
        middle = (low + high) / 2
        if not low < middle < high or high - low < 1e-12:
            return middle
        if f(middle) * sign > 0:
            low = middle
        else:
            high = middle


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
