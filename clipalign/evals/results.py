"""The results file of an evaluation: what was measured, on what, how sure it is, and the proof.

    NAME.json         one SuiteResult, sorted keys, no timestamps: same evaluation, same bytes
    NAME.rows.jsonl   one row an image, from which every number can be computed again

The JSON carries the hash of its own content and of the rows, so a byte that changed after writing
is noticed when it is read. `SuiteResult.model_json_schema()` is the schema.
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from clipalign._version import __version__
from clipalign.datasets.locate import label_of
from clipalign.errors import DataError, near_matches
from clipalign.evals import words
from clipalign.evals.statistics import Interval
from clipalign.files import (
    atomic_write_bytes,
    atomic_writer,
    canonical_json,
    read_regular,
    sha256_bytes,
)

__all__ = [
    "SCHEMA_VERSION",
    "Comparison",
    "DatasetIdentity",
    "MetricValue",
    "ModelIdentity",
    "RowsFile",
    "SuiteResult",
    "read_result",
    "read_rows",
    "write_result",
]

SCHEMA_VERSION: Final = 1

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MetricValue(_Strict):
    """One measured number.

    Attributes:
        value: the number; None only where nothing could be measured (n = 0).
        n: images (or queries) that it is made of.
        interval: its confidence interval, where there is one.
        higher_is_better: None for a number that is neither good nor bad in itself.
        unit: "share", "nats", "cosine", …
        description: one sentence for a reader of the table.
    """

    value: float | None
    n: Count
    interval: Interval | None = None
    higher_is_better: bool | None = None
    unit: str
    description: str

    @model_validator(mode="after")
    def _measured_or_not(self) -> MetricValue:
        if (self.value is None) != (self.n == 0):
            raise ValueError("value is null exactly where n is 0: nothing was measured")
        return self

    def __float__(self) -> float:
        """The number.

        Raises:
            ValueError: nothing could be measured.
        """
        if self.value is None:
            raise ValueError("Nothing was measured (n = 0), so there is no number.")
        return self.value

    def __str__(self) -> str:
        """The number with its interval, as tables have it."""
        if self.value is None:
            return "not measured"
        number = words.number(self.value, self.unit) + words.mark(self.unit)
        return number + words.interval(self.interval, self.unit)


class Comparison(_Strict):
    """One metric of the model less that of the model it stands against, on the same images.

    Attributes:
        metric: a name in `SuiteResult.metrics`.
        n: images compared.
        difference: model − against.
        interval: of the difference, paired.
        p_value: two-sided.
        test: how p was computed, for example "mcnemar-exact".
        n_discordant: pairs (or groups) on which the two differ.
        minimal_detectable_effect: the smallest difference that so many images would have shown;
            None where all groups differ alike.
    """

    metric: str
    n: Count
    difference: float
    interval: Interval | None = None
    p_value: Annotated[float, Field(ge=0, le=1)] | None = None
    test: str | None = None
    n_discordant: Count | None = None
    minimal_detectable_effect: float | None = None


class ModelIdentity(_Strict):
    """A model: the spec it was loaded by, the hash of its weights, and a name for tables."""

    spec: str
    sha256: Sha256
    name: str


class DatasetIdentity(_Strict):
    """The images: which split of which dataset, the hash that identifies it, n images scored.

    `options` are those that the dataset of this name was built with, where it was named: with them
    the images are found again. Paths in them are as they were given.
    """

    name: str
    split: str
    fingerprint: str
    licence: str
    n: Count
    options: dict[str, JsonValue] = {}

    @property
    def label(self) -> str:
        """What tells the dataset from others of its kind: the name, "table index", …"""
        return label_of(self.name, self.options)


class RowsFile(_Strict):
    """The per-image rows beside the result. `file` is a name in the same directory."""

    file: Annotated[str, Field(pattern=r"^[^/\\\x00]+\.rows\.jsonl$")]
    count: Count
    sha256: Sha256


class SuiteResult(_Strict):
    """Everything one suite says about one model on one dataset.

    Attributes:
        schema_version: of this file's layout.
        suite, suite_version: what was run; numbers of different suite versions don't compare.
        created_by: "clipalign" and its version.
        model, against: the model, and the one it is compared with (None: no comparison).
        options: of the suite, as resolved.
        templates, classnames: the candidate texts are each template filled with each class name.
        prompts: texts that are used as they stand, beside or instead of those.
        seed: of the attacks and the resampling.
        metrics: by name.
        comparisons: with `against`.
        per_class: class name → numbers of that class.
        warnings: what a reader of the numbers must know.
        rows, content_sha256: filled in by `write_result`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    suite: str
    suite_version: Annotated[int, Field(ge=1)]
    created_by: str = f"clipalign {__version__}"
    model: ModelIdentity
    against: ModelIdentity | None = None
    dataset: DatasetIdentity
    options: dict[str, JsonValue] = {}
    templates: list[str] = []
    prompts: list[str] = []
    classnames: list[str] = []
    seed: int
    metrics: dict[str, MetricValue]
    comparisons: list[Comparison] = []
    per_class: dict[str, dict[str, int | float | None]] = {}
    warnings: list[str] = []
    rows: RowsFile | None = None
    content_sha256: Sha256 | None = None

    def __repr__(self) -> str:
        """What was measured on what, without the numbers."""
        return f"<SuiteResult {self._title}, {len(self.metrics)} metrics>"

    def __str__(self) -> str:
        """A line a metric, with intervals; percentiles and the like are in `metrics` alone."""
        differences = {c.metric: c for c in self.comparisons}
        lines = []
        for name, metric in self.metrics.items():
            if words.DETAIL.search(name):
                continue
            cells = [f"  {words.label(name):<36} {metric!s:<28}"]
            if found := differences.get(name):
                cells.append("difference " + words.number(found.difference, metric.unit, sign="+"))
                cells.append(words.interval(found.interval, metric.unit, sign="+"))
            lines.append("".join(cells).rstrip())
        return "\n".join([self._title, *lines])

    def _repr_html_(self) -> str:
        """For a notebook."""
        return f"<pre>{html.escape(str(self))}</pre>"

    @property
    def _title(self) -> str:
        data = self.dataset
        beside = f" against {self.against.name}" if self.against else ""
        where = f"{self.suite} on {data.label}, split {data.split}, {data.n:,} images"
        return f"{where}: {self.model.name}{beside}"


