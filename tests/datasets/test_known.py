"""Datasets known by name: tiny copies of every layout, read and checked."""

from __future__ import annotations

import importlib
import json
import os

import pytest
from PIL import Image

from clipalign.builtins import _KNOWN
from clipalign.datasets.known import dataset as known_dataset
from clipalign.datasets.known.check import check_dataset, download
from clipalign.datasets.known.dataset import class_name
from clipalign.datasets.known.description import catalogue
from clipalign.datasets.locate import load_dataset
from clipalign.errors import DataError, UsageError
from clipalign.evals.attacks import labelled
from clipalign.progress import Silent


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 20), (len(path.name) * 9 % 255, 80, 90)).save(path, "JPEG")


# Of each: its images, its lists, and what a split must come to: {split: {image: (label, columns)}}
LAYOUTS = {
    "oxford-pets": (
        ["images/Abyssinian_1.jpg", "images/great_pyrenees_2.jpg", "images/Abyssinian_3.jpg"],
        {
            "annotations/test.txt": "# list\nAbyssinian_1 1 1 1\ngreat_pyrenees_2 2 2 1\n",
            "annotations/trainval.txt": "Abyssinian_3 1 1 1\n",
        },
        {
            "test": {
                "images/Abyssinian_1.jpg": ("Abyssinian", {}),
                "images/great_pyrenees_2.jpg": ("great pyrenees", {}),
            },
            "train": {"images/Abyssinian_3.jpg": ("Abyssinian", {})},
        },
    ),
    "fgvc-aircraft": (
        ["fgvc-aircraft-2013b/data/images/0001.jpg"],
        {"fgvc-aircraft-2013b/data/images_variant_test.txt": "0001 Boeing 707-320\n"},
        {"test": {"data/images/0001.jpg": ("Boeing 707-320", {})}},
    ),
    "dtd": (
        ["dtd/dtd/images/banded/banded_0002.jpg"],
        {"dtd/dtd/labels/test1.txt": "banded/banded_0002.jpg\n"},
        {"test": {"images/banded/banded_0002.jpg": ("banded", {})}},
    ),
    "food101": (
        ["food-101/images/apple_pie/101.jpg"],
        {"food-101/meta/test.txt": "apple_pie/101\n"},
        {"test": {"images/apple_pie/101.jpg": ("apple pie", {})}},
    ),
    "imagenet": (
        ["val/n01440764/a.JPEG", "val/n99999999/b.JPEG"],
        {},
        {"test": {"val/n01440764/a.JPEG": ("tench", {})}},
    ),
    "imagenet-100": (
        ["val.X/n01440764/a.JPEG", "train.X2/n01443537/b.JPEG"],
        {},
        {
            "test": {"val.X/n01440764/a.JPEG": ("tench", {})},
            "train": {"train.X2/n01443537/b.JPEG": ("goldfish", {})},
        },
    ),
    "rta-100": (
        ["label=dog_text=ice cream.png", "more/label=cat_text=iPod_2.jpg"],
        {},
        {
            "test": {
                "label=dog_text=ice cream.png": ("dog", {"attack_text": "ice cream"}),
                "more/label=cat_text=iPod_2.jpg": ("cat", {"attack_text": "iPod"}),
            }
        },
    ),
    "paint": (
        ["typographic_attacks/label=apple_text=ipod.jpg"],
        {},
        {"test": {"label=apple_text=ipod.jpg": ("apple", {"attack_text": "ipod"})}},
    ),
    "disentangling": (
        ["typographic_attack_dataset/images/1.jpg", "typographic_attack_dataset/images/2.jpg"],
        {
            "typographic_attack_dataset/annotations.json": json.dumps(
                {
                    "1.jpg": {"true object": "a cup", "typographic attack label": "a dog"},
                    "2.jpg": {"true object": "a cup", "typographic attack label": None},
                    "3.jpg": "what",
                }
            )
        },
        {
            "test": {
                "images/1.jpg": ("a cup", {"attack_text": "a dog"}),
                "images/2.jpg": ("a cup", {"attack_text": ""}),
            }
        },
    ),
    "fairface": (
        ["val/1.jpg", "train/1.jpg"],
        {
            "fairface_label_val.csv": "file,age,gender,race,x\nval/1.jpg,20-29,Female,Black,True\n",
            "fairface_label_train.csv": "file,age,gender,race,x\ntrain/1.jpg,3-9,Male,White,True\n",
        },
        {
            "test": {
                "val/1.jpg": (None, {"gender": "woman", "age": "20-29", "race": "Black"})
            },
            "train": {"train/1.jpg": (None, {"gender": "man", "age": "3-9", "race": "White"})},
        },
    ),
    "visogender": (
        ["images/OO_1.jpg"],
        {
            "OO_Visogender_01012023.tsv": "IDX\tOccupation\n",
            "OO_Visogender_02102023.tsv": "IDX\tOccupation\tOccupation_perceived_gender\n"
            "OO_1\tteacher\tmasculine\nOO_2\tlawyer\tfeminine\n",
        },
        {"test": {"images/OO_1.jpg": (None, {"gender": "man", "activity": "teacher"})}},
    ),
}  # fmt: skip


