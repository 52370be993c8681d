"""From what models say of grouped images to the numbers of the suite `gender`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clipalign.evals import fairness
from clipalign.evals.collector import Collector
from clipalign.evals.grouped import Grouped, Seen
from clipalign.evals.resampling import normal_interval, resample
from clipalign.evals.results import Comparison, MetricValue
from clipalign.evals.statistics import count_groups

__all__ = ["Audit", "add_audits", "add_means"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Of a number: what it is called in a table, and what it can be."""

    description: str
    good: bool | None
    unit: str = "share"
    low: float = 0.0
    high: float = math.inf
    queries: bool = False  # whether it is made of queries rather than images


def add_means(into: Collector, grouped: Grouped, seen: Sequence[Seen]) -> None:
    """Add accuracies, of values and activities, and the flip rate.

    Args:
        into: where to.
        grouped: N images.
        seen: by the model and, where there is one, by the reference.
    """
    name, known = grouped.concept.name, grouped.activity >= 0
    own = [s.own.argmax(axis=1) for s in seen]
    right = [np.asarray(predicted == grouped.value) for predicted in own]

    def mean(metric: str, each: Sequence[Bools], rows: Bools, good: bool | None, text: str) -> None:
        picked = [values[rows] for values in each]
        into.mean(metric, picked, grouped.group[rows], higher_is_better=good, description=text)

    every = np.ones(len(grouped.value), np.bool_)
    how = "between the captions of its own activity" if known.any() else "asked by itself"
    mean(f"{name}_accuracy", right, every, None, f"Share of images given their {name}, {how}.")
    mean(
        f"{name}_accuracy_plain",
        [s.alone.argmax(axis=1) == grouped.value for s in seen],
        every,
        None,
        f"Share of images given their {name}, asked by itself.",
    )
    for a, value in enumerate(grouped.values):
        rows = grouped.value == a
        mean(
            f"{name}_accuracy_{value}", right, rows, None, f"The same as {name}_accuracy, {value}."
        )
    if len(own) > 1:
        into.value(
            "flip_rate",
            own[0] != own[1],
            grouped.group,
            higher_is_better=None,
            description=f"Share of images whose predicted {name} is not the reference's.",
        )
    hits = [s.activities.predicted == grouped.activity for s in seen if s.activities]
    if hits:
        among = f"among the neutral captions of all {len(grouped.activities)}"
        mean("activity_accuracy", hits, known, True, f"Share given their activity, {among}.")
        jobs = known & grouped.occupation
        mean("occupation_accuracy", hits, jobs, True, "The same, images of occupations alone.")


