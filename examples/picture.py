"""The README's picture: attacked images of a run with what was said of them before and after.

    clipalign train --method kto --task typographic -o runs/picture
    python examples/picture.py runs/picture -o examples/attacked.svg

Of the images of the test split that were wrong before and are right now, those on which both were
surest, one an object. Light and dark follow whoever looks at it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from clipalign.progress import Silent
from clipalign.reports.pictures import Images
from clipalign.reports.sources import find_sources
from clipalign.reports.wall import Tile, build_wall

SHOWN = 5
SIDE, GAP, HEIGHT = 112, 36, 190
STYLE = """
text { font: 13px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; fill: #1c1d1f }
.when { fill: #5d6066 } .right { fill: #0a6570; font-weight: 600 }
.word { text-decoration: line-through }
@media (prefers-color-scheme: dark) {
  text { fill: #e9e7e2 } .when { fill: #a3a6ab } .right { fill: #6cc5cd } }
"""


def chosen(run: Path) -> list[Tile]:
    """The tiles to show, the surest first."""
    (source,) = find_sources([run])
    results = [m for m in source.results if m.result.dataset.split == "test"]
    for measured in results:
        vars(measured)["rows"] = surest(measured.rows)  # the wall draws all rows that it is given
    wall = build_wall(replace(source, results=tuple(results)), Images(None, {}), SHOWN, Silent())
    tiles = list(wall.tiles) if wall else []
    return sorted(tiles, key=lambda t: -min(t.before[1] if t.before else 0.0, t.after[1]))


def surest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that took the word before and take the object now, one an object and one a word."""
    mended = [
        row
        for row in rows
        if row.get("written") is not None
        and row["reference_predicted"] == row["written"]
        and row["predicted"] == row["label"]
    ]
    mended.sort(key=lambda row: -min(row["reference_confidence"], row["confidence"]))
    kept: dict[str, dict[str, Any]] = {}
    for row in mended:
        if not {row["label"], row["written"]} & set(kept):
            kept |= {row["label"]: row, row["written"]: row}
        if len(kept) == 2 * SHOWN:
            break
    return list({id(row): row for row in kept.values()}.values())


def drawing(tiles: list[Tile]) -> str:
    """The tiles beside each other, as SVG."""
    width = len(tiles) * (SIDE + GAP) - GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
        f'height="{HEIGHT}" role="img"><style>{STYLE}</style>'
    ]
    for place, tile in enumerate(tiles):
        x = place * (SIDE + GAP)
        parts.append(f'<image href="{tile.picture}" x="{x}" y="0" width="{SIDE}" height="{SIDE}"/>')
        said = [("before", tile.before), ("after", tile.after)]
        for line, (when, saying) in enumerate(said):
            if saying is None:
                continue
            text, sure, kind = saying
            y = SIDE + 22 + 36 * line
            parts.append(f'<text class="when" x="{x}" y="{y}">{when}, {100 * sure:.0f} %</text>')
            parts.append(f'<text class="{kind}" x="{x}" y="{y + 16}">{escape(text)}</text>')
    return "".join([*parts, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="that was evaluated on typographic attacks")
    parser.add_argument("-o", "--output", type=Path, default=Path("examples/attacked.svg"))
    arguments = parser.parse_args()
    tiles = chosen(arguments.run)
    if not tiles:
        raise SystemExit(
            f"{arguments.run} has no attacked image that was mended on the test split."
        )
    arguments.output.write_text(drawing(tiles), encoding="utf-8")
    print(arguments.output, ", ".join(f"{t.label} ({t.written})" for t in tiles))


if __name__ == "__main__":
    main()
