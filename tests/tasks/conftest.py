"""Photographs made up for a test, whole and broken, and where real ones are found."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest
from PIL import Image

BLANK = Image.new("RGB", (8, 8))
GENDERED = re.compile(r"\b(woman|man|women|men|female|male|girl|boy|she|he|her|his)\b", re.I)
REAL = Path(__file__).parents[2] / ".." / "shared" / "photos"


def content(folder):
    """Every file's bytes by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def photos(tmp_path):
    """A folder of four classes, five photographs each, of several sizes and formats."""
    root = tmp_path / "photos"
    for i, name in enumerate(("ant", "bee", "cat", "polar_bear")):
        (root / name).mkdir(parents=True)
        for j in range(5):
            size = (300, 200) if j == 4 else (90 + 10 * j, 100)
            noise = Image.effect_noise(size, 20 + 10 * i).convert("RGB")
            tint = Image.new("RGB", size, (50 * i, 30 * j, 90))
            Image.blend(noise, tint, 0.7).save(root / name / f"{j}.{'jpg' if j % 2 else 'png'}")
    return root


@pytest.fixture
def broken_photos(photos):
    """The same with one file of each kind of trouble; the dictionary says which are readable."""
    whole = Image.open(photos / "ant" / "0.png").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    whole.convert("CMYK").save(photos / "ant" / "cmyk.jpg")
    whole.convert("P").save(photos / "ant" / "palette.png")
    whole.convert("RGBA").save(photos / "ant" / "alpha.png")
    Image.new("I;16", (80, 80), 40_000).save(photos / "bee" / "deep.png")
    whole.resize((120, 60)).save(photos / "bee" / "turned.jpg", exif=exif)
    Image.new("RGB", (2600, 1300), (20, 90, 40)).save(photos / "bee" / "huge.jpg")
    (photos / "cat" / "empty.png").write_bytes(b"")
    (photos / "cat" / "text.jpg").write_text("not an image")
    whole_bytes = (photos / "ant" / "1.jpg").read_bytes()
    (photos / "cat" / "cut.jpg").write_bytes(whole_bytes[: len(whole_bytes) // 2])
    (photos / "cat" / "drawing.svg").write_text("<svg/>")
    Image.new("RGB", (3, 3)).save(photos / "cat" / "tiny.png")
    return photos


@pytest.fixture
def real_photos():
    """The folder of real photographs, or a skip that says how to have it."""
    folder = Path(os.environ.get("CLIPALIGN_PHOTOS", REAL))
    if not (folder / "caltech101" / "index.csv").is_file():
        pytest.skip(
            "no real photographs: set CLIPALIGN_PHOTOS to a folder with caltech101/index.csv "
            "(path,label,split)"
        )
    return folder


@pytest.fixture
def photographs(tmp_path):
    """Write a table of small images with these columns; returns its path."""

    def write(columns, *rows):
        with (tmp_path / "index.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *columns])
            for i, row in enumerate(rows):
                Image.new("RGB", (20, 16), (9 * i % 256, 80, 200)).save(tmp_path / f"{i}.png")
                writer.writerow([f"{i}.png", *row])
        return tmp_path / "index.csv"

    return write
