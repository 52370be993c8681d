"""A scan on the disk: a table, its values, and a picture."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, fields
from pathlib import Path

from clipalign.files import atomic_write_text
from clipalign.progress import Reporter, Silent
from clipalign.text import sheet_cell
from clipalign.transforms.scan_plot import plot_scan
from clipalign.transforms.scanned import Scanned

__all__ = ["KEPT", "keep_scan", "write_scan"]

KEPT = "scan.json"
"""The last scan of a run's own map, in the run directory, where `clipalign report` finds it."""


def write_scan(scan: Scanned, folder: Path, reporter: Reporter | None = None) -> list[Path]:
    """Write scan.csv, scan.json and, where matplotlib is installed, scan.png.

    Args:
        scan: what to write.
        folder: is made if need be.
        reporter: hears why there is no picture.

    Returns:
        The files.

    Raises:
        StorageError: they cannot be written.
    """
    say: Reporter = reporter or Silent()
    table = io.StringIO(newline="")
    ends = {name: (f"{name}_low", f"{name}_high") for name in scan.intervals}
    names = [field.name for field in fields(scan.rows[0])]
    columns = [column for name in names for column in (name, *ends.get(name, ()))]
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    for i, row in enumerate(scan.rows):
        cells = asdict(row)
        for name, pair in ends.items():
            interval = scan.intervals[name][i]
            if interval is not None:
                cells |= zip(pair, (interval.low, interval.high), strict=True)
        writer.writerow({name: sheet_cell(cell) for name, cell in cells.items()})
    written = [folder / "scan.csv", folder / "scan.json"]
    atomic_write_text(written[0], table.getvalue())
    atomic_write_text(written[1], _as_json(scan))
    try:
        plot_scan(scan, folder / "scan.png")
    except ImportError:
        say.note(
            "There is no scan.png: matplotlib is not installed. "
            "Install it with: pip install 'clipalign[report]'"
        )
        return written
    return [*written, folder / "scan.png"]


def keep_scan(scan: Scanned, run: Path) -> None:
    """Keep a scan of a run's own map in the run, where its report finds it.

    Raises:
        StorageError: it cannot be written.
    """
    atomic_write_text(run / KEPT, _as_json(scan))


def _as_json(scan: Scanned) -> str:
    return json.dumps(scan.document(), indent=2) + "\n"
