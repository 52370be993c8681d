"""The per-class table: what each class gained and lost, from the result and its per-image rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipalign.evals.words import label
from clipalign.reports.sources import Measured, Source

__all__ = ["ClassTable", "class_tables"]

_MOST = 1_000


@dataclass(frozen=True)
class ClassTable:
    """One result's classes.

    Attributes:
        title: source, suite and split.
        columns: (key, heading, is a share).
        rows: (class, value of each column or None), by name.
        total: classes that the result has; the rows are at most a thousand.
    """

    title: str
    columns: tuple[tuple[str, str, bool], ...]
    rows: tuple[tuple[str, tuple[float | int | None, ...]], ...]
    total: int


def class_tables(source: Source) -> list[ClassTable]:
    """A table for each result that has numbers by class."""
    return [_table(source, m) for m in source.results if m.result.per_class]


def _table(source: Source, measured: Measured) -> ClassTable:
    result = measured.result
    per_class = {name: dict(row) for name, row in result.per_class.items()}
    for name, extra in _before(measured.rows).items():
        if name in per_class:
            per_class[name] |= extra
    keys = list(dict.fromkeys(key for row in per_class.values() for key in row))
    keys.sort(key=_order)
    return ClassTable(
        f"{source.name}: {result.suite} on {result.dataset.label}, {result.dataset.split}",
        tuple((key, _heading(key), _is_share(key)) for key in keys),
        tuple(
            (name, tuple(row.get(key) for key in keys))
            for name, row in sorted(per_class.items())[:_MOST]
        ),
        len(per_class),
    )


def _before(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Accuracies of the reference on each class, which results give of the model alone.

    Of typographic rows clean and attacked, where a photograph whose word names its own class is
    neither; of a concept's rows that of the activity.
    """
    right: dict[tuple[str, str], list[bool]] = {}
    for row in rows:
        label = row.get("label")
        if "reference_predicted_activity" in row:
            label, kind, said = row["activity"], "activity", row["reference_predicted_activity"]
        elif "style" in row and "reference_predicted" in row and row.get("written") != label:
            kind = "clean" if row.get("written") is None else "attacked"
            said = row["reference_predicted"]
        else:
            continue
        right.setdefault((str(label), kind), []).append(said == label)
    found: dict[str, dict[str, float]] = {}
    for (name, kind), each in right.items():
        found.setdefault(name, {})[f"reference_{kind}_accuracy"] = sum(each) / len(each)
    return found


def _order(key: str) -> tuple[int, str, int]:
    """Counts first, then each number with the reference's before it."""
    own = key.removeprefix("reference_")
    return (0 if _is_count(key) else 1, own, 0 if own != key else 1)


def _heading(key: str) -> str:
    own = key.removeprefix("reference_")
    words = label(own)
    if own == "n" or own.endswith("_n"):
        words = f"{label(own.removesuffix('_n'))} images" if own != "n" else "images"
    elif own.startswith("n_"):
        of = label(own.removeprefix("n_"))
        words = (
            f"{of.removesuffix(' at k')} in the top k" if of.endswith(" at k") else f"{of} images"
        )
    words += " (%)" if _is_share(key) else ""
    return f"{words}, before" if own != key else words


def _is_count(key: str) -> bool:
    own = key.removeprefix("reference_")
    return own == "n" or own.endswith("_n") or own.startswith("n_")


def _is_share(key: str) -> bool:
    return not _is_count(key) and any(word in key for word in ("accuracy", "rate", "share", "asr"))