def lay_out(root, name):
    images, lists, _ = LAYOUTS[name]
    for image in images:
        picture(root / image)
    for file, text in lists.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text, encoding="utf-8")
    return load_dataset(f"{name}:{root}", {})


def read(data, split):
    return {e.key: (e.label, dict(e.attributes)) for e in data.examples(split)}


def test_the_catalogue_is_what_is_registered():
    assert list(catalogue()) == list(_KNOWN)
    for entry in catalogue().values():
        assert any(split.startswith("test") for split in entry.split_names), entry.name
        assert entry.licence
        assert entry.source


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_tiny_copy_reads_as_it_should(name, tmp_path):
    data = lay_out(tmp_path, name)
    expected = LAYOUTS[name][2]
    assert list(data.splits()) == sorted(expected, reverse=True)
    for split, images in expected.items():
        assert read(data, split) == images
        assert all(data.image(e).size == (24, 20) for e in data.examples(split))
    assert data.name == name
    assert data.templates == catalogue()[name].templates


def test_what_a_list_names_and_is_not_there_is_counted(tmp_path):
    assert lay_out(tmp_path / "v", "visogender").skipped("test") == [
        ("images/OO_2.jpg", "the file is not there")
    ]
    assert lay_out(tmp_path / "d", "disentangling").skipped("test") == [
        ("3.jpg", "it does not say what such rows say")
    ]
    assert lay_out(tmp_path / "i", "imagenet").skipped("test")[0][0] == "val/n99999999/b.JPEG"
    food = tmp_path / "f"
    lay_out(food, "food101")
    (food / "food-101/meta/test.txt").write_text("../../../etc/1\napple_pie/101\n")
    data = load_dataset(f"food101:{food}", {})
    assert [reason for _, reason in data.skipped("test")] == ["it does not say what such rows say"]


@pytest.mark.parametrize(
    ("name", "files", "labels"),
    [
        (
            "caltech101",
            ["101_ObjectCategories/{c}/image_{i:04}.jpg", ("airplanes", "crab")],
            {"airplane", "crab"},
        ),
        ("sun397", ["a/{c}/sun_a{i}.jpg", ("abbey", "apartment_building/outdoor")],
         {"abbey", "apartment building outdoor"}),
        ("eurosat", ["2750/{c}/{c}_{i}.jpg", ("AnnualCrop", "SeaLake")],
         {"annual crop land", "lake or sea"}),
        ("utkface", ["part1/{i}_{c}_0_2017{i}.jpg.chip.jpg", ("0", "1")], None),
    ],
)  # fmt: skip
def test_without_a_test_split_of_the_authors_one_is_fixed(name, files, labels, tmp_path):
    form, classes = files
    for c in classes:
        for i in range(1, 41):
            picture(tmp_path / form.format(c=c, i=i))
    picture(tmp_path / "101_ObjectCategories" / "BACKGROUND_Google" / "image_0001.jpg")
    data = load_dataset(f"{name}:{tmp_path}", {})
    splits = {split: {e.key for e in data.examples(split)} for split in data.splits()}
    assert sum(map(len, splits.values())) == len(set.union(*splits.values())) == 80
    share = len(splits["test"]) / 80
    assert 0.15 < share < 0.45
    assert splits == {
        s: {e.key for e in load_dataset(f"{name}:{tmp_path}", {}).examples(s)} for s in splits
    }
    if labels:
        assert set(data.classnames) == labels
    else:
        assert {e.attributes["gender"] for e in data.examples("test")} == {"man", "woman"}


