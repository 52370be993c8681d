"""Whatever mode a dataset gives images in, every command reads the same RGB, or says why not."""

from __future__ import annotations

import pytest
from PIL import Image

import clipalign
from clipalign.datasets.base import rgb_image
from clipalign.errors import DataError, PluginError

ORANGE = (250, 120, 10)
pytestmark = pytest.mark.usefixtures("own_cache")


class Drawings(clipalign.ImageList):
    """A package's dataset, which gives its images as it has them."""

    def image(self, example):
        return self._images[example.source]


def drawings(images):
    labels = [["disc", "square"][i % 2] for i in range(len(images))]
    return Drawings(images, labels, name="drawings", split="train")


def clear(colour=ORANGE, *, mode="RGBA"):
    """A square of a colour on clear ground, beneath which other colours lie."""
    image = Image.new("RGBA", (48, 48), (0, 0, 255, 0))
    image.paste((*colour, 255), (12, 12, 36, 36))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "PA", "P", "L", "1", "CMYK", "I;16", "F"])
def test_every_mode_becomes_rgb(mode):
    data = drawings([clear().convert("L").convert(mode) if mode == "I;16" else clear(mode=mode)])
    image = rgb_image(data, data.examples("train")[0])
    assert (image.mode, image.size) == ("RGB", (48, 48))


def test_what_is_clear_is_white_and_what_is_rgb_stays():
    plain = Image.new("RGB", (8, 8), ORANGE)
    data = drawings([clear(), plain])
    first, second = data.examples("train")
    image = rgb_image(data, first)
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((20, 20)) == ORANGE
    assert rgb_image(data, second) is plain


def test_an_image_that_its_package_turned_is_not_turned_again():
    exif = Image.Exif()
    exif[0x0112] = 6  # left behind where the pixels have been turned
    image = Image.new("RGBA", (8, 4))
    image.info["exif"] = exif.tobytes()
    data = drawings([image])
    assert rgb_image(data, data.examples("train")[0]).size == (8, 4)


def test_a_file_that_is_opened_and_cut_short_is_a_data_error(tmp_path):
    whole = tmp_path / "whole.png"
    Image.effect_noise((64, 64), 50).convert("RGB").save(whole)
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:2000])
    data = Drawings([clear()], ["disc"])
    data._images = (Image.open(cut),)
    with pytest.raises(DataError, match=r"000000: .*truncated"):
        rgb_image(data, data.examples("train")[0])


def test_what_is_no_image_is_the_package_s_fault():
    data = drawings([clear()])
    data._images = ("disc.png",)
    with pytest.raises(PluginError, match=r"dataset 'drawings' of .* gives 'disc.png' where"):
        rgb_image(data, data.examples("train")[0])


def test_prepare_and_eval_read_clear_images_as_those_on_white(tmp_path):
    colours = [(200, 20, 20), (20, 180, 20), (20, 20, 200), (120, 120, 120)]
    given = drawings([clear(colour) for colour in colours])
    white = [rgb_image(given, e) for e in given.examples("train")]
    results = [
        clipalign.evaluate(
            dataset=data, suite_options={"typographic": {"resamples": 100}}, splits=["train"]
        )[0]
        for data in (given, drawings(white))
    ]
    assert results[0].metrics == results[1].metrics
    sets = [
        clipalign.prepare("typographic", data, tmp_path / name)
        for name, data in (("given", given), ("white", drawings(white)))
    ]
    rows = [[(r.image.read_bytes(), r.rejected) for r in made.rows("train")] for made in sets]
    assert rows[0] == rows[1]
    assert len(rows[0]) == len(colours)
