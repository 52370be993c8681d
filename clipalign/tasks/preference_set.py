"""A preference set on disk: open, check, read.

    DIR/manifest.yaml             what was made of what, and the hashes of the files below
    DIR/<split>/metadata.jsonl    one row an image, with the hashes of its image files
    DIR/<split>/images/…          images that preferences are about
    DIR/<split>/clean/…           their partners for the regulariser
    DIR/<split>/<split>-*.tar     or both in tar shards, see `clipalign.tasks.packing`
    DIR/quarantine.jsonl          inputs that could not be used, each with its reason
    DIR/preview.png               for the eye

Everything that is read is covered by a hash: the manifest by its own `content_sha256`, the tables
by the manifest, the images by the tables. `datasets.load_dataset("imagefolder", data_dir=DIR)`
opens the same directory.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from clipalign.datasets.images import read_image
from clipalign.datasets.shards import Member, read_at
from clipalign.errors import DataError
from clipalign.files import parse_json, read_regular, sha256_bytes
from clipalign.tasks.manifest import AGAIN, MANIFEST, Manifest, read_manifest
from clipalign.tasks.packing import PARTS

__all__ = ["PreferenceRow", "PreferenceSet"]

TABLE = "metadata.jsonl"
QUARANTINE = "quarantine.jsonl"
PREVIEW = "preview.png"
_MAX_ROW_BYTES = 1 << 20
_MAX_PROBLEMS = 10


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
            two that training reads.
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


class PreferenceSet:
    """A complete, checked set. Made by `clipalign.prepare`, or opened with `PreferenceSet.open`.

    Attributes:
        root: its directory.
        manifest: what was made of what.
        candidates: C texts; every chosen and rejected text is one of them.
        regulariser_candidates: the regulariser's own, or None where they are the same.
        scope: which of the candidates an image chooses among while training.
        content_sha256: of everything in it.
        splits: names, in the manifest's order.
    """

    def __init__(
        self,
        root: Path,
        manifest: Manifest,
        rows: Mapping[str, tuple[PreferenceRow, ...]],
        hashes: Mapping[str, str],
        places: Mapping[str, Member],
    ) -> None:
        self.root, self.manifest, self._rows, self._hashes = root, manifest, rows, hashes
        self._places = places
        self.candidates = tuple(manifest.candidates)
        own = manifest.regulariser_candidates
        self.regulariser_candidates = None if own is None else tuple(own)
        self.scope = manifest.scope
        self.content_sha256 = manifest.content_sha256
        self.splits = tuple(manifest.counts)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> PreferenceSet:
        """Open a set and check it: manifest, hashes of the tables, every row, that files exist.

        The images' own hashes are checked as they are read.

        Raises:
            DataError: it is no complete set or was changed; the message names the file.
        """
        root = Path(path)
        manifest = read_manifest(root)
        rows: dict[str, tuple[PreferenceRow, ...]] = {}
        hashes: dict[str, str] = {}
        places: dict[str, Member] = {}
        for name, expected in manifest.files.items():
            _read_hashed(root, name, expected)
        for split in manifest.counts:
            name = f"{split}/{TABLE}"
            if name not in manifest.files:
                raise DataError(f"{root / MANIFEST} has no hash of {name}. {AGAIN}")
            table = _Table(root, split, manifest)
            rows[split] = table.read(_read_hashed(root, name, manifest.files[name]))
            hashes |= table.hashes
            places |= table.places
        return cls(root, manifest, rows, hashes, places)

    def rows(self, split: str) -> tuple[PreferenceRow, ...]:
        """The rows of a split.

        Raises:
            DataError: there is no such split.
        """
        if split not in self._rows:
            known = ", ".join(self.splits)
            raise DataError(
                f"{self.root} has no split {split!r}; it has {known}. Prepare a set with "
                f"--split {split}."
            )
        return self._rows[split]

    @property
    def preview(self) -> Path:
        """A picture of some rows."""
        return self.root / PREVIEW

    @property
    def quarantine(self) -> Path:
        """The list of inputs that could not be used; absent where there is none."""
        return self.root / QUARANTINE

    def quarantined(self) -> list[dict[str, str]]:
        """Inputs that could not be used: rows of split, key, file and reason."""
        if QUARANTINE not in self.manifest.files:
            return []
        data = _read_hashed(self.root, QUARANTINE, self.manifest.files[QUARANTINE])
        return [json.loads(line) for line in data.splitlines()]

    def read_image(self, path: Path) -> Image.Image:
        """Read one image of the set as upright RGB, and check that it is the one that was written.

        Raises:
            DataError: it is not of this set, was changed, or cannot be read.
        """
        expected = self._hashes.get(str(path))
        if expected is None:
            raise DataError(f"{path} is not an image of the preference set {self.root}.")
        place = self._places.get(str(path))
        try:
            data = read_regular(path) if place is None else read_at(path.parent, place)
        except (FileNotFoundError, EOFError):
            raise DataError(f"{path} is gone. {AGAIN}") from None
        if sha256_bytes(data) != expected:
            raise DataError(f"{path} is not the image that was written: it is damaged. {AGAIN}")
        return read_image(data, name=str(path))


def _read_hashed(root: Path, name: str, expected: str) -> bytes:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise DataError(f"{root / MANIFEST} names a file outside of the set: {name!r}.")
    path = root / name
    try:
        data = read_regular(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. {AGAIN}") from None
    if sha256_bytes(data) != expected:
        raise DataError(f"{path} was changed after it was written. {AGAIN}")
    return data


def _regular_size(path: Path) -> int | None:
    """Bytes of a file; None where there is none, or a link, which could lead anywhere."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _said(row: dict[str, Any], column: str, default: str | None) -> str | None:
    """Take a text out of a row.

    Raises:
        ValueError: it is no text.
    """
    text = row.pop(column, default)
    if text is not None and not isinstance(text, str):
        raise ValueError(f"its {column} is no text")
    return text