def test_the_fixed_splits_are_for_ever():
    """Images keep their splits in every later version: a training image is never scored."""
    share = catalogue()["caltech101"].share
    names = [f"101_ObjectCategories/crab/image_{i:04}.jpg" for i in range(1, 9)]
    splits = [known_dataset._share_of(name, share) for name in names]
    assert " ".join(splits) == "train train train train test validation validation train"


def test_matlab_files_are_read(tmp_path):
    scipy = pytest.importorskip("scipy.io")
    numpy = pytest.importorskip("numpy")
    cars, flowers = tmp_path / "cars", tmp_path / "flowers"
    picture(cars / "cars_test" / "00001.jpg")
    (cars / "devkit").mkdir()
    names = numpy.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    scipy.savemat(cars / "devkit" / "cars_meta.mat", {"class_names": names})
    kinds = [("class", "O"), ("fname", "O")]
    rows = numpy.array([(2, "00001.jpg"), (1, "00002.jpg")], dtype=kinds)
    scipy.savemat(cars / "cars_test_annos_withlabels.mat", {"annotations": rows})
    data = load_dataset(f"stanford-cars:{cars}", {})
    assert read(data, "test") == {"cars_test/00001.jpg": ("Acura RL Sedan 2012", {})}
    assert data.skipped("test") == [("cars_test/00002.jpg", "the file is not there")]

    for i in (1, 2, 3):
        picture(flowers / "jpg" / f"image_{i:05}.jpg")
    scipy.savemat(flowers / "imagelabels.mat", {"labels": numpy.array([[1, 2, 60]])})
    ids = {name: numpy.array([[i, i]]) for i, name in enumerate(("trnid", "valid", "tstid"), 1)}
    scipy.savemat(flowers / "setid.mat", ids)
    if not hasattr(importlib.import_module("torchvision.datasets").Flowers102, "classes"):
        with pytest.raises(DataError, match=r"need torchvision 0\.22"):
            load_dataset(f"flowers102:{flowers}", {})
        return
    data = load_dataset(f"flowers102:{flowers}", {})
    assert data.splits() == ["train", "validation", "test"]
    assert data.examples("test")[0].label == "pink-yellow dahlia"
    assert data.examples("validation")[0].label == "hard-leaved pocket orchid"


def test_scam_is_read_from_a_copy_of_the_hub(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    rows = {
        "image": [Image.new("RGB", (24, 20))] * 3,
        "object_label": ["cup"] * 3,
        "attack_word": ["dog"] * 3,
        "type": ["SCAM", "NoSCAM", "SynthSCAM"],
    }
    features = datasets.Features(
        {"image": datasets.Image()}
        | {name: datasets.Value("string") for name in ("object_label", "attack_word", "type")}
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "scam")
    data = load_dataset(f"scam:{tmp_path / 'scam'}", {})
    assert data.splits() == ["test", "test-clean", "test-synthetic"]
    assert [(e.label, e.attributes) for e in data.examples("test")] == [
        ("cup", {"attack_text": "dog"})
    ]
    assert data.examples("test-clean")[0].attributes == {}
    assert data.image(data.examples("test-synthetic")[0]).size == (24, 20)
    rows["image"] = [Image.new("RGB", (24, 20), "red")] * 3
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "other")
    other = load_dataset(f"scam:{tmp_path / 'other'}", {})
    assert other.fingerprint != data.fingerprint, "other images are other data"


