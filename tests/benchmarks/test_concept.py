"""What the default training of gender reaches on the embedded people, and of reading on its words.

    python -m pytest -m benchmark tests/benchmarks/test_concept.py -s

Three seeds, held-out drawings. Trains the head of the task `gender`, finds t* on the validation
split, and measures the reference, the reversed model (t = 1), the neutral one (t*) and the
biased-prompt projection on the test split. The README quotes what it prints.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(7200)]

SEEDS = (0, 1, 2)
SHOWN = (
    "gender_accuracy", "gender_accuracy_plain", "activity_accuracy", "mean_abs_bias_at_k",
    "max_skew", "ndkl", "labour_correlation", "retention_accuracy", "kl_to_reference",
)  # fmt: skip
PROJECTIONS = {"project": {"calibration": 0}, "project, calibrated": {}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs are: kept from one call to the next if CLIPALIGN_CONCEPT_RUNS says where."""
    return Path(os.environ.get("CLIPALIGN_CONCEPT_RUNS", tmp_path_factory.mktemp("concept")))


@pytest.fixture(scope="module")
def seconds(root: Path) -> dict[int, float]:
    """Train; seconds of each training that was not there already."""
    import clipalign

    taken = {}
    for seed in SEEDS:
        if not (root / f"gender-{seed}" / "model").exists():
            began = time.perf_counter()
            clipalign.train(task="gender", seed=seed, output=root / f"gender-{seed}")
            taken[seed] = time.perf_counter() - began
    return taken


@pytest.fixture(scope="module")
def scans(root: Path, seconds: dict[int, float]) -> list[Any]:
    """Of each seed, the test split over t in [0, 1]."""
    from clipalign.transforms.transform import scan

    return [scan(root / f"gender-{seed}", "0:1:0.05", split="test") for seed in SEEDS]


@pytest.fixture(scope="module")
def table(root: Path, seconds: dict[int, float]) -> dict[str, dict[str, list[float]]]:
    """Model → metric → one value a seed (the reference and the projections have one)."""
    import clipalign

    models: dict[str, list[Any]] = {"reference": ["emoji-tiny"], "reversed, t = 1": [], "t*": []}
    for name, options in PROJECTIONS.items():
        made = clipalign.transform(
            "emoji-tiny", method="project", output=root / name.replace(", ", "-"), **options
        )
        models[name] = [made.model]
    for seed in SEEDS:
        models["reversed, t = 1"].append(root / f"gender-{seed}")
        made = clipalign.transform(
            root / f"gender-{seed}", t="auto", output=root / f"neutral-{seed}"
        )
        print(f"seed {seed}: {made.transform.statement()}")
        models["t*"].append(made.model)
    found: dict[str, dict[str, list[float]]] = {}
    for name, specs in models.items():
        row = found.setdefault(name, {})
        for spec in specs:
            (result,) = clipalign.evaluate(
                spec, suites=["gender"], against="emoji-tiny", splits=["test"], retention=True,
                output=root / "results" / Path(spec).name,
            )  # fmt: skip
            for metric in SHOWN:
                if metric in result.metrics:
                    row.setdefault(metric, []).append(result.metrics[metric].value)
    print(f"\ngender on emoji-people, test ({len(SEEDS)} seeds: mean ± standard deviation)")
    for name, row in found.items():
        cells = [f"{m} {_spread(values)}" for m, values in row.items()]
        print(f"  {name:20}", "  ".join(cells))
    return found


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def mean(table: Any, model: str, metric: str) -> float:
    return statistics.mean(table[model][metric])


def test_training_takes_under_a_minute(seconds: dict[int, float]) -> None:
    print(f"\nseconds of training: {seconds}")
    assert seconds, "every run was there already"
    assert max(seconds.values()) < 60


def test_at_t_1_gender_is_reversed(table: Any) -> None:
    assert mean(table, "reversed, t = 1", "gender_accuracy") <= 0.2


def test_at_t_0_every_number_is_the_references(scans: list[Any], table: Any) -> None:
    for scanned in scans:
        assert scanned.rows[0].activity_accuracy == mean(table, "reference", "activity_accuracy")
        assert scanned.rows[0].concept_accuracy == mean(table, "reference", "gender_accuracy")


def test_activities_stay_from_t_0_to_t_1(scans: list[Any]) -> None:
    lost = [max(s.rows[0].activity_accuracy - r.activity_accuracy for r in s.rows) for s in scans]
    print(f"\nlargest loss of activity accuracy over t in [0, 1]: {np.round(lost, 4)}")
    assert max(lost) <= 0.03


def test_at_t_star_gender_cannot_be_told(table: Any) -> None:
    assert abs(mean(table, "t*", "gender_accuracy") - 0.5) <= 0.05


def test_at_t_star_retention_is_within_two_points(table: Any) -> None:
    kept = mean(table, "t*", "retention_accuracy")
    assert kept >= mean(table, "reference", "retention_accuracy") - 0.02


def test_at_t_star_the_bias_of_a_search_is_a_quarter_of_what_it_was(table: Any) -> None:
    left = mean(table, "t*", "mean_abs_bias_at_k")
    assert left <= mean(table, "reference", "mean_abs_bias_at_k") / 4


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_t_star_is_less_skewed_than_a_projection_at_no_loss(table: Any, projection: str) -> None:
    assert mean(table, "t*", "max_skew") < mean(table, projection, "max_skew")
    own = mean(table, "t*", "activity_accuracy")
    assert own >= mean(table, projection, "activity_accuracy")


def test_turning_the_map_of_written_words_trades_reading_for_looking(root: Path) -> None:
    import clipalign
    from clipalign.transforms.transform import scan

    curves = []
    for seed in SEEDS:
        run = root / f"reading-{seed}"
        if not (run / "model").exists():
            clipalign.train(task="typographic", trainable="head", seed=seed, output=run)
        curves.append(scan(run, "-1:1:0.25", split="test").rows)
    od = np.mean([[row.od for row in rows] for rows in curves], axis=0)
    ocr = np.mean([[row.ocr for row in rows] for rows in curves], axis=0)
    for row, o, r in zip(curves[0], od, ocr, strict=True):
        print(f"t = {row.t:5.2f}: object {100 * o:.1f} %, written word {100 * r:.1f} %")
    assert (np.diff(od) >= 0).all()
    assert (np.diff(ocr) <= 0).all()


def test_a_search_for_a_police_officer(root: Path, table: Any) -> None:
    """The paper's Fig. 4; the picture is left beside the runs."""
    from clipalign.evals.retrieve import retrieve
    from clipalign.reports.retrieval_picture import write_retrieval_picture

    models = ["emoji-tiny", root / "gender-0", root / "neutral-0"]
    found = retrieve("a photo of a police officer.", models)
    write_retrieval_picture(found, root / "police.png", ["reference", "reversed, t = 1", "t*"])
    counts = [dict(row.counts) for row in found.found]
    print(f"\npolice officer, top 10: {counts}; picture: {root / 'police.png'}")
    even = abs(counts[2].get("woman", 0) - 5)
    assert even <= abs(counts[0].get("woman", 0) - 5)
