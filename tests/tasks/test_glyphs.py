"""Words from kept glyphs: the same pixels and boxes as Pillow's own, which draws each anew."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import PIL
import pytest
from PIL import Image, ImageDraw, ImageFont

from clipalign.tasks import glyphs
from clipalign.tasks.rendering import font_files

pytestmark = pytest.mark.skipif(
    tuple(map(int, PIL.__version__.split(".")[:2])) < (11, 2),
    reason="Pillow before 11.2 lays overlapping letters over each other in another way",
)

FONTS = (*font_files("train"), *font_files("test"))
WORDS = (
    "guitar", "Ty Wo", "AVATAR", "fjord fi", "T.A.L'", "Äß—é", "a\u0301e", " x ",
    "soccer\nball", "T.\nAVAVA", "polar bear\ncub", "a\n \nb",
)  # fmt: skip


@functools.cache
def face(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@pytest.mark.parametrize("stroke", [0, 1, 2])
def test_the_pixels_are_pillows(stroke: int) -> None:
    rng = random.Random(stroke)
    picture = Image.effect_noise((220, 150), 60).convert("RGB")
    for path in FONTS:
        for size in (4, 10, 19, 28, 41):
            word = rng.choice(WORDS)
            # also beyond the edges, and at halves, as where lines are centred
            xy = (rng.choice([-7.5, 3, 20.25, 60.5]), rng.choice([-4, 11, 130]))
            fill, around = ((rng.randrange(256),) * 3, (9, 200, 77))
            ours, theirs = picture.copy(), picture.copy()
            glyphs.write(ours, xy, (path, size), word, fill, stroke, around)
            draw = ImageDraw.Draw(theirs)
            draw.fontmode = "L"
            draw.multiline_text(
                xy, word, fill, face(path, size), align="center", spacing=1, stroke_width=stroke,
                stroke_fill=around,
            )  # fmt: skip
            assert ours.tobytes() == theirs.tobytes(), (path.stem, size, word, xy)


@pytest.mark.parametrize("word", WORDS)
def test_the_extent_is_pillows(word: str) -> None:
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    for path in FONTS:
        for size in (4, 10, 19, 28, 41):
            for stroke in (0, 1, 2):
                theirs = draw.multiline_textbbox(
                    (0, 0), word, face(path, size), align="center", spacing=1, stroke_width=stroke
                )
                assert glyphs.extent((path, size), word, stroke) == theirs


def test_what_is_kept_is_not_changed_by_being_used() -> None:
    font = (FONTS[0], 24)
    first, second = Image.new("RGB", (90, 40)), Image.new("RGB", (90, 40))
    glyphs.write(first, (2, 2), font, "again", (255, 0, 0), 1, (0, 0, 255))
    glyphs.write(second, (2, 2), font, "again", (255, 0, 0), 1, (0, 0, 255))
    assert first.tobytes() == second.tobytes()
    assert first.getbbox() is not None
