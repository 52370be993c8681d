"""A check of a dataset names the pictures that two of its splits share."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clipalign.cli.app import run
from clipalign.datasets.folder import Folder
from clipalign.datasets.known.check import check_dataset
from clipalign.progress import Silent


def picture(number, size=(30, 20)):
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def photos(tmp_path):
    """Splits of 4, 2 and 8 pictures, all different."""
    root = tmp_path / "photos"
    for split, numbers in {"train": range(4), "validation": (4, 5), "test": range(6, 14)}.items():
        for number in numbers:
            path = root / split / ("cat" if number % 2 else "dog") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(path)
    return root


def test_splits_that_share_nothing_are_not_spoken_of(photos, capsys):
    for name in ("a", "b"):  # within a split it is no leak
        picture(99).save(photos / "train/cat" / f"{name}.png")
    picture(0, size=(20, 30)).save(photos / "test/dog/turned.png")  # other pixels, as many
    checked = check_dataset(Folder(root=photos), Silent())
    assert checked.sound
    assert checked.shared == []
    assert run(["datasets", "check", str(photos)]) == 0
    assert "Warning" not in capsys.readouterr().out


def test_pictures_of_two_splits_are_counted_and_the_first_are_named(photos, capsys):
    for number in range(4):  # under other names, in another format, in another class
        picture(number).save(photos / "test/cat" / f"copy-{number}.bmp")
    for n in range(3):  # and one of them three times more
        picture(1).save(photos / "test/dog" / f"again-{n}.png")
    picture(5).save(photos / "train/dog/leaked.png")
    (photos / "train/cat/broken.png").write_bytes(b"none")
    (photos / "test/cat/broken.png").write_bytes(b"none")
    [train_test, train_validation] = sorted(
        check_dataset(Folder(root=photos), Silent(), workers=1).shared, key=lambda s: -s.images
    )
    assert (train_test.splits, train_test.images) == (("train", "test"), 7)
    assert train_test.examples == [
        ("train/dog/0.png", "test/cat/copy-0.bmp"),
        ("train/cat/1.png", "test/cat/copy-1.bmp"),
        ("train/dog/2.png", "test/cat/copy-2.bmp"),
        ("train/cat/3.png", "test/cat/copy-3.bmp"),
        ("train/cat/1.png", "test/dog/again-0.png"),
    ]
    assert set(train_validation.splits) == {"train", "validation"}
    (photos / "train/cat/broken.png").unlink()
    (photos / "test/cat/broken.png").unlink()
    assert run(["datasets", "check", str(photos)]) == 0  # a warning: it may be meant
    words = " ".join(capsys.readouterr().out.split())
    assert "images of test that are in train too, pixel for pixel: 7 (test/cat/copy-0" in words
    assert "and 2 more)." in words


def test_names_alone_say_nothing_of_pixels(photos):
    picture(0).save(photos / "test/dog/0.png")
    assert check_dataset(Folder(root=photos), Silent(), decode=False).shared == []
