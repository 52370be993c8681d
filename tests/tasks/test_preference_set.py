"""A preference set is opened whole and unharmed, or one message names the file that is not."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from PIL import Image

from clipalign.errors import DataError
from clipalign.files import sha256_file
from clipalign.tasks.manifest import Manifest
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.tasks.prepare import prepare


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small set of the embedded world."""
    folder = tmp_path_factory.mktemp("set") / "prefs"
    prepare("typographic", "emoji", folder, limit=4, dataset_options={"train_views": 1})
    return folder


@pytest.fixture
def copy(made, tmp_path):
    """One that a test may harm."""
    return shutil.copytree(made, tmp_path / "prefs")


def rewrite(folder, split="train", **change):
    """Change the first row, and make every hash agree, as someone who means harm would."""
    path = folder / split / "metadata.jsonl"
    first, *others = path.read_text().splitlines()
    row = {**json.loads(first), **change}
    path.write_text("\n".join([json.dumps(row), *others]) + "\n")
    tree = yaml.safe_load((folder / "manifest.yaml").read_text())
    tree["files"][f"{split}/metadata.jsonl"] = sha256_file(path)
    (folder / "manifest.yaml").write_text(Manifest.model_validate(tree).sealed().dump())


def test_what_was_prepared_is_what_is_opened(made):
    preferences = PreferenceSet.open(made)
    assert preferences.splits == ("train", "validation")
    assert len(preferences.candidates) == 300
    assert preferences.regulariser_candidates is None
    assert preferences.manifest.counts["train"].rows == len(preferences.rows("train")) == 4
    for row in preferences.rows("train"):
        assert row.chosen in preferences.candidates
        assert row.rejected in preferences.candidates
        assert row.chosen == f"a photo of a {row.label}."
        assert row.rejected == f"a photo of a {row.columns['attack_text']}."
        attacked = preferences.read_image(row.image)
        clean = preferences.read_image(row.clean_image)
        assert (attacked.size, attacked.mode) == ((64, 64), "RGB")
        assert attacked.tobytes() != clean.tobytes()
        assert row.key.startswith(row.group)


def test_rows_that_were_just_written_are_read_when_they_are_asked_for(tmp_path):
    """Ten million of them are not held by who only prepares them; what is read is checked."""
    options = {"limit": 3, "dataset_options": {"train_views": 1}}
    preferences = prepare("typographic", "emoji", tmp_path / "prefs", **options)
    table = preferences.root / "train" / "metadata.jsonl"
    table.write_text(table.read_text().replace("a photo", "no photo"))
    assert (len(preferences), preferences.splits) == (6, ("train", "validation"))
    assert len(preferences.rows("validation")) == 3
    with pytest.raises(DataError, match=r"train/metadata\.jsonl was changed after it was written"):
        preferences.rows("train")


def test_a_set_may_be_moved(made, copy):
    assert PreferenceSet.open(copy).content_sha256 == PreferenceSet.open(made).content_sha256


def test_an_unknown_split_names_those_there_are(made):
    with pytest.raises(DataError, match="no split 'test'; it has train, validation"):
        PreferenceSet.open(made).rows("test")


def test_a_folder_without_manifest_is_none(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"is not a preference set: (it has no|there is no)"):
            PreferenceSet.open(path)


def flip(path, where=0.5):
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("where", [i / 23 for i in range(23)])
def test_a_flipped_bit_in_the_manifest_is_noticed(copy, where):
    before = yaml.safe_load((copy / "manifest.yaml").read_text())
    flip(copy / "manifest.yaml", where)
    try:
        same = yaml.safe_load((copy / "manifest.yaml").read_text()) == before
    except (yaml.YAMLError, ValueError):
        same = False
    if same:  # a bit of the layout alone
        assert PreferenceSet.open(copy).manifest
    else:
        with pytest.raises(DataError, match=r"manifest\.yaml|metadata\.jsonl"):
            PreferenceSet.open(copy)


def test_a_flipped_bit_in_a_table_is_noticed(copy):
    flip(copy / "validation" / "metadata.jsonl")
    with pytest.raises(DataError, match=r"validation.metadata\.jsonl was changed after"):
        PreferenceSet.open(copy)


