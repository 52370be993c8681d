from __future__ import annotations

import itertools

import pytest
import torch
from PIL import Image

from clipalign.errors import ModelError
from clipalign.models.preprocess import Preprocess

CASES = list(
    itertools.product(
        ("shortest", "longest", "squash"), ("bicubic", "bilinear"), (32, (32, 32), (24, 40))
    )
)


@pytest.mark.parametrize(("mode", "interpolation", "size"), CASES)
def test_stored_pixels_normalised_are_what_open_clip_gives(photo, mode, interpolation, size):
    preprocess = Preprocess(
        {
            "size": size,
            "mean": (0.48, 0.45, 0.4),
            "std": (0.26, 0.27, 0.28),
            "interpolation": interpolation,
            "resize_mode": mode,
            "fill_color": 7,
        }
    )
    stored = preprocess.resize_to_uint8(photo)
    assert stored.dtype == torch.uint8
    assert stored.is_contiguous()
    torch.testing.assert_close(
        preprocess.normalise(stored[None])[0], preprocess(photo), rtol=0, atol=0
    )


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_other_modes_become_rgb_as_open_clip_does_it(photo, mode):
    preprocess = Preprocess({"size": 32})
    image = photo.convert(mode)
    torch.testing.assert_close(
        preprocess.normalise(preprocess.resize_to_uint8(image)), preprocess(image), rtol=0, atol=0
    )


def test_normalising_leaves_the_stored_pixels_alone(photo):
    preprocess = Preprocess({"size": 16, "mean": (0, 0, 0), "std": (1, 1, 1)})
    stored = preprocess.resize_to_uint8(Image.new("RGB", (16, 16), (255, 0, 51)))
    normal = preprocess.normalise(stored)
    assert normal.amax((1, 2)).tolist() == pytest.approx([1.0, 0.0, 0.2])
    assert stored[0].max() == 255


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize_mode": "stretch"},
        {"colour": 1},
        {"std": (0.2, 0.2, 0.0)},
        {"std": (0.2, 0.2, float("nan"))},
        {"mean": (0.5, float("-inf"), 0.5)},
    ],
)
def test_a_wrong_configuration_is_a_model_error(wrong):
    with pytest.raises(ModelError, match="preprocess_cfg"):
        Preprocess({"size": 32, **wrong})
