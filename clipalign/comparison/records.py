"""What is known of each cell: a small JSON file beside its folder.

recipe.yaml            the recipe, grids spread
cells/NAME.json        the record: definition, state, reason, result files
cells/NAME/            a run directory, or model/ of a transform; results/
compare.json …         the report (see `clipalign.comparison.write`)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from clipalign.comparison.defaults import taken, taken_by_run
from clipalign.comparison.plan import Cell, Plan
from clipalign.comparison.recipe import SHOWN
from clipalign.config import RunConfig
from clipalign.errors import RunError
from clipalign.files import (
    atomic_write_text,
    canonical_json,
    parse_json,
    read_regular,
    sha256_bytes,
)
from clipalign.models.spec import is_run

__all__ = [
    "OtherReference",
    "Record",
    "State",
    "check_definitions",
    "check_reference",
    "is_measured",
    "is_settled",
    "is_whole",
    "measured",
    "read_record",
    "write_record",
]

SCHEMA_VERSION = 1

State = Literal["missing", "started", "finished", "failed"]


@dataclass(frozen=True)
class Record:
    """One cell's state.

    Attributes:
        state: how far it came; "finished" once it is measured, by whatever evaluations.
        definition: of the cell, `Cell.document()`.
        evaluations: what it is measured by, `Evaluation.measuring()` of each.
        results: per evaluation's label, paths of result files from the cell's folder; none until
            all evaluations are done.
        reference: hash of the weights of the model that it starts from and is measured against.
        taken: rate, λ and options that it is made with; see `clipalign.comparison.defaults.taken`.
        error, reason, exit_code: of a failure.
        details: its traceback, where the error was not foreseen.
    """

    state: State = "missing"
    definition: dict[str, Any] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, list[str]] = field(default_factory=dict)
    reference: str | None = None
    taken: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    details: str | None = None


def record_path(plan: Plan, cell: Cell) -> Path:
    """Where a cell's record lies."""
    folder = plan.folder(cell)
    return folder.with_name(folder.name + ".json")


def read_record(plan: Plan, cell: Cell) -> Record:
    """The record of a cell; state "missing" where there is none, or its results are gone.

    Raises:
        RunError: it is damaged or of another version.
    """
    path = record_path(plan, cell)
    try:
        document = parse_json(read_regular(path))
        version = document.pop("schema_version")
        digest = document.pop("sha256", None)
        if digest not in (None, sha256_bytes(canonical_json(document))):
            raise ValueError("it was changed after it was written")
        record = Record(**document)
        kept = [{k: v for k, v in e.items() if k not in SHOWN} for e in record.evaluations]
    except FileNotFoundError:
        return Record()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} is not the record of a cell ({error}). To make the cell again, remove it and "
            f"{plan.folder(cell)}."
        ) from None
    if version != SCHEMA_VERSION:
        raise RunError(
            f"{path} has version {version!r} of the records, and this clipalign reads version "
            f"{SCHEMA_VERSION}. Choose another --output."
        )
    record = replace(record, evaluations=kept)
    files = [plan.folder(cell) / file for each in record.results.values() for file in each]
    if record.state == "finished" and not all(map(is_whole, files)):
        return replace(record, state="missing", results={})
    return record


def is_whole(result: Path) -> bool:
    """Whether a result and its rows are there. What is in them `read_result` checks."""
    try:
        rows = parse_json(read_regular(result))["rows"]
        return rows is None or result.with_name(rows["file"]).is_file()
    except OSError:
        return False
    except (ValueError, KeyError, TypeError):
        return True  # damaged


def measured(plan: Plan, record: Record) -> dict[str, list[str]]:
    """Per label of an evaluation the results that were measured as the plan measures today."""
    if record.state != "finished":
        return {}
    same = [e.label for e in plan.evaluations if e.measuring() in record.evaluations]
    return {label: record.results[label] for label in same if label in record.results}


def is_measured(plan: Plan, record: Record) -> bool:
    """Whether a cell has the results of every evaluation of the plan."""
    return len(measured(plan, record)) == len(plan.evaluations)


