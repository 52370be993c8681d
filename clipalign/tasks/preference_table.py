"""The table of one split of a preference set: checked row by row as it is read.

A set may have a million rows, so what they share is held once: texts, names of columns, and words
that come again and again.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipalign.datasets.shards import Member
from clipalign.errors import DataError
from clipalign.files import parse_json
from clipalign.tasks.manifest import AGAIN, Manifest
from clipalign.tasks.packing import PARTS

__all__ = ["TABLE", "PreferenceRow", "PreferenceTable"]

TABLE = "metadata.jsonl"
_MAX_ROW_BYTES = 1 << 20
_MAX_PROBLEMS = 10
_MAX_SHARED = 1 << 16
_OWN = (
    "file_name", "sha256", "clean_file_name", "clean_sha256",
    "chosen", "rejected", "label", "source_key", "group",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """One row of a set.

    Attributes:
        folder: of the split.
        file_name: of the image, below it.
        clean_file_name: of its partner for the regulariser, or None.
        chosen, rejected: texts among the candidates, or None. A row with neither is an image that
            only the regulariser sees.
        label: class name, or None.
        key: of the example that the row was made of.
        group: rows that share a group are not independent.
        columns: whatever else the row says (attack_text, style, …); `PreparedRow.columns` tells of
            those that training reads.
    """

    folder: Path
    file_name: str
    clean_file_name: str | None
    chosen: str | None
    rejected: str | None
    label: str | None = None
    key: str = ""
    group: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image(self) -> Path:
        """The image that the preference is about."""
        return self.folder / self.file_name

    @property
    def clean_image(self) -> Path | None:
        """Its partner for the regulariser."""
        return None if self.clean_file_name is None else self.folder / self.clean_file_name


class PreferenceTable:
    """The checked rows of one split.

    Args:
        root: of the set.
        split: its name.
        manifest: of the set; it has the hash of the table.

    Attributes:
        rows: all of them.

    Raises:
        DataError: the table was changed, or rows of it are wrong; the message names them.
    """

    def __init__(self, root: Path, split: str, manifest: Manifest) -> None:
        self._folder, self._path = root / split, root / split / TABLE
        self._packed = manifest.shard_rows is not None
        self._root = os.path.realpath(root)
        self._candidates = {text: text for text in manifest.candidates}
        self._hashes: dict[str, bytes] = {}
        self._places: dict[str, Member] = {}
        self._inside: dict[str, bool] = {}
        self._sizes: dict[str, int] = {}
        self._shared: dict[Any, Any] = {}
        self.rows = self._read(manifest.counts[split].rows, manifest.files[f"{split}/{TABLE}"])
        self._shared.clear()

    def image(self, path: Path) -> tuple[str, Member | None] | None:
        """The sha256 of an image of the split, and where it lies in its shard; None for others."""
        text, folder = str(path), f"{self._folder}{os.sep}"
        name = text.removeprefix(folder).replace(os.sep, "/")
        digest = self._hashes.get(name) if text.startswith(folder) else None
        return None if digest is None else (digest.hex(), self._places.get(name))

    def _read(self, expected: int, sha256: str) -> tuple[PreferenceRow, ...]:
        rows, problems, digest = [], list[str](), hashlib.sha256()
        try:
            if _regular_size(str(self._path)) is None and os.path.lexists(self._path):
                raise OSError(0, "it is not a file")  # a pipe would never end
            with self._path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    digest.update(line)
                    try:
                        rows.append(self._row(line))
                    except ValueError as error:
                        problems.append(f"row {number}: {error}")
        except OSError as error:
            raise DataError(f"{self._path} cannot be read: {error.strerror}. {AGAIN}") from None
        if digest.hexdigest() != sha256:
            raise DataError(f"{self._path} was changed after it was written. {AGAIN}")
        if len(rows) != expected and not problems:
            problems.append(f"{len(rows)} rows, and the manifest counts {expected}")
        if problems:
            more = len(problems) - _MAX_PROBLEMS
            lines = [*problems[:_MAX_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
            raise DataError(f"{self._path} is damaged:\n  " + "\n  ".join(lines) + f"\n{AGAIN}")
        return tuple(rows)

    def _row(self, line: bytes) -> PreferenceRow:
        if len(line) > _MAX_ROW_BYTES:
            raise ValueError(f"longer than {_MAX_ROW_BYTES} bytes")
        row = parse_json(line)
        if not isinstance(row, dict):
            raise ValueError("not an object")
        if self._packed:
            for part in PARTS:
                self._place(row, part)
        name, digest, clean, clean_digest, chosen, rejected, label, key, group = (
            row.pop(column, None) for column in _OWN
        )
        for column, text in (("label", label), ("source_key", key), ("group", group)):
            if text is not None and not isinstance(text, str):
                raise ValueError(f"its {column} is no text")
        key, group = key or "", group or ""
        return PreferenceRow(
            folder=self._folder,
            file_name=self._file(name, digest),
            clean_file_name=None if clean is None else self._file(clean, clean_digest),
            chosen=self._text(chosen),
            rejected=self._text(rejected),
            label=self._share(label),
            key=key,
            group=key if group == key else self._share(group),
            columns=_Cells(self._share(tuple(row)), tuple(map(self._share, row.values()))),
        )

    def _file(self, name: Any, digest: Any) -> str:
        if not isinstance(name, str) or not isinstance(digest, str):
            raise ValueError("no file name, or no hash of the file")
        if not _plain(name):
            raise ValueError(f"{name!r} lies outside of the set")
        if not self._packed:
            path = f"{self._folder}/{name}"
            folder = path.rpartition("/")[0]
            if folder not in self._inside:
                real = os.path.realpath(folder)
                self._inside[folder] = os.path.commonpath([real, self._root]) == self._root
            if not self._inside[folder]:
                raise ValueError(f"{name!r} lies outside of the set")
            if _regular_size(path) is None:
                raise ValueError(f"there is no file {name!r}")
        self._hashes[name] = bytes.fromhex(digest)
        return name

    def _place(self, row: dict[str, Any], part: str) -> None:
        """Note where an image of a packed row lies, and check that it lies within its shard."""
        offset, size = row.pop(f"{part}_offset", None), row.pop(f"{part}_bytes", None)
        name = row.get(PARTS[part])
        if name is None:
            return
        shard, slash, member = str(name).partition("/")
        if not slash or "/" in member or not _plain(str(name)):
            raise ValueError(f"{name!r} is not in a shard of the set")
        if shard not in self._sizes:
            self._sizes[shard] = _regular_size(f"{self._folder}/{shard}") or 0
        if not (isinstance(offset, int) and isinstance(size, int) and offset >= 0 and size > 0):
            raise ValueError(f"it does not say where {name!r} lies")
        if offset + size > self._sizes[shard]:
            raise ValueError(f"there is no {name!r}: the shard is gone or was cut short")
        self._places[str(name)] = Member(offset, size)

    def _text(self, text: Any) -> str | None:
        if text is None:
            return None
        if not isinstance(text, str) or text not in self._candidates:
            raise ValueError(f"{text!r} is not among the candidates of the manifest")
        return self._candidates[text]

    def _share(self, value: Any) -> Any:
        """The same value, as the object that came before where there is one."""
        try:
            known = self._shared.get(value)
        except TypeError:  # a list or a mapping
            return value
        if known is not None and type(known) is type(value):
            return known
        if len(self._shared) < _MAX_SHARED:
            self._shared[value] = value
        return value


class _Cells(Mapping[str, Any]):
    """A row's further columns, without a dictionary of its own."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
        self._names, self._values = names, values

    def __getitem__(self, name: str) -> Any:
        try:
            return self._values[self._names.index(name)]
        except ValueError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return repr(dict(self))


def _plain(name: str) -> bool:
    """Whether the name of a file leads nowhere but below its folder, by one spelling."""
    return "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def _regular_size(path: str) -> int | None:
    """Bytes of a file; None where there is none, or a link, which could lead anywhere."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