class _Table:
    """Checks the rows of one split."""

    def __init__(self, root: Path, split: str, manifest: Manifest) -> None:
        self.folder = root / split
        self.path = self.folder / TABLE
        self.manifest, self.expected = manifest, manifest.counts[split].rows
        self.candidates = {text: text for text in manifest.candidates}  # shares the strings
        self.hashes: dict[str, str] = {}
        self.places: dict[str, Member] = {}
        self._inside: dict[Path, bool] = {}
        self._sizes: dict[Path, int] = {}
        self._root = Path(os.path.realpath(root))

    def read(self, data: bytes) -> tuple[PreferenceRow, ...]:
        """All rows.

        Raises:
            DataError: naming the rows that are wrong.
        """
        rows, problems = [], []
        for number, line in enumerate(data.splitlines(), 1):
            try:
                rows.append(self._row(line))
            except ValueError as error:
                problems.append(f"row {number}: {error}")
        if len(rows) != self.expected and not problems:
            problems.append(f"{len(rows)} rows, and the manifest counts {self.expected}")
        if problems:
            more = len(problems) - _MAX_PROBLEMS
            lines = [*problems[:_MAX_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
            raise DataError(f"{self.path} is damaged:\n  " + "\n  ".join(lines) + f"\n{AGAIN}")
        return tuple(rows)

    def _row(self, line: bytes) -> PreferenceRow:
        if len(line) > _MAX_ROW_BYTES:
            raise ValueError(f"longer than {_MAX_ROW_BYTES} bytes")
        row = parse_json(line)
        if not isinstance(row, dict):
            raise ValueError("not an object")
        if self.manifest.shard_rows is not None:
            for part in PARTS:
                self._place(row, part)
        file_name = self._file(row.pop("file_name", None), row.pop("sha256", None))
        clean = row.pop("clean_file_name", None)
        digest = row.pop("clean_sha256", None)
        return PreferenceRow(
            folder=self.folder,
            file_name=file_name,
            clean_file_name=None if clean is None else self._file(clean, digest),
            chosen=self._text(row.pop("chosen", None)),
            rejected=self._text(row.pop("rejected", None)),
            label=_said(row, "label", None),
            key=_said(row, "source_key", "") or "",
            group=_said(row, "group", "") or "",
            columns=row,
        )

    def _file(self, name: Any, digest: Any) -> str:
        if not isinstance(name, str) or not isinstance(digest, str):
            raise ValueError("no file name, or no hash of the file")
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\0" in name:
            raise ValueError(f"{name!r} lies outside of the set")
        path = self.folder / name
        if self.manifest.shard_rows is not None:
            self.hashes[str(path)] = digest
            return name
        if path.parent not in self._inside:
            real = Path(os.path.realpath(path.parent))
            self._inside[path.parent] = real.is_relative_to(self._root)
        if not self._inside[path.parent]:
            raise ValueError(f"{name!r} lies outside of the set")
        if _regular_size(path) is None:
            raise ValueError(f"there is no file {name!r}")
        self.hashes[str(path)] = digest
        return name

    def _place(self, row: dict[str, Any], part: str) -> None:
        """Note where an image of a packed row lies, and check that it lies within its shard."""
        offset, size = row.pop(f"{part}_offset", None), row.pop(f"{part}_bytes", None)
        name = row.get(PARTS[part])
        if name is None:
            return
        shard, slash, member = str(name).partition("/")
        if not slash or "/" in member or shard in ("", ".", "..") or "\0" in shard:
            raise ValueError(f"{name!r} is not in a shard of the set")
        path = self.folder / shard
        if path not in self._sizes:
            self._sizes[path] = _regular_size(path) or 0
        if not (isinstance(offset, int) and isinstance(size, int) and offset >= 0 and size > 0):
            raise ValueError(f"it does not say where {name!r} lies")
        if offset + size > self._sizes[path]:
            raise ValueError(f"there is no {name!r}: the shard is gone or was cut short")
        self.places[str(path / member)] = Member(offset, size)

    def _text(self, text: Any) -> str | None:
        if text is None:
            return None
        if not isinstance(text, str) or text not in self.candidates:
            raise ValueError(f"{text!r} is not among the candidates of the manifest")
        return self.candidates[text]