def write_record(plan: Plan, cell: Cell, record: Record) -> None:
    """Write a cell's record.

    Raises:
        StorageError: it cannot be written.
    """
    content = asdict(record)
    digest = sha256_bytes(canonical_json(content))
    document = {"schema_version": SCHEMA_VERSION, "sha256": digest, **content}
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=True)
    atomic_write_text(record_path(plan, cell), text + "\n")


def is_settled(plan: Plan, cell: Cell, record: Record) -> bool:
    """Whether it is fixed what a cell is made with: it is made, or its training has begun, which
    goes on as its own config.yaml says.
    """
    return record.state == "finished" or (cell.kind == "train" and is_run(plan.folder(cell)))


class OtherReference(RunError):
    """The weights of a grid's model are not those that cells on the disk were made from."""


def check_reference(plan: Plan, model: str, sha256: str) -> None:
    """Refuse a model whose weights changed since cells were made from it.

    Args:
        plan: whose cells lie there.
        model: of the grid.
        sha256: of its weights.

    Raises:
        OtherReference: naming such a cell.
    """
    for cell in plan.cells:
        if cell.model != model or not _holds_something(plan.folder(cell)):
            continue
        if read_record(plan, cell).reference not in (None, sha256):
            raise OtherReference(
                f"The weights of {model} are not those that {plan.folder(cell)} was made from and "
                "measured against, and one table cannot hold both. Put the earlier ones back, or "
                "choose another --output."
            )


def check_definitions(plan: Plan, *, to_be_made: bool) -> None:
    """Refuse an output whose cells another recipe made, before anything is done.

    Args:
        plan: whose cells lie there.
        to_be_made: also refuse cells that were trained or edited with other defaults than today's,
            where others are still to be, which could not stand beside them, and what was made of a
            cell that is to be made again. Imports torch.

    Raises:
        RunError: naming every such cell and where it differs.
    """
    problems, defaults = [], []
    records = [(cell, read_record(plan, cell)) for cell in plan.cells]
    open_kinds = {c.kind for c, record in records if to_be_made and not is_settled(plan, c, record)}
    for cell, record in records:
        folder = plan.folder(cell)
        if record.state == "missing":
            if _holds_something(folder) and not record_path(plan, cell).exists():
                problems.append(f"{folder} is there and no cell of this comparison made it")
            if not record.definition:
                continue
        if not _holds_something(folder):
            continue  # it left nothing behind
        recorded = _with_later_keys(record.definition)
        changed = [*_differences(recorded, json.loads(json.dumps(cell.document())))]
        if changed:
            problems.append(f"{folder} differs in {', '.join(changed[:5])}")
        elif to_be_made and cell.source and not _holds_something(plan.folder(cell.source)):
            problems.append(f"{folder} was made from {cell.source}, which is gone")
        elif cell.kind in open_kinds:
            before = record.taken
            if not before and cell.kind == "train" and is_run(folder):
                before = taken_by_run(folder)
            if others := [*_differences(before, _shared(taken(cell), before))]:
                defaults.append(f"{folder} was made with other defaults of {', '.join(others)}")
    if problems or defaults:
        lines = "\n".join(f"  {p}" for p in [*problems, *defaults])
        told = f" What is there is shown by: clipalign compare {plan.output} --report-only"
        raise RunError(
            f"{plan.output} holds cells that another recipe made, or other defaults:\n{lines}\n"
            f"Choose another --output, or remove those folders.{'' if problems else told}"
        )


def _holds_something(folder: Path) -> bool:
    return folder.exists() and any(folder.iterdir())


def _with_later_keys(definition: dict[str, Any]) -> dict[str, Any]:
    """A definition with the keys that configurations have gained since, at their defaults."""
    try:
        config = RunConfig.model_validate(definition["config"]).model_dump(mode="json")
    except (KeyError, ValidationError):  # no training, or no longer a configuration
        return definition
    return {**definition, "config": config}


def _shared(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Of what is taken now the keys that were there before: what is newer left it as it was."""
    return {
        key: _shared(value, before[key])
        if isinstance(value, dict) and isinstance(before[key], dict)
        else value
        for key, value in now.items()
        if key in before
    }


def _differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Key paths at which two documents differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            yield from _differences(a.get(key), b.get(key), f"{where}.{key}" if where else key)
    elif a != b:
        yield where
