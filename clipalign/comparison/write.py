"""Writes a summary: compare.json, compare.csv, compare.md, and a picture of each front.

The JSON is versioned and self-describing; `Summary.model_json_schema()` is its schema. The CSV has
one row a method, metric and seed, and one without seed for their mean.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clipalign.comparison.recipe import folder_name
from clipalign.comparison.summary import Panel, Summary
from clipalign.comparison.tables import markdown
from clipalign.errors import DataError
from clipalign.files import atomic_write_text, read_regular
from clipalign.progress import Reporter, Silent
from clipalign.text import sheet_cell

__all__ = ["read_summary", "write_summary"]

NAME = "compare"

_COLUMNS = (
    "evaluation", "suite", "dataset", "split", "model", "method", "kind", "seed", "metric", "value",
    "sd", "low", "high", "n", "of", "unit", "higher_is_better", "axis", "on_front",
    "difference_to_baseline", "difference_low", "difference_high", "p_value", "test",
)  # fmt: skip


def write_summary(summary: Summary, folder: Path, reporter: Reporter | None = None) -> list[Path]:
    """Write every file of the report.

    Args:
        summary: what to write.
        folder: of the comparison.
        reporter: hears why there is no picture.

    Returns:
        The files.

    Raises:
        StorageError: one cannot be written.
    """
    say: Reporter = reporter or Silent()
    pictures: dict[int, str] = {}
    drawn: list[Path] = []
    several = len({panel.model for panel in summary.panels}) > 1
    try:
        from clipalign.comparison.plot import drawable, plot_front
    except ImportError:
        say.note(
            "There is no picture: matplotlib is not installed. Install it with: "
            "pip install 'clipalign[report]'"
        )
    else:
        for place, panel in enumerate(summary.panels):
            if drawable(panel):
                name = _picture_name(panel, several)
                drawn += plot_front(panel, folder / name)
                pictures[place] = f"{name}.svg"
    texts = {
        f"{NAME}.json": json.dumps(summary.model_dump(mode="json"), indent=2),
        f"{NAME}.csv": _csv(summary),
        f"{NAME}.md": markdown(summary, pictures),
    }
    for name, text in texts.items():
        atomic_write_text(folder / name, text.rstrip("\n") + "\n")
    return [*(folder / name for name in texts), *drawn]


def read_summary(path: Path) -> Summary:
    """Read compare.json, or the one in a comparison's directory.

    Raises:
        DataError: it is missing, damaged or of another version.
    """
    file = path / f"{NAME}.json" if path.is_dir() else path
    try:
        return Summary.model_validate_json(read_regular(file))
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror or error}.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{file} is not a comparison that this clipalign reads: {where}: {first['msg']}. "
            f"`clipalign compare {file.parent} --report-only` writes it again."
        ) from None


def _picture_name(panel: Panel, several: bool) -> str:
    words = ["front", panel.evaluation, panel.dataset, panel.split]
    return folder_name("-".join([*words, panel.model] if several else words))


def _csv(summary: Summary) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for panel in summary.panels:
        for row in _csv_rows(panel):
            writer.writerow({name: sheet_cell(cell) for name, cell in row.items()})
    return text.getvalue()


def _csv_rows(panel: Panel) -> Iterator[dict[str, Any]]:
    for row in panel.rows:
        tests = {test.metric: test for test in row.tests}
        for column in panel.columns:
            entry = row.entries.get(column.metric)
            if entry is None:
                continue
            shared: dict[str, Any] = {
                "evaluation": panel.evaluation,
                "suite": panel.suite,
                "dataset": panel.dataset,
                "split": panel.split,
                "model": panel.model,
                "method": row.method,
                "kind": row.kind,
                "metric": column.metric,
                "n": entry.n,
                "of": entry.of,
                "unit": column.unit,
                "higher_is_better": column.higher_is_better,
                "axis": column.axis,
            }
            if entry.sd is not None:
                for seed, value in zip(row.seeds, entry.values, strict=False):
                    yield {**shared, "seed": seed, "value": value}
            mean = {**shared, "value": entry.mean, "sd": entry.sd, "on_front": row.on_front}
            if entry.interval:
                mean |= {"low": entry.interval.low, "high": entry.interval.high}
            if test := tests.get(column.metric):
                mean |= {
                    "difference_to_baseline": test.difference,
                    "p_value": test.p_value,
                    "test": test.test,
                }
                if test.interval:
                    mean |= {
                        "difference_low": test.interval.low,
                        "difference_high": test.interval.high,
                    }
            yield mean
