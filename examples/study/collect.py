"""Gathers the tables and small pictures of finished studies, for a page that is kept.

    python examples/study/collect.py studies/ -o examples/study/results

Of each comparison: its Markdown table with its SVG pictures, made again from the result files. Of
`studies/figures`: what the other scripts wrote. Nothing is computed here and no number is typed.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from clipalign.comparison.compare import report
from clipalign.comparison.plan import RECIPE, make_plan

LARGEST = 200_000  # bytes of a picture that is kept


def collect(studies: Path, output: Path) -> list[Path]:
    """Copy; gives what was written."""
    written = []
    for study in sorted(path.parent for path in studies.glob(f"*/{RECIPE}")):
        result = report(make_plan(study, check_options=False))
        unfinished = [cell.name for cell in result.summary.cells if cell.state != "finished"]
        if unfinished:
            print(f"{study}: {len(unfinished)} cells are not finished, such as {unfinished[0]}")
        kept = [p for p in result.files if p.suffix == ".md" or p.suffix == ".svg"]
        written += _copy(kept, output / study.name)
    if (studies / "figures").is_dir():
        files = sorted((studies / "figures").glob("*.*"))
        written += _copy([p for p in files if p.suffix in (".md", ".svg")], output / "figures")
    return written


def _copy(files: list[Path], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    small = [p for p in files if p.stat().st_size <= LARGEST]
    for path in files:
        if path not in small:
            print(f"{path} has {path.stat().st_size:,} bytes and is left out")
    return [Path(shutil.copy(path, folder / path.name)) for path in small]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", type=Path, nargs="?", default=Path("studies"))
    parser.add_argument("-o", "--output", type=Path, default=Path("examples/study/results"))
    arguments = parser.parse_args()
    for path in collect(arguments.studies, arguments.output):
        print(path)


if __name__ == "__main__":
    main()
