"""What several benchmarks measure on."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest

PHOTOS = 600


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 600 photographs by class; and a cache of this test's own."""
    monkeypatch.setenv("CLIPALIGN_CACHE", str(tmp_path / "cache"))
    rows = [row for row in _rows() if row["split"] == "test"]
    return _copied(rows[:: max(1, len(rows) // PHOTOS)][:PHOTOS], tmp_path / "photos")


@pytest.fixture
def all_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same of all that there are, of whatever split."""
    monkeypatch.setenv("CLIPALIGN_CACHE", str(tmp_path / "cache"))
    return _copied(_rows(), tmp_path / "all-photos")


def _table() -> Path:
    return Path(os.environ.get("CLIPALIGN_PHOTOS", "")) / "caltech101" / "index.csv"


def _rows() -> list[dict[str, str]]:
    if not _table().is_file():
        pytest.skip("no real photographs: set CLIPALIGN_PHOTOS to a folder with caltech101")
    with _table().open() as file:
        return list(csv.DictReader(file))


def _copied(rows: list[dict[str, str]], root: Path) -> Path:
    for row in rows:
        folder = root / "test" / row["label"]
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{row['split']}-{Path(row['path']).name}"
        shutil.copyfile(_table().parent / row["path"], folder / name)
    return root