def test_a_flipped_bit_in_an_image_is_noticed_when_it_is_read(copy):
    preferences = PreferenceSet.open(copy)
    good, bad = preferences.rows("train")[:2]
    flip(bad.image)
    preferences.read_image(good.image)
    with pytest.raises(DataError, match=r"000001-0\.png is not the image that was written"):
        preferences.read_image(bad.image)


def test_a_lost_image_is_named(copy):
    preferences = PreferenceSet.open(copy)
    lost = preferences.rows("train")[2].clean_image
    lost.unlink()
    with pytest.raises(DataError, match=r"000002-0\.png is gone"):
        preferences.read_image(lost)
    with pytest.raises(DataError, match=r"row 3: there is no file 'clean/000002-0\.png'"):
        PreferenceSet.open(copy)


def test_only_images_of_the_set_are_read(copy, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="is not an image of the preference set"):
        PreferenceSet.open(copy).read_image(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"file_name": "../../secret.png"}, "lies outside of the set"),
        ({"file_name": "/etc/passwd"}, "lies outside of the set"),
        ({"file_name": "images/none.png"}, "there is no file"),
        ({"file_name": None}, "no file name"),
        ({"sha256": None}, "no file name, or no hash"),
        ({"chosen": "a photo of a dragon."}, "is not among the candidates"),
        ({"rejected": 7}, "is not among the candidates"),
    ],
)
def test_rows_that_lie_are_refused_even_with_right_hashes(copy, change, problem):
    rewrite(copy, **change)
    with pytest.raises(DataError, match=f"row 1: .*{problem}"):
        PreferenceSet.open(copy)


def test_links_in_the_set_are_refused(copy, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (4, 4)).save(outside / "x.png")
    (copy / "train" / "images" / "link.png").symlink_to(outside / "x.png")
    (copy / "train" / "more").symlink_to(outside)
    rewrite(copy, file_name="images/link.png")
    with pytest.raises(DataError, match=r"there is no file 'images/link\.png'"):
        PreferenceSet.open(copy)
    rewrite(copy, file_name="more/x.png")
    with pytest.raises(DataError, match=r"'more/x\.png' lies outside of the set"):
        PreferenceSet.open(copy)


def test_a_row_with_neither_text_is_for_the_regulariser(copy):
    rewrite(copy, chosen=None, rejected=None, clean_file_name=None)
    row = PreferenceSet.open(copy).rows("train")[0]
    assert (row.chosen, row.rejected, row.clean_image) == (None, None, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 2}, "schema version 2, and this clipalign reads 1"),
        ({"schema_version": None}, "schema version None"),
        ({"colour": "red"}, "colour: unknown key"),
        ({"candidates": ["one"]}, "candidates"),
        ({"counts": {"../../etc": {"images": 1, "rows": 1, "quarantined": 0}}}, "counts"),
        ({"seed": "0"}, "seed"),
    ],
)
def test_manifests_of_other_shapes_are_refused(copy, change, words):
    path = copy / "manifest.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    with pytest.raises(DataError, match=words):
        PreferenceSet.open(copy)


@pytest.mark.parametrize(
    "text", ["", "- a", "a: [", "a: &x 1\nb: *x", "!!python/object:os.system {}", "\xff\xfe", "{}"]
)
def test_what_is_no_manifest_says_so(copy, text):
    (copy / "manifest.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"manifest\.yaml is not the manifest"):
        PreferenceSet.open(copy)


@pytest.mark.parametrize("splits", [["train", "validation"], ["train"], ["test"]])
def test_hugging_face_datasets_opens_it(tmp_path, splits):
    datasets = pytest.importorskip("datasets", minversion="3.4")
    folder = tmp_path / "out"
    made = prepare("typographic", "emoji", folder, limit=5, splits=splits)
    # the preview and the manifest at the top must not be taken for data
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "hf")
    )
    assert set(loaded) == set(splits)
    for split in splits:
        rows = made.rows(split)
        assert loaded[split].num_rows == len(rows)
        for theirs, ours in zip(loaded[split], rows, strict=True):
            assert theirs["image"].tobytes() == made.read_image(ours.image).tobytes()
            assert theirs["clean"].tobytes() == made.read_image(ours.clean_image).tobytes()
            assert (theirs["chosen"], theirs["rejected"]) == (ours.chosen, ours.rejected)