def write_result(
    path: str | os.PathLike[str],
    result: SuiteResult,
    rows: Iterable[Mapping[str, Any]] | None = None,
) -> SuiteResult:
    """Write a result and its per-image rows, each file all or nothing, the result last.

    Args:
        path: of the result, for example results/typographic.json.
        result: what to write; its `rows` and `content_sha256` are set here.
        rows: one JSON object an image, in a stable order; None for a result without rows.

    Returns:
        The result as `read_result` gives it back.

    Raises:
        DataError: a number is NaN or infinite, or a row is not JSON.
        StorageError: it cannot be written.
    """
    path = Path(path)
    recorded = None if rows is None else _write_rows(path, rows)
    payload = result.model_dump(exclude={"rows", "content_sha256"})
    payload["rows"] = None if recorded is None else recorded.model_dump()
    try:
        payload["content_sha256"] = sha256_bytes(canonical_json(payload))
        text = json.dumps(payload, sort_keys=True, indent=2, allow_nan=False)
        data = f"{text}\n".encode()
    except ValueError as error:
        raise DataError(f"Cannot write {path}, its content is not JSON: {error}.") from error
    atomic_write_bytes(path, data)
    return SuiteResult.model_validate(payload)


def read_result(path: str | os.PathLike[str], *, check_rows: bool = True) -> SuiteResult:
    """Read a result and check that neither it nor its rows changed since they were written.

    Args:
        path: of the result.
        check_rows: also hash the per-image rows; False reads a result that was copied alone.

    Raises:
        DataError: it is missing, not JSON, of another schema version, has unknown or wrong keys, or
            was changed.
    """
    path = Path(path)
    payload = _parse(path, _read_bytes(path), "result")
    version = payload.get("schema_version")
    if version != SCHEMA_VERSION:
        said = "no results schema version"
        if "schema_version" in payload:
            said = f"results schema version {json.dumps(version)}"
        raise DataError(
            f"{path} has {said}, and clipalign {__version__} reads "
            f"version {SCHEMA_VERSION}. Read it with the version that wrote it, or evaluate again."
        )
    try:
        result = SuiteResult.model_validate(payload)
    except ValidationError as error:
        _refuse(path, error)
    recorded = payload.pop("content_sha256", None)
    if recorded != sha256_bytes(canonical_json(payload)):
        raise DataError(f"{path} was changed after it was written. Evaluate again.")
    if check_rows and result.rows is not None:
        _checked_rows(path, result.rows)
    return result


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the per-image rows of the result at `path`, checked against its hash.

    Raises:
        DataError: as for `read_result`, or the result has no rows.
    """
    path = Path(path)
    rows = read_result(path, check_rows=False).rows
    if rows is None:
        raise DataError(f"{path} was written without per-image rows. Evaluate again.")
    lines = _checked_rows(path, rows).splitlines()
    return [_parse(path.with_name(rows.file), line, "row") for line in lines]


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> RowsFile:
    file = path.name.removesuffix(".json") + ".rows.jsonl"
    digest, count = hashlib.sha256(), 0
    with atomic_writer(path.with_name(file)) as handle:
        for row in rows:
            try:
                line = canonical_json(row) + b"\n"
            except (TypeError, ValueError) as error:
                raise DataError(f"Cannot write {file}, row {count + 1}: {error}.") from error
            handle.write(line)
            digest.update(line)
            count += 1
    return RowsFile(file=file, count=count, sha256=digest.hexdigest())


def _checked_rows(path: Path, rows: RowsFile) -> bytes:
    file = path.with_name(rows.file)
    data = _read_bytes(file)
    if (data.count(b"\n"), sha256_bytes(data)) != (rows.count, rows.sha256):
        raise DataError(
            f"{file} is not what {path.name} was made from ({rows.count} rows): it was changed or "
            "only partly copied. Evaluate again."
        )
    return data


def _read_bytes(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.") from error


def _parse(path: Path, data: bytes, what: str) -> dict[str, Any]:
    def finite(text: str) -> float:
        if not math.isfinite(number := float(text)):
            raise ValueError(f"{text} is not a finite number")
        return number

    try:
        payload = json.loads(data.decode("utf-8"), parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a JSON {what}: {error}.") from error
    if not isinstance(payload, dict):
        raise DataError(f"{path} is not a {what}: a JSON object is wanted.")
    return payload


def _refuse(path: Path, error: ValidationError) -> NoReturn:
    """Say every problem of a results file, one a line, as a DataError."""
    models = (SuiteResult, MetricValue, Comparison, ModelIdentity, DatasetIdentity, RowsFile)
    known = {name for model in models for name in model.model_fields}
    problems = []
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"]))
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            problems.append(f"{where}: unknown key.{near_matches(str(problem['loc'][-1]), known)}")
        else:
            problems.append(f"{where}: {problem['msg']}")
    listed = "\n  ".join(problems)
    raise DataError(f"{path} is not a result that this clipalign reads:\n  {listed}") from error
