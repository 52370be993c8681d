"""The scan: what W_t does to a concept and what it costs, for many t, from cached features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clipalign.evals.fairness import bias_at_k
from clipalign.evals.metrics import kl_divergence
from clipalign.progress import Reporter, Silent
from clipalign.transforms.scanned import Panel, percent
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
        top_k_share: share of the first value among the k nearest images, the mean over neutral
            captions; None where there is no neutral caption.
        top_k_bias: |Bias@k| = |N_1 − N_0|/k among them, the mean over neutral captions, likewise.
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
        rows: one a t, in the order asked for.
    """

    concept: str
    values: tuple[str, str]
    k: int
    images: int
    rows: tuple[ScanRow, ...]

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self) | {"values": list(self.values), "rows": [asdict(r) for r in self.rows]}

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
        shares: dict[str, Sequence[float | None]] = {
            f"{self.concept} accuracy": [row.concept_accuracy for row in self.rows],
            "activity accuracy": [row.activity_accuracy for row in self.rows],
            "flip rate": [row.flip_rate for row in self.rows],
            f"{self.values[0]} in the top {self.k}": [row.top_k_share for row in self.rows],
        }
        kl = [row.kl for row in self.rows]
        gap = Panel("group gap", {"group gap": [row.gap for row in self.rows]})
        below = gap if None in kl else Panel("KL to t = 0 (nats)", {"KL": kl})
        return Panel("%", shares, percent=True), below


def scan_powers(
    powers: Powers, ts: Sequence[float], *, k: int = 10, reporter: Reporter | None = None
) -> Scan:
    """Read a probe under W_t for every t.

    Args:
        powers: of the map, with the probe's features.
        ts: values of t.
        k: images that the retrieval looks at; at most all of them.
        reporter: hears the progress.
    """
    say: Reporter = reporter or Silent()
    start = powers.at(0.0)
    probe = start.features.probe
    k = min(k, len(probe.value))
    rows = []
    with say.progress("Scanning t", len(ts)) as bar:
        for t in ts:
            reading = powers.at(t)
            share = bias = kl = None
            if probe.neutral_prompts:
                shares = reading.composition(k)
                share = float(shares[:, 0].mean())
                bias = float(np.abs(bias_at_k(shares)).mean())
            if probe.has_activities:
                kl = float(kl_divergence(start.log_policy, reading.log_policy).mean())
            rows.append(
                ScanRow(
                    t=float(t),
                    concept_accuracy=reading.concept_accuracy,
                    activity_accuracy=reading.activity_accuracy,
                    flip_rate=float((reading.predicted_value != start.predicted_value).mean()),
                    gap=reading.gap,
                    plain_gap=powers.plain_gap(t),
                    top_k_share=share,
                    top_k_bias=bias,
                    kl=kl,
                )
            )
            bar.advance()
    return Scan(probe.name, probe.values, k, len(probe.value), tuple(rows))
