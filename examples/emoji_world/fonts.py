"""Bring the attack fonts: Latin subsets of OFL-licensed faces, as TrueType.

    python examples/emoji_world/fonts.py packages/     # needs npm and `pip install fonttools`

Writes clipalign/tasks/fonts/{train,test}/NAME.ttf and each face's licence. The two folders share no
face, so that what is learnt on one is tested on the other.
"""

from __future__ import annotations

import sys
from pathlib import Path

from build import fetch

OUT = Path(__file__).resolve().parents[2] / "clipalign" / "tasks" / "fonts"
VERSION = "5.3.0"
FACES = {
    "train": ("roboto", "open-sans", "montserrat", "nunito", "rubik", "bitter", "oswald"),
    "test": ("inter", "work-sans", "noto-serif"),
}


def main(root: Path) -> None:
    from fontTools.ttLib import TTFont

    fetch(root, {f"@fontsource/{name}": VERSION for names in FACES.values() for name in names})
    for split, names in FACES.items():
        (OUT / split).mkdir(parents=True, exist_ok=True)
        for name in names:
            package = root / f"@fontsource__{name}" / "package"
            font = TTFont(
                package / "files" / f"{name}-latin-700-normal.woff", recalcTimestamp=False
            )
            font.flavor = None
            font.save(OUT / split / f"{name}.ttf")
            (OUT / split / f"{name}.LICENSE.txt").write_text((package / "LICENSE").read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
