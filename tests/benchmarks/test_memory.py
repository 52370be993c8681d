"""Metadata of many images stays in memory, their pixels do not: a million rows in under 2 GiB.

    python -m pytest -m benchmark tests/benchmarks/test_memory.py -s

Peak memory is that of a process of its own, and seconds are its processor time, which must grow no
faster than the number of rows. CLIPALIGN_BENCHMARK_ROWS sets another number; the limit goes with
it. `prepare` of files and of shards is run on a hundredth and more, and drawn out to that number by
the straight line.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.benchmark
ROWS = int(os.environ.get("CLIPALIGN_BENCHMARK_ROWS", 1_000_000))
GIB = 2**30
LINKS = 50_000  # of one file; file systems allow some 65,000
CLASSES, SAMPLES = 10, 10_000  # of the images; samples a shard

MEASURE = """
from clipalign.datasets.table import Table
from clipalign.tasks.preferences import Preferences
path, rows = sys.argv[1], int(sys.argv[2])
table = Table(path=path, label_column=None, repeats=True, wrong_rows="quarantine")
task = Preferences()
images = task.source(table)
task.candidates(images, "train")
assert len(images.examples("train")) == rows
"""
OPEN = """
from clipalign.tasks.preference_set import PreferenceSet
found = PreferenceSet.open(sys.argv[1])
assert len(found.rows("train")) == int(sys.argv[2])
"""
PREPARE = """
from clipalign.tasks.prepare import prepare
prepare("typographic", sys.argv[1], sys.argv[1] + "-prefs", format=sys.argv[2])
"""
USED = """
used = resource.getrusage(resource.RUSAGE_SELF)
with open("/proc/self/status") as status:  # ru_maxrss would count the parent's memory as well
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(peak * 1024, used.ru_utime + used.ru_stime)
"""


def used(code: str, *arguments: object) -> tuple[int, float]:
    """Peak memory in bytes and processor seconds of a process that runs this."""
    done = subprocess.run(
        [sys.executable, "-c", "import resource, sys\n" + code + USED, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, seconds = done.stdout.split()
    return int(peak), float(seconds)


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
    peak, _ = used(MEASURE, table, ROWS)
    print(f"\n{ROWS:,} rows: peak memory {peak / GIB:.2f} GiB, {peak / ROWS:,.0f} bytes a row")
    assert peak <= max(2 * GIB * ROWS / 1_000_000, 0.3 * GIB)


def write_set(root: Path, rows: int) -> None:
    """A set in one tar shard, its table as long as is wanted. The shard is a hole of that size."""
    from clipalign.files import sha256_file
    from clipalign.tasks.manifest import MANIFEST, SplitCounts, read_manifest
    from clipalign.tasks.prepare import prepare

    prepare("typographic", "emoji", root, limit=1, splits=["train"], format="webdataset")
    table, manifest = root / "train" / "metadata.jsonl", read_manifest(root)
    row = json.loads(table.read_text())
    shard = row["file_name"].partition("/")[0]
    with table.open("w") as file:
        for i in range(rows):
            row |= {
                "file_name": f"{shard}/{i:08}.png",
                "clean_file_name": f"{shard}/{i:08}.clean.png",
                "source_key": f"photographs/{i % 997:03}/{i:08}.png",
                "group": f"photographs/{i % 997:03}/{i:08}.png",
                "box": f"{i % 64},{i % 63},{i % 60 + 70},{i % 61 + 80}",
                "sha256": f"{i:064x}",
                "clean_sha256": f"{i + rows:064x}",
            }
            file.write(json.dumps(row) + "\n")
    counts = {"train": SplitCounts(images=rows, rows=rows, quarantined=0)}
    files = {"train/metadata.jsonl": sha256_file(table)}
    sealed = manifest.model_copy(update={"counts": counts, "files": files}).sealed()
    (root / MANIFEST).write_text(sealed.dump())


@pytest.mark.timeout(3600)
def test_a_set_of_a_million_rows(tmp_path):
    found = []
    for rows in (ROWS // 4, ROWS):
        write_set(tmp_path / str(rows), rows)
        found.append(used(OPEN, tmp_path / str(rows), rows))
    (_, quarter), (peak, seconds) = found
    print(
        f"\na set of {ROWS:,} rows: peak memory {peak / GIB:.2f} GiB, {peak / ROWS:,.0f} bytes a "
        f"row; {seconds:.1f} s, {seconds / quarter:.2f} times a quarter of them"
    )
    assert peak <= max(2 * GIB * ROWS / 1_000_000, 0.3 * GIB)
    assert seconds <= 1.25 * 4 * quarter


def write_photographs(root: Path, count: int) -> None:
    """As many files as are wanted, in ten classes: links to a few."""
    for c in range(CLASSES):
        folder = root / f"thing {c}"
        folder.mkdir(parents=True)
        for i in range(count // CLASSES):
            if i == 0:
                picture(c).save(folder / "0.png")
            else:
                os.link(folder / "0.png", folder / f"{i}.png")


def write_shards(root: Path, count: int) -> None:
    """As many samples as are wanted, in tar shards of ten thousand."""
    root.mkdir()
    pictures = []
    for c in range(CLASSES):
        buffer = io.BytesIO()
        picture(c).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    for begin in range(0, count, SAMPLES):
        with tarfile.open(root / f"train-{begin // SAMPLES:06}.tar", "w") as shard:
            for i in range(begin, min(begin + SAMPLES, count)):
                c = i % CLASSES
                for ending, data in (("png", pictures[c]), ("cls", f"thing {c}".encode())):
                    info = tarfile.TarInfo(f"{i:08}.{ending}")
                    info.size = len(data)
                    shard.addfile(info, io.BytesIO(data))


def picture(c: int) -> Image.Image:
    return Image.new("RGB", (64, 64), (20 * c, 100, 50))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("source", "format"), [(write_photographs, "imagefolder"), (write_shards, "webdataset")]
)
def test_preparing_many_images(tmp_path, source, format):
    """All of `prepare`: from the index of the images to the set, written and opened again."""
    counts = [ROWS // 100, ROWS // 50, ROWS // 25]
    found = []
    for count in counts:
        source(tmp_path / str(count), count)
        found.append(used(PREPARE, tmp_path / str(count), format))
    (least, begun), *_, (most, ended) = found
    a_row = (most - least) / (counts[-1] - counts[0])
    peak = least + a_row * (ROWS - counts[0])
    print(
        f"\nprepare of {', '.join(f'{c:,}' for c in counts)} images to {format}: "
        f"{a_row:,.0f} bytes an image, {peak / GIB:.2f} GiB for {ROWS:,}; "
        f"{', '.join(f'{1000 * s / c:.2f}' for c, (_, s) in zip(counts, found, strict=True))} "
        "ms of processor time an image"
    )
    assert peak <= max(2 * GIB * ROWS / 1_000_000, 0.3 * GIB)
    assert ended <= 1.25 * begun * counts[-1] / counts[0]
