"""Images in memory: in whatever form a notebook has them, or refused in words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from clipalign.datasets.memory import ImageList
from clipalign.errors import DataError

NAN = float("nan")


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 12, 10, 3), dtype=np.uint8)


def test_arrays_and_paths_are_the_images_that_they_hold(pixels, tmp_path, monkeypatch):
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    data = ImageList([pixels[0], "a.png", pixels[0][:, :, 0], Image.fromarray(pixels[0])])
    monkeypatch.chdir("/")
    array, file, grey, image = map(data.image, data.examples("train"))
    assert array.tobytes() == file.tobytes() == image.tobytes() == pixels[0].tobytes()
    assert (grey.mode, grey.size) == ("RGB", (10, 12))
    assert len(ImageList(pixels).examples("train")) == 3
    assert len(ImageList(Image.fromarray(pixels[0]), ["a"]).examples("train")) == 1


def test_the_fingerprint_is_of_what_a_file_holds(pixels, tmp_path):
    path = tmp_path / "a.png"
    prints = []
    for image in pixels[:2]:
        Image.fromarray(image).save(path)
        prints.append(ImageList([path]).fingerprint)
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(3, 8, 8), r"Image 1 of the list is a Tensor: .*permute\(1, 2, 0\)\.numpy"),
        (np.zeros((8, 8, 3)), r"is an array float64 \[8, 8, 3\]: .*uint8 array \[H, W, 3\]"),
        (np.zeros((3, 8, 8), np.uint8), r"is an array uint8 \[3, 8, 8\]"),
        (None, "is a NoneType"),
        ("gone.png", "there is no file .*gone.png"),
    ],
)
def test_what_is_no_image_is_refused_with_its_place(pixels, image, words):
    with pytest.raises(DataError, match=words):
        ImageList([pixels[0], image])


def test_labels_are_as_those_of_a_table(pixels):
    assert ImageList(pixels, ["x\n", "x", "a\u00a0 b"]).classnames == ("a b", "x")
    with pytest.raises(DataError, match=r"labels: image 1: the label is empty; image 2: .*printed"):
        ImageList(pixels, ["x", "  ", "\u200b"])


def test_columns_may_be_arrays_or_of_pandas(pixels):
    pandas = pytest.importorskip("pandas")
    for kind in (np.array, lambda v: pandas.Series(v, index=[7, 8, 9])):
        data = ImageList(
            pixels, kind(["b", "a", "b"]), groups=kind(["g", None, "g"]),
            columns={"gender": kind(["woman", None, NAN])}, split=kind(["train", "val", "train"]),
        )  # fmt: skip
        first, last = data.examples("train")
        (middle,) = data.examples("validation")
        assert [e.label for e in (first, middle, last)] == ["b", "a", "b"]
        assert [e.group for e in (first, middle, last)] == ["g", "", "g"]
        assert [e.attributes["gender"] for e in (first, middle, last)] == ["woman", "", ""]
        assert data.classnames == ("a", "b")
    frame = pandas.DataFrame({"chosen": ["a", "b", "c"]}, index=[7, 8, 9])
    (first, *_) = ImageList(pixels, columns=frame).examples("train")
    assert first.attributes == {"chosen": "a"}


@pytest.mark.parametrize("gone", [None, NAN, np.float32(NAN)])
def test_a_missing_label_is_no_class(pixels, gone):
    with pytest.raises(DataError, match=r"labels has no value for the images 0, 2 \(None or NaN"):
        ImageList(pixels, [gone, "a", gone])


@pytest.mark.parametrize("column", ["abc", 5, None])
def test_what_is_no_column_is_refused(pixels, column):
    with pytest.raises(DataError, match="chosen must be a list of 3"):
        ImageList(pixels, columns={"chosen": column})


def test_a_slip_in_a_split_or_a_template_is_refused_at_once(pixels):
    with pytest.raises(DataError, match=r"'tst' is nearly .* Did you mean 'test'"):
        ImageList(pixels, split="tst")
    assert ImageList(pixels, split="test-at-night").splits() == ("test-at-night",)
    assert ImageList(pixels, templates="a {}.").templates == ("a {}.",)
    for wrong in ("a photo.", ["a {}.", "a {name}."], [3], []):
        with pytest.raises(DataError, match="templates: "):
            ImageList(pixels, templates=wrong)
