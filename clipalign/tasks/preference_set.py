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
from pathlib import Path, PurePosixPath

from PIL import Image

from clipalign.datasets.images import read_image
from clipalign.datasets.shards import read_at
from clipalign.errors import DataError
from clipalign.files import read_regular, sha256_bytes
from clipalign.tasks.manifest import AGAIN, MANIFEST, Manifest, read_manifest
from clipalign.tasks.preference_table import TABLE, PreferenceRow, PreferenceTable

__all__ = ["PreferenceRow", "PreferenceSet"]

QUARANTINE = "quarantine.jsonl"
PREVIEW = "preview.png"


class PreferenceSet:
    """A complete set. Made by `clipalign.prepare`, or opened and checked with `PreferenceSet.open`.

    The table of a split is read when it is first asked for: whoever has just written ten million
    rows need not hold them.

    Attributes:
        root: its directory.
        manifest: what was made of what.
        candidates: C texts; every chosen and rejected text is one of them.
        regulariser_candidates: the regulariser's own, or None where they are the same.
        scope: which of the candidates an image chooses among while training.
        content_sha256: of everything in it.
        splits: names, in the manifest's order.
    """

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root, self.manifest = root, manifest
        self._tables: dict[str, PreferenceTable] = {}
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
        tables = {f"{split}/{TABLE}": split for split in manifest.counts}
        for name in tables:
            if name not in manifest.files:
                raise DataError(f"{root / MANIFEST} has no hash of {name}. {AGAIN}")
        for name, expected in manifest.files.items():
            if name not in tables:
                _read_hashed(root, name, expected)
        found = cls(root, manifest)
        for split in found.splits:
            found._table(split)
        return found

    def __fspath__(self) -> str:
        """Its directory, so that it stands wherever a path does: `train(data=prefs)`."""
        return str(self.root)

    def __len__(self) -> int:
        """Rows of all splits."""
        return sum(counts.rows for counts in self.manifest.counts.values())

    def __repr__(self) -> str:
        """Where it is and what it holds."""
        made = self.manifest
        rows = ", ".join(f"{split} {counts.rows:,}" for split, counts in made.counts.items())
        return f"<PreferenceSet {self.root}: {made.task} on {made.dataset}, rows: {rows}>"

    def rows(self, split: str) -> tuple[PreferenceRow, ...]:
        """The rows of a split.

        Raises:
            DataError: there is no such split, or its table was changed since it was written.
        """
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise DataError(
                f"{self.root} has no split {split!r}; it has {known}. Prepare a set with "
                f"--split {split}."
            )
        return self._table(split).rows

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

    def left_out(self, split: str) -> str | None:
        """What of a split could not be used, in a sentence; None where all could."""
        counts = self.manifest.counts[split]
        if not counts.quarantined:
            return None
        first = next((row for row in self.quarantined() if row["split"] == split), None)
        such = f", such as {first['file']} ({first['reason']})" if first else ""
        return (
            f"{counts.quarantined:,} of the {counts.images:,} images of the split {split} could "
            f"not be used and are left out{such}. All are listed in {self.quarantine}."
        )

    def read_image(self, path: Path) -> Image.Image:
        """Read one image of the set as upright RGB, and check that it is the one that was written.

        Raises:
            DataError: it is not of this set, was changed, or cannot be read.
        """
        within = (s for s in self.splits if str(path).startswith(f"{self.root / s}{os.sep}"))
        found = (self._table(split).image(path) for split in within)
        digest, place = next((image for image in found if image), (None, None))
        if digest is None:
            raise DataError(f"{path} is not an image of the preference set {self.root}.")
        try:
            data = read_regular(path) if place is None else read_at(path.parent, place)
        except (FileNotFoundError, EOFError):
            raise DataError(f"{path} is gone. {AGAIN}") from None
        if sha256_bytes(data) != digest:
            raise DataError(f"{path} is not the image that was written: it is damaged. {AGAIN}")
        return read_image(data, name=str(path))

    def _table(self, split: str) -> PreferenceTable:
        if split not in self._tables:
            self._tables[split] = PreferenceTable(self.root, split, self.manifest)
        return self._tables[split]


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