@dataclass(frozen=True)
class Audit:
    """One model's search of the gallery, and its even-handedness.

    Attributes:
        grouped: N images, all of them the gallery.
        seen: by the model.
        k: places that count.
        share: [Q] published share of the first value; NaN where it is not known.
    """

    grouped: Grouped
    seen: Seen
    k: int
    share: Floats

    @property
    def two(self) -> bool:
        """Whether there are two values, as Bias@K takes."""
        return len(self.grouped.values) == 2

    @cached_property
    def place(self) -> Ints:
        """[Q, N] of each image in the order of each query."""
        return self.seen.order.argsort(axis=1)

    @cached_property
    def ranked(self) -> Ints:
        """[Q, N] value of the image in each place."""
        return np.asarray(self.grouped.value[self.seen.order], np.int64)

    def shares(self, rows: Ints | None = None) -> tuple[Ints, Floats, int]:
        """The gallery in order, the composition of its top k, and that k.

        Args:
            rows: of the gallery, some perhaps twice; None for all. Copies of an image stand side by
                side, and k is at most how many there are.
        """
        ranked = self.ranked
        if rows is not None:
            ranked = np.take_along_axis(ranked, np.sort(self.place[:, rows], axis=1), axis=1)
        k = min(self.k, ranked.shape[1])
        return ranked, fairness.top_shares(ranked, k, len(self.grouped.values)), k

    def numbers(self, rows: Ints | None = None) -> dict[str, float]:
        """All of them; NaN for one that these images do not have."""
        everything = np.arange(len(self.grouped.value))
        chosen = everything if rows is None else rows
        value, groups = self.grouped.value[chosen], len(self.grouped.values)
        right = self.seen.own.argmax(axis=1)[chosen] == value
        found = {
            f"worst_{self.grouped.concept.name}_accuracy": fairness.worst_group_accuracy(
                right, value, groups
            )
        }
        accuracy = math.nan
        if self.seen.activities is not None:
            accuracy = self._classification(chosen, found)
        if len(self.ranked):
            self._search(rows, value, accuracy, found)
        return found

    def per_query(self) -> list[dict[str, float | int | None]]:
        """[Q] composition of the top k, skews, Bias@K, and the published share."""
        ranked, shares, k = self.shares()
        values, n = self.grouped.values, len(self.grouped.values)
        skews = fairness.skew(shares, fairness.equal_shares(n), k)
        divergence = fairness.ndkl(ranked, fairness.equal_shares(n))
        rows: list[dict[str, float | int | None]] = []
        for q, share in enumerate(shares):
            row: dict[str, float | int | None] = {
                f"n_{value}_at_k": round(float(share[a]) * k) for a, value in enumerate(values)
            }
            row |= {
                "max_skew": float(skews[q].max()),
                "min_skew": float(skews[q].min()),
                "ndkl": float(divergence[q]),
            }
            if self.two:
                row["bias_at_k"] = float(fairness.bias_at_k(shares[q : q + 1])[0])
            if np.isfinite(self.share[q]):
                row[f"published_share_{values[0]}"] = float(self.share[q])
            rows.append(row)
        return rows

    def _classification(self, rows: Ints, found: dict[str, float]) -> float:
        """Parity gaps over the activities; returns the accuracy."""
        assert self.seen.activities is not None
        rows = rows[self.grouped.activity[rows] >= 0]
        true, value = self.grouped.activity[rows], self.grouped.value[rows]
        predicted = self.seen.activities.predicted[rows]
        classes, groups = len(self.grouped.activities), len(self.grouped.values)
        right = predicted == true
        found["worst_activity_accuracy"] = fairness.worst_group_accuracy(right, value, groups)
        for name, rates in (
            ("demographic_parity", fairness.selection_rates(predicted, value, classes, groups)),
            ("equal_opportunity", fairness.recalls(predicted, true, value, classes, groups)),
        ):
            gap = fairness.gap(rates)
            found[f"{name}_difference"] = _mean_of_known(gap.difference)
            found[f"{name}_ratio"] = _mean_of_known(gap.ratio)
        return float(right.mean()) if len(right) else math.nan

    def _search(
        self, rows: Ints | None, value: Ints, accuracy: float, found: dict[str, float]
    ) -> None:
        ranked, shares, k = self.shares(rows)
        groups = len(self.grouped.values)
        base = fairness.base_rate(value, groups)
        for suffix, desired in (("", fairness.equal_shares(groups)), ("_base_rate", base)):
            if not (desired > 0).all():  # a resample without one of the values
                continue
            skews = fairness.skew(shares, desired, k)
            found[f"max_skew{suffix}"] = fairness.max_skew(skews)
            found[f"min_skew{suffix}"] = fairness.min_skew(skews)
            found[f"ndkl{suffix}"] = float(fairness.ndkl(ranked, desired).mean())
        if self.two:
            bias = fairness.bias_at_k(shares)
            found["bias_at_k"] = float(bias.mean())
            found["mean_abs_bias_at_k"] = float(np.abs(bias).mean())
        found["able"] = fairness.able(accuracy, found["max_skew"])
        known = np.isfinite(self.share)
        found["labour_correlation"] = fairness.spearman(shares[known, 0], self.share[known])

    def _luck(self) -> str:
        """What a search would have that is blind to the values."""
        groups, member, size = np.unique(
            self.grouped.group, return_inverse=True, return_counts=True
        )
        values = " and ".join(self.grouped.values)
        if len(groups) == len(member):
            n = np.bincount(self.grouped.value, minlength=2)
            chance = fairness.bias_of_chance((int(n[0]), int(n[1])), self.k)
            return f"a ranking blind to {values} has {100 * chance:.1f} %"
        shares = np.bincount(member, self.grouped.value) / size
        tops = [np.unique(member[order[: self.k]], return_counts=True) for order in self.seen.order]
        chance = float(
            np.mean(
                [
                    fairness.bias_of_chance_in_groups(
                        [*zip(n.tolist(), size[top].tolist(), strict=True)], shares
                    )
                    for top, n in tops
                ]
            )
        )
        things = float(np.mean([len(top) for top, _ in tops]))
        return (
            f"these {self.k} are pictures of {things:.1f} things on average, and a ranking of such "
            f"pictures that is blind to {values} has {100 * chance:.1f} %"
        )

    def kinds(self) -> Mapping[str, _Kind]:
        """What each number is, in the order of a table."""
        name, values, k = self.grouped.concept.name, self.grouped.values, self.k
        search = f"top {k} of {len(self.grouped.value)} images, mean of {len(self.ranked)} queries"
        kinds = {
            f"worst_{name}_accuracy": _Kind(f"{name} accuracy of the worst group.", None, high=1),
            "worst_activity_accuracy": _Kind("Activity accuracy of the worst group.", True, high=1),
        }
        for key, what in (
            ("demographic_parity", "how often an activity is predicted"),
            ("equal_opportunity", "how often an activity is recognised"),
        ):
            of = f"between groups in {what}, mean of the activities"
            kinds[f"{key}_difference"] = _Kind(f"Difference {of}.", False, high=1)
            kinds[f"{key}_ratio"] = _Kind(f"Ratio {of}; 1 is parity.", True, high=1)
        for suffix, words in (("", "equal shares"), ("_base_rate", "the gallery's own shares")):
            of = f"against {words}, {search}"
            kinds |= {
                f"max_skew{suffix}": _Kind(
                    f"Largest ln(share/desired) of a group, {of}.", False, "nats", queries=True
                ),
                f"min_skew{suffix}": _Kind(
                    f"Smallest ln(share/desired) of a group, {of}.", True, "nats", -math.inf, 0,
                    queries=True,
                ),
                f"ndkl{suffix}": _Kind(
                    f"Discounted KL of every first i places from {words}, whole ranking.", False,
                    "nats", queries=True,
                ),
            }  # fmt: skip
        if self.two and len(self.ranked):
            of = f"(N_{values[1]} − N_{values[0]})/K, {search}"
            kinds["bias_at_k"] = _Kind(f"{of}.", None, "share", -1, 1, queries=True)
            kinds["mean_abs_bias_at_k"] = _Kind(
                f"Mean of |{of}|; {self._luck()}.", False, "share", 0, 1, queries=True,
            )  # fmt: skip
        kinds["able"] = _Kind(
            "Harmonic mean of activity accuracy and e^−MaxSkew.", True, "share", 0, 1, queries=True
        )
        kinds["labour_correlation"] = _Kind(
            f"Spearman correlation over queries of the share of {values[0]} in the top {k} and in "
            "published labour statistics.", None, "rho", -1, 1, queries=True,
        )  # fmt: skip
        return kinds


