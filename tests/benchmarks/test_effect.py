"""What the default training reaches on the embedded world, against the control, over three seeds.

    python -m pytest -m benchmark tests/benchmarks/test_effect.py -s

Trains kto, dpo, ipo, rlhf and cross-entropy with their defaults (KL regulariser and Beta average
for all, the control included) and evaluates each on the held-out drawings of the concepts that
alignment saw and on concepts and words that it never saw. The table goes to standard output; the
README quotes it.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(7200)]

METHODS = ("kto", "dpo", "ipo", "rlhf", "cross-entropy")
SEEDS = (0, 1, 2)
SPLITS = ("test", "test-unseen-concepts")
SHOWN = ("clean_accuracy", "attacked_accuracy", "attack_success_rate", "kl_to_reference")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """(method or "reference", split) → metric → one value a seed."""
    import clipalign

    root = Path(os.environ.get("CLIPALIGN_EFFECT_RUNS", tmp_path_factory.mktemp("effect")))
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for method in METHODS:
        for seed in SEEDS:
            run = root / f"{method}-{seed}"
            if not (run / "model").exists():
                clipalign.train(method=method, seed=seed, output=run)
            for result in clipalign.evaluate(run, against="reference", splits=SPLITS):
                row = found.setdefault((method, result.dataset.split), {})
                base = found.setdefault(("reference", result.dataset.split), {})
                moved = {c.metric: c.difference for c in result.comparisons}
                for name in SHOWN:
                    value = result.metrics[name].value
                    assert value is not None
                    row.setdefault(name, []).append(value)
                    if name in moved:
                        base.setdefault(name, []).append(value - moved[name])
    print()
    for split in SPLITS:
        print(f"{split} ({len(SEEDS)} seeds: mean ± standard deviation)")
        for who in ("reference", *METHODS):
            cells = [
                f"{name} {statistics.mean(v):.3f} ± {statistics.stdev(v):.3f}"
                for name, v in found[who, split].items()
            ]
            print(f"  {who:14}", "  ".join(cells))
    return found


def mean(table: Any, method: str, metric: str, split: str = "test") -> float:
    return statistics.mean(table[method, split][metric])


def test_attacked_accuracy_comes_within_five_points_of_the_reference_on_clean(table: Any) -> None:
    assert mean(table, "kto", "attacked_accuracy") >= (
        mean(table, "reference", "clean_accuracy") - 0.05
    )


def test_clean_accuracy_falls_by_at_most_a_point_and_a_half(table: Any) -> None:
    assert mean(table, "kto", "clean_accuracy") >= (
        mean(table, "reference", "clean_accuracy") - 0.015
    )


def test_the_policy_stays_within_a_tenth_of_a_nat(table: Any) -> None:
    assert mean(table, "kto", "kl_to_reference") <= 0.1


def test_kto_is_as_robust_as_the_control_and_nearer_to_the_reference(table: Any) -> None:
    assert mean(table, "kto", "attacked_accuracy") >= (
        mean(table, "cross-entropy", "attacked_accuracy")
    )
    assert mean(table, "kto", "kl_to_reference") < mean(table, "cross-entropy", "kl_to_reference")


def test_what_was_learnt_carries_over_to_concepts_and_words_never_seen(table: Any) -> None:
    split = "test-unseen-concepts"
    gained = mean(table, "kto", "attacked_accuracy", split) - mean(
        table, "reference", "attacked_accuracy", split
    )
    assert gained > 0
