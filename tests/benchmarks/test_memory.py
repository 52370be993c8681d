"""Metadata of many images stays in memory, their pixels do not: a million rows in under 2 GiB.

Peak memory is that of a process of its own. CLIPALIGN_BENCHMARK_ROWS sets another number of rows;
the limit goes with it.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from PIL import Image

pytestmark = pytest.mark.benchmark
ROWS = int(os.environ.get("CLIPALIGN_BENCHMARK_ROWS", 1_000_000))
GIB = 2**30
LINKS = 50_000  # of one file; file systems allow some 65,000

MEASURE = """
import resource, sys
from clipalign.datasets.table import Table
from clipalign.tasks.preferences import Preferences
path, rows = sys.argv[1], int(sys.argv[2])
table = Table(path=path, label_column=None, repeats=True, wrong_rows="quarantine")
task = Preferences()
images = task.source(table)
task.candidates(images, "train")
assert len(images.examples("train")) == rows
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.fixture
def table(tmp_path):
    """A table of preferences over as many images as rows: links to a few files."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG")
    lines = ["image,chosen,rejected,who"]
    for i in range(ROWS):
        if i % 1000 == 0:
            (tmp_path / f"{i // 1000:04}").mkdir()
        if i % LINKS == 0:
            source = tmp_path / f"source-{i}.png"
            source.write_bytes(buffer.getvalue())
        name = f"{i // 1000:04}/{i % 1000:03}.png"
        os.link(source, tmp_path / name)
        lines.append(f"{name},a photo of thing {i % 997},a drawing of thing {i % 991},ann")
    (tmp_path / "prefs.csv").write_text("\n".join(lines))
    return tmp_path / "prefs.csv"


@pytest.mark.timeout(3600)
def test_a_million_rows_of_preferences(table):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(table), str(ROWS)],
        capture_output=True,
        text=True,
        check=True,
    )
    peak = int(done.stdout)
    print(f"\n{ROWS:,} rows: peak memory {peak / GIB:.2f} GiB, {peak / ROWS:,.0f} bytes a row")
    assert peak <= max(2 * GIB * ROWS / 1_000_000, 0.2 * GIB)
