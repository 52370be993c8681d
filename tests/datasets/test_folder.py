"""A folder of photographs is a dataset, or one message says why it is not."""

from __future__ import annotations

import os
import pickle

import pytest
from PIL import Image
from pydantic import ValidationError

from clipalign.datasets.base import Dataset
from clipalign.datasets.folder import Folder
from clipalign.errors import DataError


def put(root, *names, colour=(10, 200, 30)):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg", ".JPG"):
            Image.new("RGB", (8, 8), colour).save(path)
        else:
            path.write_text("text")
    return root


def test_each_sub_folder_is_a_class(tmp_path):
    put(tmp_path, "cat/2.png", "cat/1.JPG", "polar_bear/deep/down/1.png")
    folder = Folder(root=tmp_path)
    assert isinstance(folder, Dataset)
    assert folder.classnames == ("cat", "polar bear")
    assert folder.splits() == ("train",)
    examples = folder.examples("train")
    assert [(e.key, e.label) for e in examples] == [
        ("cat/1.JPG", "cat"),
        ("cat/2.png", "cat"),
        ("polar_bear/deep/down/1.png", "polar bear"),
    ]
    assert [e.group for e in examples] == [e.key for e in examples]
    assert folder.image(examples[1]).getpixel((0, 0)) == (10, 200, 30)


def test_one_name_in_two_spellings_of_unicode_is_one_class(tmp_path):
    put(tmp_path, "train/caf\u00e9/1.png", "test/cafe\u0301/1.png", "train/bar/1.png")
    assert Folder(root=tmp_path).classnames == ("bar", "caf\u00e9")


def test_folders_of_splits_are_recognised(tmp_path):
    put(tmp_path, "Test/cat/1.png", "Test/dog/1.png", "val/cat/1.png", "train/dog/1.png")
    put(tmp_path, "train/ant/1.png", "notes/readme.txt", ".cache/x/1.png")
    folder = Folder(root=tmp_path)
    assert folder.splits() == ("train", "validation", "test")
    assert folder.classnames == ("ant", "cat", "dog")
    assert [e.key for e in folder.examples("validation")] == ["val/cat/1.png"]
    with pytest.raises(DataError, match=r"no split 'tests'\. Did you mean 'test'"):
        folder.examples("tests")


def test_a_class_may_be_called_train(tmp_path):
    folder = Folder(root=put(tmp_path, "train/1.png", "bus/1.png"))
    assert folder.classnames == ("bus", "train")


def test_splits_beside_other_images_are_ambiguous(tmp_path):
    put(tmp_path, "train/cat/1.png", "train/dog/1.png", "extra/1.png")
    with pytest.raises(DataError, match=r"folders of splits \(train\) beside .*'extra'"):
        Folder(root=tmp_path)


def test_two_folders_for_one_split_are_ambiguous(tmp_path):
    put(tmp_path, "val/cat/1.png", "validation/dog/1.png")
    with pytest.raises(DataError, match="two folders for one split: val, validation"):
        Folder(root=tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["cat/1.png"], "one class only, 'cat'"),
        (["cat/1.png", "dog/notes.txt"], "no images of the classes 'dog'"),
        (["cat/notes.txt", "dog/notes.txt"], "There are no images"),
        (["1.png", "2.png"], "holds 2 images and no folders of classes"),
        ([], "There are no images"),
    ],
)
def test_what_is_no_dataset_says_why(tmp_path, files, message):
    put(tmp_path, *files)
    with pytest.raises(DataError, match=message):
        Folder(root=tmp_path)


@pytest.mark.parametrize("files", [["images/1.png", "images/2.png"], ["1.png"]])
def test_a_table_that_lies_beside_the_images_is_named(tmp_path, files):
    put(tmp_path, *files)
    (tmp_path / "index.csv").write_text("image,label\n")
    with pytest.raises(DataError, match=r"Or name the table that lies there, .*index\.csv\."):
        Folder(root=tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"There is no folder .*nowhere"):
        Folder(root=tmp_path / "nowhere")


def test_what_is_passed_over_is_counted(tmp_path):
    put(tmp_path, "cat/1.png", "dog/1.png", "dog/a.svg", "dog/Thumbs.db", "loose.png", "README.md")
    folder = Folder(root=tmp_path)
    assert folder.skipped("train") == [
        ("dog/a.svg", "its name is not that of an image file"),
        ("loose.png", "it lies in no folder of a class"),
    ]


