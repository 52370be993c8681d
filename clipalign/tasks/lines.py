"""A table that is written row by row, whatever its length."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from clipalign.files import storage_errors
from clipalign.tasks.working import Row

__all__ = ["Lines"]

_REMEMBERED = 10
_encode = json.JSONEncoder(allow_nan=False).encode  # json.dumps would make one for every row


class Lines:
    """A table that is written row by row; it counts them, and remembers the first ones.

    Args:
        path: of the table.
        change: what rows that are written together go through.

    Attributes:
        count: rows written since the last `turn`.
        head: the first of them.
    """

    def __init__(
        self, path: Path, change: Callable[[Sequence[Row]], Sequence[Row]] | None = None
    ) -> None:
        self._path, self._change = path, change
        self.turn()

    def turn(self) -> None:
        """Begin to count anew."""
        self.count, self.head = 0, list[Row]()

    def __enter__(self) -> Lines:
        with storage_errors(self._path):
            self._file = self._path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        with storage_errors(self._path):
            self._file.close()

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows."""
        for row in self._change(list(rows)) if self._change else rows:
            with storage_errors(self._path):
                self._file.write(_line(row))
            self.count += 1
            if len(self.head) < _REMEMBERED:
                self.head.append(row)


def _line(row: Row) -> bytes:
    """One line of a table. ASCII escapes carry even names that are not valid Unicode."""
    return _encode(row).encode("ascii") + b"\n"