def add_audits(into: Collector, audits: Sequence[Audit], *, resamples: int, seed: int) -> None:
    """Add the numbers of the first audit, and where there is a second the paired differences.

    Whole groups of images are resampled, for both models alike, and the gallery is searched again
    in each resample; queries stay as they are.

    Args:
        into: where to.
        audits: of the model and, where there is one, of the reference: the same images and k.
        resamples: of the bootstrap.
        seed: of the resampling.
    """
    grouped, kinds = audits[0].grouped, audits[0].kinds()
    points = [audit.numbers() for audit in audits]
    names = [name for name in kinds if np.isfinite(points[0].get(name, math.nan))]

    def table(rows: Ints) -> Floats:
        each = [audit.numbers(rows) for audit in audits]
        return np.array([[found.get(name, math.nan) for name in names] for found in each])

    drawn, groups = None, count_groups(len(grouped.value), grouped.group)
    if names and groups > 1:
        drawn = resample(table, grouped.group, resamples=resamples, seed=seed)
    for s, name in enumerate(names):
        kind, value = kinds[name], points[0][name]
        n = len(audits[0].ranked) if kind.queries else len(grouped.value)
        interval = None
        if drawn is not None:
            interval = normal_interval(
                value, drawn[:, 0, s], groups=groups, low=kind.low, high=kind.high
            )
        into.metrics[name] = MetricValue(
            value=value,
            n=n,
            interval=interval,
            higher_is_better=kind.good,
            unit=kind.unit,
            description=kind.description,
        )
        if len(audits) < 2 or not np.isfinite(points[1].get(name, math.nan)):
            continue
        difference = value - points[1][name]
        if drawn is not None:
            each = drawn[:, 0, s] - drawn[:, 1, s]
            interval = normal_interval(difference, each, groups=groups)
        into.comparisons.append(
            Comparison(metric=name, n=n, difference=difference, interval=interval)
        )


def _mean_of_known(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