def test_a_table_that_you_write_serves_vl_bias(tmp_path):
    lines = ["image,gender,activity"]
    for i in range(40):
        picture(tmp_path / f"{i}.jpg")
        lines.append(f"{i}.jpg,{('woman', 'man')[i % 2]},cooking")
    (tmp_path / "index.csv").write_text("\n".join(lines))
    data = load_dataset(f"vl-bias:{tmp_path}", {})
    assert sum(len(data.examples(split)) for split in data.splits()) == 40
    assert data.examples("test")[0].attributes["activity"] == "cooking"
    (tmp_path / "index.csv").write_text("image,sex\n0.jpg,woman\n")
    with pytest.raises(DataError, match="it has no column gender, activity"):
        load_dataset(f"vl-bias:{tmp_path}", {}).examples("test")


def test_what_is_not_the_dataset_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"There is no folder .*expected annotations/trainval\.txt"):
        load_dataset(f"oxford-pets:{tmp_path / 'x'}", {})
    with pytest.raises(DataError, match=r"is not Food-101.*datasets show food101"):
        load_dataset(f"food101:{tmp_path}", {})
    with pytest.raises(UsageError, match="as food101:PATH"):
        load_dataset("food101", {})
    data = lay_out(tmp_path, "dtd")
    with pytest.raises(DataError, match="no split 'train'"):
        data.examples("train")
    (tmp_path / "dtd/dtd/labels/test1.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"test1\.txt cannot be read as the list"):
        load_dataset(f"dtd:{tmp_path}", {}).examples("test")


def test_a_place_without_an_image_of_it_names_what_says_the_layout(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "apple.png")
    with pytest.raises(DataError, match=r"no image in .*paint\. `clipalign datasets show paint`"):
        labelled(load_dataset(f"paint:{tmp_path}", {}), "test")


def test_the_fingerprint_covers_images_and_labels(tmp_path):
    first = lay_out(tmp_path / "a", "rta-100").fingerprint
    assert lay_out(tmp_path / "b", "rta-100").fingerprint == first
    folder = f"rta-100:{tmp_path / 'b'}"
    before = load_dataset(folder, {}).cache_key
    os.utime(next((tmp_path / "b").rglob("*.png")), ns=(1, 1))  # an edit may keep the size
    assert load_dataset(folder, {}).fingerprint == first
    assert load_dataset(folder, {}).cache_key != before
    picture(tmp_path / "b" / "label=cow_text=tea.png")
    assert lay_out(tmp_path / "b", "rta-100").fingerprint != first


def test_a_check_counts_and_names_what_is_wrong(tmp_path):
    data = lay_out(tmp_path, "oxford-pets")
    (tmp_path / "images/great_pyrenees_2.jpg").write_bytes(b"broken")
    checked = check_dataset(data, Silent())
    assert not checked.sound
    test = checked.splits["test"]
    assert (test.images, test.classes, test.unusable, test.expected) == (2, 2, 1, 3669)
    assert test.problems[0].startswith("images/great_pyrenees_2.jpg: not an image")
    assert "test: 2 images, and a whole copy has 3,669" in checked.differences
    assert "2 classes, and a whole copy has 37" in checked.differences
    assert check_dataset(data, Silent(), decode=False).splits["test"].unusable == 0


def test_nothing_is_downloaded_unasked_and_it_is_said_before(tmp_path, monkeypatch, notes):
    asked = []

    def pets(root, download):
        assert "CC BY-SA 4.0" in notes.lines[0]
        asked.append((root, download))
        raise RuntimeError("no route to host")

    monkeypatch.setattr("torchvision.datasets.OxfordIIITPet", pets)
    with pytest.raises(DataError, match=r"could not be downloaded: no route.*by hand"):
        download(catalogue()["oxford-pets"], tmp_path / "pets", notes)
    assert asked == [(str(tmp_path / "pets"), True)]
    with pytest.raises(DataError, match=r"ImageNet .* cannot be downloaded by clipalign"):
        download(catalogue()["imagenet"], tmp_path, notes)


def test_names_are_words():
    assert class_name("apartment_building/outdoor ") == "apartment building outdoor"
