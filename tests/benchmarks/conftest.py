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
    """A folder of photographs by class; and a cache of this test's own."""
    table = Path(os.environ.get("CLIPALIGN_PHOTOS", "")) / "caltech101" / "index.csv"
    if not table.is_file():
        pytest.skip("no real photographs: set CLIPALIGN_PHOTOS to a folder with caltech101")
    monkeypatch.setenv("CLIPALIGN_CACHE", str(tmp_path / "cache"))
    with table.open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    root = tmp_path / "photos"
    for row in rows[:: max(1, len(rows) // PHOTOS)][:PHOTOS]:
        folder = root / "test" / row["label"]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(table.parent / row["path"], folder / Path(row["path"]).name)
    return root
