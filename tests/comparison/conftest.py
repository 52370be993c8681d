"""A comparison of made-up results, whose every number a hand can check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from clipalign.comparison.plan import Plan, make_plan
from clipalign.comparison.records import Record, write_record
from clipalign.evals.results import DatasetIdentity, ModelIdentity, SuiteResult, write_result

SEEDS = (0, 1)


def made_up_result(
    path: Path, clean: Sequence[int], attacked: Sequence[int], kl: Sequence[float], **changes: Any
) -> SuiteResult:
    """Write a result of the suite `typographic` with its rows.

    Args:
        path: of the result.
        clean: right (1) or wrong on each clean image.
        attacked: the same on each attacked one.
        kl: to the reference, an image.
        **changes: fields of the result.
    """
    rows: list[dict[str, Any]] = []
    for i, (c, a, k) in enumerate(zip(clean, attacked, kl, strict=True)):
        shared = {"key": f"image-{i}", "group": f"image-{i}", "label": "cat"}
        rows += [
            {**shared, "style": "clean", "attack": 0, "written": None, "kl_to_reference": k,
             "predicted": "cat" if c else "dog"},
            {**shared, "style": "note", "attack": 1, "written": "dog", "p_true": 0.5,
             "p_written": 0.4, "predicted": "cat" if a else "dog"},
        ]  # fmt: skip
    n = len(clean)

    def metric(values: Sequence[float], good: bool, unit: str = "share") -> dict[str, Any]:
        return {
            "value": sum(values) / n, "n": n, "higher_is_better": good, "unit": unit,
            "description": "made up",
        }  # fmt: skip

    fields: dict[str, Any] = {
        "suite": "typographic",
        "suite_version": 1,
        "model": ModelIdentity(spec="made-up", sha256="0" * 64, name="made-up"),
        "dataset": DatasetIdentity(name="emoji", split="test", fingerprint="f", licence="", n=n),
        "seed": 0,
        "metrics": {
            "clean_accuracy": metric(clean, True),
            "attacked_accuracy": metric(attacked, True),
            "kl_to_reference": metric(kl, False, "nats"),
            "ece": {**metric([0.25] * n, False)},
        },
        **changes,
    }
    return write_result(path, SuiteResult(**fields), rows)


@pytest.fixture
def study(tmp_path: Path) -> Plan:
    """Reference, robust and dull over two seeds, on four images; a failed method beside them."""
    recipe = {
        "title": "Made up",
        "base": {"task": "typographic"},
        "seeds": list(SEEDS),
        "methods": {
            "reference": {"model": "base"},
            "robust": {"set": {"method": "kto"}},
            "dull": {"set": {"method": "dpo"}},
            "broken": {"set": {"method": "ipo"}},
        },
        "baseline": "reference",
        "evaluate": [{"suite": "typographic", "show": ["ece"]}],
    }
    plan = make_plan(recipe, tmp_path / "study", check_options=False)
    numbers = {
        "reference": ([1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]),
        "robust-s0": ([1, 1, 0, 0], [1, 1, 1, 0], [0.1, 0.1, 0.2, 0.4]),
        "robust-s1": ([1, 1, 1, 0], [1, 1, 0, 0], [0.1, 0.1, 0.1, 0.1]),
        "dull-s0": ([1, 0, 0, 0], [1, 0, 0, 0], [0.3, 0.3, 0.3, 0.3]),
        "dull-s1": ([1, 1, 0, 0], [1, 0, 0, 0], [0.3, 0.3, 0.3, 0.3]),
    }
    for cell in plan.cells:
        wanted = [e.model_dump(mode="json") for e in plan.evaluations]
        record = Record("finished", cell.document(), wanted, {"typographic": ["results/a.json"]})
        if cell.method == "broken":
            record = Record("failed", cell.document(), wanted, error="DataError", reason="No data.")
        else:
            made_up_result(plan.folder(cell) / "results" / "a.json", *numbers[cell.name])
        write_record(plan, cell, record)
    return plan