def test_links_may_not_lead_out_of_the_root(tmp_path):
    root, outside = put(tmp_path / "root", "cat/1.png", "dog/1.png"), put(tmp_path / "out", "2.png")
    (root / "cat" / "again.png").symlink_to(root / "dog" / "1.png")
    (root / "cat" / "loop").symlink_to(root)
    folder = Folder(root=root)
    assert [e.key for e in folder.examples("train")][:2] == ["cat/1.png", "cat/again.png"]
    assert folder.skipped("train") == [("cat/loop", "it is a symbolic link to a folder")]
    (root / "dog" / "2.png").symlink_to(outside / "2.png")
    (root / "dog" / "device.png").symlink_to("/dev/zero")
    (root / "dog" / "round.png").symlink_to("round.png")
    folder = Folder(root=root)
    assert [e.key for e in folder.examples("train")][2:] == ["dog/1.png"]
    reasons = dict(folder.skipped("train"))
    assert "leads out of" in reasons["dog/2.png"]
    assert "leads out of" in reasons["dog/device.png"]
    assert "a link to nothing" in reasons["dog/round.png"]
    (root / "owl").symlink_to(outside)
    with pytest.raises(DataError, match="symbolic link that leads out of"):
        Folder(root=root)


def test_the_root_itself_may_be_a_link(tmp_path):
    root = put(tmp_path / "root", "cat/1.png", "dog/1.png")
    (tmp_path / "link").symlink_to(root)
    assert Folder(root=tmp_path / "link").classnames == ("cat", "dog")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "\u202eowl", "x" * 201])
def test_class_names_must_be_printable_and_short(tmp_path, name):
    put(tmp_path, f"{name}/1.png", "cat/1.png")
    with pytest.raises(DataError, match="label"):
        Folder(root=tmp_path)


def test_an_undecodable_file_name_has_a_printable_key(tmp_path):
    put(tmp_path, "cat/1.png", "dog/1.png")
    os.rename(tmp_path / "cat" / "1.png", os.fsencode(tmp_path / "cat") + b"/\xff.png")
    (example, _) = (folder := Folder(root=tmp_path)).examples("train")
    assert example.key == "cat/\\udcff.png"
    assert folder.image(example).size == (8, 8)


def test_the_fingerprint_covers_names_sizes_and_templates(tmp_path):
    put(tmp_path, "cat/1.png", "dog/1.png")
    before = Folder(root=tmp_path).fingerprint
    assert Folder(root=tmp_path).fingerprint == before
    assert Folder(root=tmp_path, templates=["a {}"]).fingerprint != before
    put(tmp_path, "dog/2.png")
    assert Folder(root=tmp_path).fingerprint != before
    (tmp_path / "dog" / "2.png").unlink()
    with (tmp_path / "dog" / "1.png").open("ab") as file:
        file.write(b"!")
    assert Folder(root=tmp_path).fingerprint != before


def test_an_edit_that_keeps_a_file_s_size_changes_the_cache_key_alone(tmp_path):
    put(tmp_path, "cat/1.png", "dog/1.png")
    before = Folder(root=tmp_path)
    assert Folder(root=tmp_path).cache_key == before.cache_key
    os.utime(tmp_path / "cat" / "1.png", ns=(1, 1))
    after = Folder(root=tmp_path)
    assert after.cache_key != before.cache_key
    assert after.fingerprint == before.fingerprint  # a copy is the same data


def test_options_are_checked(tmp_path):
    for templates in (["no place"], ["{} {}"], ["{} {name}"], []):
        with pytest.raises(ValidationError):
            Folder(root=tmp_path, templates=templates)
    put(tmp_path, "cat/1.png", "cat/2.jpg", "dog/1.png")
    folder = Folder(root=tmp_path, extensions=["PNG"])
    assert len(folder.examples("train")) == 2


def test_it_can_be_sent_to_a_worker(tmp_path):
    folder = Folder(root=put(tmp_path, "cat/1.png", "dog/1.png"))
    copy = pickle.loads(pickle.dumps(folder))
    assert copy.image(copy.examples("train")[0]).size == (8, 8)
    assert copy.fingerprint == folder.fingerprint
