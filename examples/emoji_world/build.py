"""Build the embedded emoji world from openly licensed npm packages.

    python examples/emoji_world/build.py fetch packages/      # npm pack + unpack (needs npm)
    python examples/emoji_world/build.py build packages/      # → clipalign/datasets/emoji_data/

Needs `pip install resvg-py` beside clipalign's own dependencies: OpenMoji, Fluent flat and EmojiTwo
come as SVG. The result is one WebP sheet an art style, all on the same grid, and `emoji.csv`, whose
row number is the cell. Running it again on the same packages gives the same files.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import subprocess
import tarfile
from pathlib import Path

from PIL import Image

SIZE, COLUMNS = 64, 64
OUT = Path(__file__).resolve().parents[2] / "clipalign" / "datasets" / "emoji_data"
PACKAGES = {
    "emojibase-data": "17.0.0",
    "emoji-datasource-google": "16.0.0",
    "emoji-datasource-twitter": "16.0.0",
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "fluentui-emoji": "1.3.0",
    "openmoji": "17.0.0",
    "@iconify-json/emojione": "1.2.3",
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/fxemoji": "1.2.2",
}
STYLES = ("noto", "twemoji", "fluent-3d", "fluent-flat", "openmoji")
UNSEEN_STYLE = "emojitwo"
PRETRAINING_STYLES = ("noto-v1", "fxemoji")  # older art of fewer emoji, for pretraining alone
ICONS = {"emojitwo": "emojione", "noto-v1": "noto-v1", "fxemoji": "fxemoji"}
TONES = ("default", "light", "medium-light", "medium", "medium-dark", "dark")
# One-word names of scenes, parts, adjectives, signs, and of things that few people could name.
NOT_EVERYDAY = frozenset(
    """
    ram ewe boar poodle dodo wing coral oyster microbe rosette lotus herb oden dango sake mate
    tamale falafel custard fondue amphora cooking wood hut houses kaaba hamsa moai wedding foggy
    fog sunrise sunset camping desert station metro tram minibus seat wheel cyclone droplet
    comet tennis bowling cricket joker knot thread yarn sari kimono briefs ledger label memo
    pager locked link chains pick clamp alembic dna placard coffin gear hook stadium ice
    joystick
    """.split()  # noqa: SIM905
)
GROUPS = {
    0: "faces",
    1: "people",
    3: "animals",
    4: "food",
    5: "travel",
    6: "activities",
    7: "objects",
    8: "symbols",
}


def fetch(root: Path, packages: dict[str, str]) -> None:
    """Download packages (name → version) with npm and unpack each into root/NAME."""
    root.mkdir(parents=True, exist_ok=True)
    for name, version in packages.items():
        target = root / name.replace("/", "__")
        if target.exists():
            continue
        done = subprocess.run(
            ["npm", "pack", "--silent", f"{name}@{version}"],
            cwd=root, check=True, capture_output=True, text=True,
        )  # fmt: skip
        archive = root / done.stdout.strip().splitlines()[-1]
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
        archive.unlink()
        print("fetched", name, version)


def slug(label: str) -> str:
    """The file name that Fluent and EmojiTwo give to a CLDR label."""
    text = label.lower().replace("’", "").replace("'", "").replace(".", "")
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def bare(code: str) -> str:
    """A code point sequence without the variation selector, for lookups."""
    return "-".join(c for c in code.upper().split("-") if c != "FE0F")


class Art:
    """Finds the drawing of an emoji in each package."""

    def __init__(self, root: Path) -> None:
        self.pngs = {
            "noto": self.files(root / "emoji-datasource-google/package/img/google/64", "png"),
            "twemoji": self.files(root / "emoji-datasource-twitter/package/img/twitter/64", "png"),
            "fluent-3d": self.files(root / "@lobehub__fluent-emoji-3d/package/assets", "webp"),
        }
        self.openmoji = self.files(root / "openmoji/package/color/svg", "svg")
        self.flat = root / "fluentui-emoji/package/icons/flat"
        self.icons = {
            style: json.loads((root / f"@iconify-json__{name}/package/icons.json").read_text())
            for style, name in ICONS.items()
        }

    @staticmethod
    def files(folder: Path, ext: str) -> dict[str, Path]:
        return {bare(p.stem): p for p in sorted(folder.glob(f"*.{ext}"))}

    def draw(
        self, style: str, code: str, label: str, tone: str, people: bool
    ) -> Image.Image | None:
        """The 64-pixel RGBA drawing, or None where the style has none."""
        if style in self.pngs:
            path = self.pngs[style].get(bare(code))
            return fit(Image.open(path)) if path else None
        if style == "openmoji":
            path = self.openmoji.get(bare(code))
            return fit(raster(path.read_text())) if path else None
        if style == "fluent-flat":
            for name in (f"{slug(label)}-{tone}", slug(label)):
                path = self.flat / f"{name}.svg"
                if path.exists() and not (people and name == slug(label) and tone != "default"):
                    return fit(raster(path.read_text()))
            return None
        icons, name = self.icons[style], slug(label)
        icon = icons["icons"].get(name) or icons["icons"].get(name.replace("-", ""))
        if icon is None or tone != "default":
            return None
        width, height = (icon.get(k, icons.get(k, 64)) for k in ("width", "height"))
        return fit(raster(
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        ))  # fmt: skip


def raster(svg: str) -> Image.Image:
    """An SVG text as an RGBA image, four times the final size."""
    import resvg_py

    data = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=4 * SIZE, height=4 * SIZE))
    return Image.open(io.BytesIO(data))


def fit(image: Image.Image) -> Image.Image:
    """Crop to what is drawn, scale to 60 pixels, centre on a transparent 64-pixel cell."""
    image = image.convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
    image = image.crop(box) if box else image
    scale = (SIZE - 4) / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # premultiplied alpha, so that edges do not darken
    image = image.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    cell = Image.new("RGBA", (SIZE, SIZE))
    cell.paste(image, ((SIZE - size[0]) // 2, (SIZE - size[1]) // 2))
    return cell


def entries(root: Path) -> list[dict[str, str]]:
    """Every emoji of the world, without its drawing, in CLDR order.

    People who come as woman, man and person form one concept ("police officer") with a gender and
    six skin tones; everything else is a concept of its own, in the default tone.
    """
    data = json.loads((root / "emojibase-data/package/en/data.json").read_text())
    data = sorted((e for e in data if e.get("group") in GROUPS), key=lambda e: e["order"])
    labels = {e["label"] for e in data}
    concepts = {
        concept
        for label in labels
        if (concept := label.removeprefix("woman ")) != label and f"man {concept}" in labels
    }
    rows: list[dict[str, str]] = []
    for emoji in data:
        label = emoji["label"]
        if "facing right" in label:
            continue
        gender, concept = "person", label.removeprefix("person ")
        for word in ("woman", "man"):
            if label.startswith(f"{word} "):
                gender, concept = word, label.removeprefix(f"{word} ")
        people = concept in concepts
        if not people:
            gender, concept = "", label
        row = {
            "code": emoji["hexcode"],
            "label": label,
            "concept": concept,
            "gender": gender,
            "tone": "default" if people else "",
            "group": GROUPS[emoji["group"]],
            "keywords": "|".join(t for t in emoji.get("tags", []) if t.isascii()),
            "version": str(emoji["version"]),
        }
        rows.append(row)
        for skin in emoji.get("skins", []) if people else []:
            tone = skin["tone"]
            if isinstance(tone, int):
                rows.append(row | {"code": skin["hexcode"], "tone": TONES[tone]})
    return rows


def everyday(rows: list[dict[str, str]], drawn: dict[int, list[str]]) -> dict[str, str]:
    """Two disjoint sets of 100 everyday concepts, by rule and not by result.

    A one-word lower-case name of three to seven letters, a thing and not a person, face or sign,
    drawn in every style, with no second emoji of the same thing ("dog face"), not in NOT_EVERYDAY;
    of these the 200 oldest; in alphabetical order they go to A and B in turn.
    """
    labels = {r["label"] for r in rows}
    things = [
        (float(r["version"]), i, r["concept"])
        for i, r in enumerate(rows)
        if r["group"] in ("animals", "food", "travel", "activities", "objects")
        and re.fullmatch(r"[a-z]{3,7}", r["label"])
        and set(STYLES) <= set(drawn[i])
        and f"{r['label']} face" not in labels
        and r["label"] not in NOT_EVERYDAY
    ]
    if len(things) < 200:
        raise SystemExit(f"only {len(things)} everyday concepts")
    chosen = sorted(name for _, _, name in sorted(things)[:200])
    return {name: "AB"[k % 2] for k, name in enumerate(chosen)}


def build(root: Path) -> None:
    art, rows = Art(root), entries(root)
    cells: dict[str, dict[int, Image.Image]] = {
        s: {} for s in (*STYLES, UNSEEN_STYLE, *PRETRAINING_STYLES)
    }
    drawn: dict[int, list[str]] = {}
    kept = []
    for row in rows:
        tone = row["tone"] or "default"
        images = {
            s: image
            for s in cells
            if (image := art.draw(s, row["code"], row["label"], tone, bool(row["gender"])))
        }
        if sum(s in images for s in STYLES) < 3:
            continue  # too few drawings to hold one out and still learn from two
        index = len(kept)
        for s, image in images.items():
            cells[s][index] = image
        drawn[index] = list(images)
        kept.append(row)
    sets = everyday(kept, drawn)
    order = list(dict.fromkeys(r["concept"] for r in kept))
    for i, row in enumerate(kept):
        row["styles"] = "|".join(drawn[i])
        turn = order.index(row["concept"])
        able = [s for s in (STYLES[(turn + k) % len(STYLES)] for k in range(5)) if s in drawn[i]]
        row["held_out"] = able[0]
        row["everyday"] = sets.get(row["concept"], "")
    OUT.mkdir(parents=True, exist_ok=True)
    lines = -(-len(kept) // COLUMNS)
    for style, images in cells.items():
        sheet = Image.new("RGBA", (COLUMNS * SIZE, lines * SIZE))
        for i, image in images.items():
            sheet.paste(image, (i % COLUMNS * SIZE, i // COLUMNS * SIZE))
        sheet.save(OUT / f"{style}.webp", quality=80, alpha_quality=90, method=6)
        print(style, len(images), f"{(OUT / f'{style}.webp').stat().st_size / 2**20:.1f} MiB")
    with open(OUT / "emoji.csv", "w", newline="", encoding="utf-8") as file:
        fields = "code label concept gender tone group everyday held_out styles keywords"
        writer = csv.DictWriter(file, fields.split(), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    print(
        len(kept), "emoji,", len(order), "concepts;", sum(v == "A" for v in sets.values()), "in A"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("fetch", "build"))
    parser.add_argument("packages", type=Path)
    args = parser.parse_args()
    if args.step == "fetch":
        fetch(args.packages, PACKAGES)
    else:
        build(args.packages)
