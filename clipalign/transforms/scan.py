"""The scan: what W_t does to a concept and what it costs, for many t, from cached features."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from clipalign.evals.curves import Curve, Draws, Point
from clipalign.evals.fairness import ranking
from clipalign.evals.metrics import kl_divergence
from clipalign.evals.statistics import Interval
from clipalign.progress import Reporter, Silent
from clipalign.transforms.probe import Reading
from clipalign.transforms.scanned import Panel, percent, plain_intervals
from clipalign.transforms.spectrum import Powers

__all__ = ["Scan", "ScanRow", "scan_powers"]


@dataclass(frozen=True, slots=True)
class ScanRow:
    """One t.

    Attributes:
        t: power of the map.
        concept_accuracy: share of right values, both values counting alike.
        activity_accuracy: share of right activities; None where there are none.
        flip_rate: share of images whose predicted value is not that of t = 0.
        gap: group gap, in cosine; 0 is neutral.
        plain_gap: the same without normalisation after W_t, Σ_k σ_k^{2t} c_k.
        top_k_share: share of the first value among the k nearest images, the mean over the
            captions searched for; None where there is none.
        top_k_bias: |Bias@k| = |N_1 − N_0|/k among them, the mean over those captions, likewise.
        kl: KL(π_0‖π_t) over the neutral captions, mean over images, in nats; None where there is
            one caption.
    """

    t: float
    concept_accuracy: float
    activity_accuracy: float | None
    flip_rate: float
    gap: float
    plain_gap: float
    top_k_share: float | None
    top_k_bias: float | None
    kl: float | None


@dataclass(frozen=True)
class Scan:
    """A scan and what it was made on.

    Attributes:
        concept, values: as the probe names them.
        k: images that the retrieval looks at.
        images: N.
        groups: G, how many groups of images are independent of each other.
        rows: one a t, in the order asked for.
        curves: field of a row → it over t, with what it is on resampled groups.
    """

    concept: str
    values: tuple[str, str]
    k: int
    images: int
    groups: int
    rows: tuple[ScanRow, ...]
    curves: Mapping[str, Curve] = field(repr=False, compare=False)

    @cached_property
    def intervals(self) -> dict[str, Sequence[Interval | None]]:
        """Field of a row → 95 % intervals, one a t."""
        return {name: curve.intervals for name, curve in self.curves.items()}

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "concept": self.concept,
            "values": list(self.values),
            "k": self.k,
            "images": self.images,
            "groups": self.groups,
            "rows": [asdict(row) for row in self.rows],
            "intervals": plain_intervals(self),
        }

    @property
    def title(self) -> str:
        """The concept, and the number of images."""
        return f"{self.concept}, {self.images} images"

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Headings, and one row of cells a t."""
        concept, first = self.concept.upper(), self.values[0].upper()
        headings = ("T", concept, "ACTIVITY", "FLIPPED", f"{first} IN TOP {self.k}", "GAP", "KL")
        return headings, [
            (
                f"{row.t:g}",
                percent(row.concept_accuracy),
                percent(row.activity_accuracy),
                percent(row.flip_rate),
                percent(row.top_k_share),
                f"{row.gap:.4f}",
                "–" if row.kl is None else f"{row.kl:.4f}",
            )
            for row in self.rows
        ]

    def panels(self) -> Sequence[Panel]:
        """Shares above, the distance from t = 0 below (the group gap where there is no KL)."""
        shares = {
            f"{self.concept} accuracy": "concept_accuracy",
            "activity accuracy": "activity_accuracy",
            "flip rate": "flip_rate",
            f"{self.values[0]} in the top {self.k}": "top_k_share",
        }
        below = {"KL to t = 0 (nats)": {"KL": "kl"}}
        if "kl" not in self.curves:
            below = {"group gap": {"group gap": "gap"}}
        return tuple(
            Panel(
                title,
                {name: [getattr(row, key) for row in self.rows] for name, key in lines.items()},
                percent=title == "%",
                sampled={
                    name: self.curves[key] for name, key in lines.items() if key in self.curves
                },
            )
            for title, lines in ({"%": shares} | below).items()
        )


def scan_powers(
    powers: Powers,
    ts: Sequence[float],
    *,
    k: int = 10,
    searches: Sequence[int] | None = None,
    reporter: Reporter | None = None,
) -> Scan:
    """Read a probe under W_t for every t.

    Args:
        powers: of the map, with the probe's features.
        ts: values of t.
        k: images that the retrieval looks at; at most all of them.
        searches: which of the neutral captions are searched for; None for all.
        reporter: hears the progress.
    """
    say: Reporter = reporter or Silent()
    start = powers.at(0.0)
    probe = start.features.probe
    k = min(k, len(probe.value))
    searched = range(len(probe.neutral_prompts)) if searches is None else searches
    draws = Draws(len(probe.value), probe.groups)
    rows: list[ScanRow] = []
    points: dict[str, list[Point]] = defaultdict(list)
    with say.progress("Scanning t", len(ts)) as bar:
        for t in ts:
            reading = powers.at(t)
            found = _points(t, reading, start, draws, k, list(searched))
            for name, point in found.items():
                points[name].append(point)
            rows.append(_row(t, reading.gap, powers.plain_gap(t), found))
            bar.advance()
    curves = {
        name: Curve(tuple(each), draws.groups, _MOST[name], name == "top_k_bias")
        for name, each in points.items()
    }
    return Scan(probe.name, probe.values, k, len(probe.value), draws.groups, tuple(rows), curves)


_MOST = {  # what is measured with intervals, and the most that it can be
    "concept_accuracy": 1.0,
    "activity_accuracy": 1.0,
    "flip_rate": 1.0,
    "top_k_share": 1.0,
    "top_k_bias": 1.0,
    "kl": math.inf,
}


def _row(t: float, gap: float, plain_gap: float, found: Mapping[str, Point]) -> ScanRow:
    known = {name: point.value for name, point in found.items()}
    return ScanRow(
        t=float(t),
        concept_accuracy=known["concept_accuracy"],
        activity_accuracy=known.get("activity_accuracy"),
        flip_rate=known["flip_rate"],
        gap=gap,
        plain_gap=plain_gap,
        top_k_share=known.get("top_k_share"),
        top_k_bias=known.get("top_k_bias"),
        kl=known.get("kl"),
    )


def _points(
    t: float, reading: Reading, start: Reading, draws: Draws, k: int, searched: Sequence[int]
) -> dict[str, Point]:
    """What one t does to the images, by field of a row; what does not apply is left out."""
    value = reading.features.value
    flips = reading.predicted_value != start.predicted_value
    found = {
        "concept_accuracy": draws.mean(reading.value_correct, strata=value),
        "flip_rate": draws.mean(flips) if t else draws.certain(0.0),
    }
    if reading.features.probe.has_activities:
        found["activity_accuracy"] = draws.mean(reading.activity_correct)
        found["kl"] = draws.mean(kl_divergence(start.log_policy, reading.log_policy))
    if searched:
        ranked = ranking(reading.scores.T[searched])
        shares, drawn = draws.top_shares(ranked, value == 0, k)
        uneven = np.abs(2 * drawn - 1).mean(axis=1)
        found["top_k_share"] = Point(float(shares.mean()), drawn.mean(axis=1))
        found["top_k_bias"] = Point(float(np.abs(2 * shares - 1).mean()), uneven)
    return found
