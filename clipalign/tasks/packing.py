"""A preference set in tar shards: the same rows, packed as they come, for many images.

    DIR/train/train-000000.tar    00000000.jpg, 00000000.clean.jpg, 00000000.json, …
    DIR/train/metadata.jsonl      the rows, and where in which shard their images lie

Every sample is whole, so that `webdataset` and the dataset of that name read the shards by
themselves. An image that several rows share is packed with each; the table names the first. An
image that is its own clean partner is packed once.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from clipalign.datasets.shards import Member, read_at
from clipalign.files import canonical_json, storage_errors

__all__ = ["PARTS", "Packer", "image_bytes", "member_of"]

PARTS = {"image": "file_name", "clean": "clean_file_name"}
"""The two images of a row, and the column of each one's file."""
_HEADER = 512  # bytes

Row = dict[str, Any]


def member_of(row: Mapping[str, Any], part: str) -> Member:
    """Where an image of a packed row lies in its shard."""
    return Member(row[f"{part}_offset"], row[f"{part}_bytes"])


def image_bytes(folder: Path, row: Mapping[str, Any], part: str) -> bytes | None:
    """One image of a row of a split's table, packed or not; None where the row has none.

    Raises:
        OSError, EOFError: it cannot be read.
    """
    name = row[PARTS[part]]
    if name is None:
        return None
    path = folder / str(name)
    if f"{part}_offset" not in row:
        return path.read_bytes()
    return read_at(path.parent, member_of(row, part))


class Packer:
    """Moves the files of rows into shards, in the order in which the rows come.

    Args:
        folder: of the split, where the files are and the shards go.
        split: the shards are called by it.
        rows: at most so many a shard; those of one example stay together.
        keep: leave the files where they are.
    """

    def __init__(self, folder: Path, split: str, rows: int, *, keep: bool = False) -> None:
        self._folder, self._split, self._most, self._keep = folder, split, rows, keep
        self._tar: tarfile.TarFile | None = None
        self._name = ""
        self._inside = self._packed = self._shards = 0

    def __enter__(self) -> Packer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with storage_errors(self._folder):
            self._close()

    def pack(self, rows: Sequence[Row]) -> list[Row]:
        """The rows of one example, their files packed.

        Raises:
            StorageError: the disk is full or not writable.
        """
        with storage_errors(self._folder):
            if rows and (self._tar is None or self._inside + len(rows) > self._most):
                self._open()
            first: dict[str, tuple[str, Member]] = {}
            packed = [self._sample(row, first) for row in rows]
            for name in () if self._keep else first:
                (self._folder / name).unlink()
        return packed

    # --- Parts ----------------------------------------------------------------------------------

    def _sample(self, row: Row, first: dict[str, tuple[str, Member]]) -> Row:
        """Pack one row; `first` is where each file of the example was packed first."""
        key, packed = f"{self._packed:08}", dict(row)
        for part, column in PARTS.items():
            member = None
            same = part == "clean" and row[column] == row["file_name"]
            if same:
                packed[column], member = first[row[column]]
            elif row[column] is not None:
                file = self._folder / row[column]
                ending = file.suffix if part == "image" else f".{part}{file.suffix}"
                place = self._add(key + ending, file.read_bytes())
                packed[column], member = first.setdefault(row[column], place)
            packed[f"{part}_offset"] = member and member.offset
            packed[f"{part}_bytes"] = member and member.size
        said = {name: cell for name, cell in row.items() if name not in PARTS.values()}
        self._add(f"{key}.json", canonical_json(said))
        self._packed += 1
        self._inside += 1
        return packed

    def _add(self, name: str, data: bytes) -> tuple[str, Member]:
        assert self._tar is not None
        info = tarfile.TarInfo(name)  # no times and no owners: same rows, same bytes
        info.size = len(data)
        offset = self._tar.offset + _HEADER
        self._tar.addfile(info, io.BytesIO(data))
        self._tar.members = []  # type: ignore[attr-defined]  # flat memory
        return f"{self._name}/{name}", Member(offset, len(data))

    def _open(self) -> None:
        self._close()
        self._name = f"{self._split}-{self._shards:06}.tar"
        self._tar = tarfile.open(  # noqa: SIM115  # closed by _close
            self._folder / self._name, "x", format=tarfile.USTAR_FORMAT
        )
        self._shards += 1
        self._inside = 0

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None
