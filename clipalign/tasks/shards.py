"""`prepare` by several processes, on one machine or many: each makes a part of the same set.

All parts grow in one directory beside the set's place, `.NAME.of-N-HASH.parts`. Names of image
files come from an example's place in the whole dataset, so parts never meet; each writes its own
table. Whoever finishes last joins the tables, in order, and renames the directory to its place: no
image is copied or moved (unless tar shards are wanted, which it then packs), and the set is byte
for byte the one that a single process makes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from clipalign.errors import DataError, UsageError
from clipalign.files import (
    SUMS,
    atomic_write_bytes,
    canonical_json,
    changed_file,
    storage_errors,
    write_sums,
)
from clipalign.progress import Reporter
from clipalign.staging import take_place
from clipalign.tasks.manifest import MANIFEST
from clipalign.tasks.working import LOOSE

__all__ = ["Shard", "Shards", "parse_shard", "shard_of_environment"]

_COUNTS = "counts.json"
_PARTS = "parts"  # folder of the parts' tables, gone when the set is whole


@dataclass(frozen=True)
class Shard:
    """One of `count` parts, `number` from 0."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, total: int) -> range:
        """Its neighbouring ones of `total` things; the parts in order are the whole."""
        begin, end = (total * n // self.count for n in (self.number, self.number + 1))
        return range(begin, end)


WHOLE = Shard(0, 1)


def parse_shard(text: str) -> Shard:
    """Read "i/n".

    Raises:
        UsageError: it is not that, or there is no such part.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if match is None:
        raise UsageError(f"--shard {text}: must be I/N, such as 0/8 for the first of eight parts.")
    number, count = int(match[1]), int(match[2])
    if number >= count:
        raise UsageError(
            f"--shard {text}: parts are numbered from 0, so the last of {count} is "
            f"{max(0, count - 1)}/{count}."
        )
    return Shard(number, count)


def shard_of_environment(environment: Mapping[str, str] = os.environ) -> Shard | None:
    """The part of this process under torchrun; None without it."""
    size = environment.get("WORLD_SIZE", "1")
    if "LOCAL_RANK" not in environment or not size.isdigit() or int(size) == 1:
        return None
    return Shard(int(environment["RANK"]), int(size))


@dataclass(frozen=True)
class Shards:
    """The directory in which the parts of one set grow.

    Attributes:
        target: where the set will stand.
        shard: the part of this process.
        recipe: sha256 of all that decides the set.
    """

    target: Path
    shard: Shard
    recipe: str

    @property
    def folder(self) -> Path:
        """Becomes the set."""
        name = f".{self.target.name}.of-{self.shard.count}-{self.recipe[:12]}.parts"
        return self.target.with_name(name)

    def table(self, split: str, number: int | None = None) -> Path:
        """Rows of one part; of this one where no number is given."""
        return self._part(f"{split}.jsonl", number)

    def refused(self, split: str, number: int | None = None) -> Path:
        """The quarantine of one part."""
        return self._part(f"{split}.quarantine.jsonl", number)

    def _part(self, name: str, number: int | None) -> Path:
        part = self.shard.number if number is None else number
        return self.folder / _PARTS / f"{part:06}" / name

    @contextlib.contextmanager
    def held(self, say: Reporter) -> Iterator[None]:
        """Hold this part: who is to make the same one waits, and then finds it there."""
        path = self.folder.with_suffix(f".{self.shard.number}.lock")
        lock = FileLock(path)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                say.note(f"Waiting for another process, which makes part {self.shard}.")
                lock.acquire()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            lock.release()

    def begin(self, splits: Sequence[str]) -> None:
        """Make the directory; a part that was broken off is made anew, to the same bytes."""
        with storage_errors(self.folder):
            for split in splits:
                for name in LOOSE:
                    (self.folder / split / name).mkdir(parents=True, exist_ok=True)
            self.table("").parent.mkdir(parents=True, exist_ok=True)

    @property
    def done(self) -> bool:
        """Whether this part is complete, or even the whole set."""
        return self._whole or self._part(SUMS, None).is_file()

    def finish(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Mark this part as complete: images and rows by split."""
        path = self._part(_COUNTS, None)
        atomic_write_bytes(path, canonical_json(counts))
        write_sums(path.parent, [file.name for file in path.parent.glob("*.json*")])

    @property
    def _whole(self) -> bool:
        """Whether the set is made and only its parts' tables are left to remove."""
        return (self.folder / MANIFEST).is_file()

    def missing(self) -> list[int]:
        """Parts that are not complete yet."""
        numbers = range(self.shard.count)
        return [n for n in numbers if not self._part(SUMS, n).is_file()]

    def _check(self) -> None:
        for number in range(self.shard.count):
            folder = self._part("", number)
            if changed := changed_file(folder, [file.name for file in folder.iterdir()]):
                raise DataError(f"{changed} Remove {folder}, and make part {number} again.")

    def counts(self, split: str, what: str) -> int:
        """The sum of a count over all parts."""
        numbers = range(self.shard.count)
        parts = [json.loads(self._part(_COUNTS, n).read_bytes()) for n in numbers]
        return sum(part[split][what] for part in parts)

    def join(self, of: Callable[[int], Path], whole: BinaryIO) -> None:
        """Append a file of every part, `of` its number, one after another."""
        for number in range(self.shard.count):
            with of(number).open("rb") as file:
                shutil.copyfileobj(file, whole, 1 << 20)

    def settle(self, complete: Callable[[], Any], *, replace: bool) -> bool:
        """Where all parts are there, complete the set and put it into its place.

        Of parts that finish at once one does it, under a lock.

        Args:
            complete: writes what is left to write, into `folder`.
            replace: a set that stands in the place makes room.

        Returns:
            Whether the set stands.

        Raises:
            RunError: something else stands in its place, and is not to be replaced.
        """
        path = self.folder.with_suffix(".lock")
        with FileLock(path):
            stands = self._settle(complete, replace)
        if stands:
            path.unlink(missing_ok=True)
        return stands

    def _settle(self, complete: Callable[[], Any], replace: bool) -> bool:
        if not self.folder.is_dir():  # another part did it
            return True
        if not self._whole:
            if self.missing():
                return False
            self._check()
        complete()
        with storage_errors(self.target):
            shutil.rmtree(self.folder / _PARTS)
            if replace and self.target.is_dir():
                shutil.rmtree(self.target)
            take_place(self.folder, self.target)
        return True
