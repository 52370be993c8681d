"""Read the rows of a CSV, JSON Lines or Parquet file as text cells, with what is wrong of each.

The cells of a CSV are parted by commas, or where its first line has none by semicolons or tabs. A
first column without a name is passed over: it is the index that pandas writes.

Rows are numbered as a text editor or a spreadsheet shows them: the first row of a CSV after its
header is row 2, the first line of a JSON Lines file row 1, the first row of a Parquet file row 1.
"""

from __future__ import annotations

import csv
import importlib
import io
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from clipalign.errors import DataError
from clipalign.files import parse_json, read_regular

__all__ = ["Row", "read_rows"]

_MAX_CELL = 1 << 17  # characters
_MAX_BYTES = 1 << 31
_DELIMITERS = ",;\t"
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_UTF8 = "not UTF-8 text; save the table as UTF-8"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: cells by column, and what is wrong with it.

    Attributes:
        number: of the row.
        cells: by column.
        problems: what is wrong with it.
        others: columns in which it has neither text nor a number nor a time.
    """

    number: int
    cells: Mapping[str, str]
    problems: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def read_rows(path: Path) -> list[Row]:
    """All rows of a table, by the ending of its name.

    Raises:
        DataError: it cannot be read as a table at all.
    """
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is not a table: it must end in {', '.join(readers)}.")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path} is larger than {_MAX_BYTES >> 30} GiB. Cut it into parts.")
        return reader(path)
    except OSError as error:
        words = error.strerror or str(error)
        raise DataError(f"The table {path} cannot be read: {words}.") from None


def _text(path: Path) -> str:
    data = read_regular(path, _MAX_BYTES)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16. Save it as UTF-8.")
    # bytes that are no UTF-8 become lone surrogates, so that each row can name its own
    return data.decode("utf-8-sig", "surrogateescape")


def _csv(path: Path) -> list[Row]:
    file = io.StringIO(_text(path), newline="")
    first = file.readline()
    file.seek(0)
    delimiter = next((mark for mark in _DELIMITERS if mark in first), ",")
    lines = csv.reader(file, delimiter=delimiter, strict=True)
    rows: list[Row] = []
    header: list[str] = []
    before = csv.field_size_limit(_MAX_CELL)
    try:
        for number, cells in enumerate(lines, 1):
            if not header:
                header = _header(path, cells)
            elif cells:
                rows.append(_csv_row(number, header, cells))
    except csv.Error as error:
        raise DataError(f"{path}, line {lines.line_num}: {error}.") from None
    finally:
        csv.field_size_limit(before)
    return rows


def _header(path: Path, cells: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    where = f"{path}: its first line, which names the columns,"
    if _broken("".join(header)):
        raise DataError(f"{where} is {_NOT_UTF8}.")
    first = 1 if len(header) > 1 else 0
    unnamed = [str(i) for i, name in enumerate(header, 1) if not name and i > first]
    if unnamed:
        raise DataError(f"{where} has no name for column {', '.join(unnamed)}.")
    if repeated := [repr(name) for name, count in Counter(header).items() if count > 1]:
        raise DataError(f"{where} names {', '.join(repeated)} more than once.")
    return header


def _csv_row(number: int, header: list[str], cells: list[str]) -> Row:
    problems = []
    if len(cells) != len(header):
        problems.append(f"{len(cells)} cells, and the header has {len(header)}")
    if _broken("".join(cells)):
        problems.append(_NOT_UTF8)
        cells = []
    named = dict(zip(header, cells, strict=False))
    named.pop("", None)
    return Row(number, named, tuple(problems))


def _jsonl(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        if _broken(line):
            rows.append(Row(number, {}, (_NOT_UTF8,)))
            continue
        try:
            row = parse_json(line) if len(line) <= 8 * _MAX_CELL else "too long"
        except ValueError:
            row = None
        if not isinstance(row, dict):
            rows.append(Row(number, {}, ("not a JSON object on one line",)))
            continue
        rows.append(_typed(number, row))
    return rows


def _parquet(path: Path) -> list[Row]:
    try:
        arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise DataError(
            f"Reading {path} needs pyarrow: `pip install 'clipalign[parquet]'`, or save the "
            "table as CSV."
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            # a part at a time: what is left out, such as embeddings, is never held for all rows
            rows = (row for part in file.iter_batches() for row in part.to_pylist())
            return [_typed(number, row) for number, row in enumerate(rows, 1)]
    except arrow.ArrowException as error:
        raise DataError(f"{path} is not a Parquet file: {error}.") from None


def _typed(number: int, row: Mapping[str, Any]) -> Row:
    """A row of values as text; nothing and NaN are empty."""
    cells, problems, others = {}, [], []
    for column, value in row.items():
        if value is None or (isinstance(value, float) and math.isnan(value)):
            cells[column] = ""
        elif isinstance(value, str) and _broken(value):
            problems.append(_NOT_UTF8)
        elif isinstance(value, str | int | float | Decimal | date | time):
            cells[column] = str(value)
        else:
            others.append(column)
    return Row(number, cells, tuple(problems), tuple(others))


def _broken(text: str) -> bool:
    return _SURROGATE.search(text) is not None
