"""A preference set made in parts: the union is the set of one process, to the byte."""

from __future__ import annotations

import random
import shutil
import threading
from pathlib import Path

import pytest
from PIL import Image

from clipalign import prepare, prepare_part
from clipalign.errors import DataError, RunError, UsageError
from clipalign.files import sha256_file
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.tasks.shards import Shard, Shards, parse_shard, shard_of_environment

PARTS = 3


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven pictures in two splits; two of them are damaged."""
    root = tmp_path_factory.mktemp("pictures")
    rng = random.Random(0)
    for split, count in (("train", 7), ("val", 4)):
        for i in range(count):
            folder = root / split / ("apple" if i % 2 else "pear")
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), tuple(rng.choices(range(256), k=3))).save(
                folder / f"{i}.png"
            )
    for broken in ("train/apple/5.png", "val/pear/0.png"):
        (root / broken).write_bytes(b"no picture")
    return root


def files(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): sha256_file(p) for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare("typographic", pictures, tmp_path_factory.mktemp("whole") / "prefs").root


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_the_parts_in_any_order_are_the_set_of_one_process(pictures, whole, tmp_path, order):
    output = tmp_path / "prefs"
    left = [prepare_part(f"{i}/{PARTS}", "typographic", pictures, output) for i in order]
    assert [len(missing) for missing in left] == [2, 1, 0]
    assert files(output) == files(whole)
    assert [p.name for p in tmp_path.iterdir()] == ["prefs"], "nothing is left behind"
    assert PreferenceSet.open(output).quarantined() == PreferenceSet.open(whole).quarantined()


def test_nothing_stands_before_the_last_part_is_there(pictures, tmp_path):
    output = tmp_path / "prefs"
    assert prepare_part("1/3", "typographic", pictures, output) == [0, 2]
    assert not output.exists()


def test_a_part_that_was_broken_off_is_made_again_and_a_finished_one_is_not(
    pictures, whole, tmp_path
):
    output = tmp_path / "prefs"
    prepare_part("0/2", "typographic", pictures, output)
    (folder,) = tmp_path.glob(".prefs.of-2-*.parts")
    written = (folder / "parts" / "000000" / "train.jsonl").stat().st_mtime_ns
    # what a kill leaves: images and half a table, no mark
    prepare_part("1/2", "typographic", pictures, tmp_path / "other")
    (other,) = tmp_path.glob(".other.of-2-*.parts")
    half = other / "parts" / "000001" / "train.jsonl"
    (folder / "parts" / "000001").mkdir()
    (folder / "parts" / "000001" / "train.jsonl").write_bytes(half.read_bytes()[:50])
    assert prepare_part("0/2", "typographic", pictures, output) == [1]
    assert (folder / "parts" / "000000" / "train.jsonl").stat().st_mtime_ns == written
    assert prepare_part("1/2", "typographic", pictures, output) == []
    assert files(output) == files(whole)
    assert prepare_part("1/2", "typographic", pictures, output) == [], "it stands"


def test_parts_that_finish_at_once_settle_once(pictures, whole, tmp_path):
    output, left = tmp_path / "prefs", []

    def work(i: int) -> None:
        left.append(prepare_part(Shard(i, PARTS), "typographic", pictures, output))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(PARTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] in left
    assert files(output) == files(whole)


def test_who_makes_the_same_part_at_once_waits_and_finds_it_there(pictures, whole, tmp_path):
    output, left = tmp_path / "prefs", []

    def work() -> None:
        left.append(prepare_part("0/1", "typographic", pictures, output))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left == [[], [], [], []]
    assert files(output) == files(whole)
    assert list(tmp_path.iterdir()) == [output]


TARS = {"format": "webdataset", "shard_size": 5, "task_options": {"attacks_per_image": 2}}


@pytest.fixture(scope="module")
def packed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    return prepare("typographic", pictures, folder / "prefs", **TARS).root


def test_parts_make_the_tar_shards_of_one_process(pictures, packed, tmp_path):
    output = tmp_path / "prefs"
    for i in (1, 2, 0):
        assert not output.exists()
        prepare_part(f"{i}/{PARTS}", "typographic", pictures, output, **TARS)
    assert files(output) == files(packed)
    assert sum(name.endswith(".tar") for name in files(output)) > 3
    assert not list(output.glob("*/images"))
    assert [p.name for p in tmp_path.iterdir()] == ["prefs"], "nothing is left behind"


@pytest.mark.parametrize("at", ["_preview", "rmtree", "take_place"])
def test_a_join_that_was_broken_off_is_made_again(pictures, packed, tmp_path, monkeypatch, at):
    output = tmp_path / "prefs"
    prepare_part("0/2", "typographic", pictures, output, **TARS)
    with monkeypatch.context() as patch:

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        where = {"_preview": "clipalign.tasks.writing._preview", "rmtree": "shutil.rmtree"}
        patch.setattr(where.get(at, f"clipalign.tasks.shards.{at}"), killed)
        with pytest.raises(KeyboardInterrupt):
            prepare_part("1/2", "typographic", pictures, output, **TARS)
    assert not output.exists()
    assert prepare_part("0/2", "typographic", pictures, output, **TARS) == []
    assert files(output) == files(packed)


def test_another_set_is_not_replaced_unasked(pictures, whole, tmp_path):
    output = tmp_path / "prefs"
    shutil.copytree(whole, output)
    with pytest.raises(RunError, match="another preference set"):
        prepare_part("0/2", "typographic", pictures, output, seed=1)
    for i in range(2):
        prepare_part(f"{i}/2", "typographic", pictures, output, seed=1, overwrite=True)
    assert PreferenceSet.open(output).manifest.seed == 1


def test_two_sets_that_grow_beside_one_place_do_not_meet(pictures, whole, tmp_path):
    output = tmp_path / "prefs"
    other = {"seed": 1, "overwrite": False}
    prepare_part("0/2", "typographic", pictures, output, **other)
    for i in range(2):
        prepare_part(f"{i}/2", "typographic", pictures, output)
    with pytest.raises(RunError, match="another preference set"):
        prepare_part("1/2", "typographic", pictures, output, **other)
    assert files(output) == files(whole)
    assert prepare_part("1/2", "typographic", pictures, output, seed=1, overwrite=True) == []
    assert PreferenceSet.open(output).manifest.seed == 1
    assert [p.name for p in tmp_path.iterdir()] == ["prefs"]


def test_a_place_that_is_filled_while_the_last_part_is_made_is_left_alone(
    pictures, tmp_path, monkeypatch
):
    output = tmp_path / "prefs"
    finish = Shards.finish

    def filled(self, counts):
        finish(self, counts)
        output.mkdir()
        (output / "mine.txt").write_text("mine")

    monkeypatch.setattr(Shards, "finish", filled)
    with pytest.raises(RunError, match="was filled by another process"):
        prepare_part("0/1", "typographic", pictures, output)
    assert [p.name for p in output.iterdir()] == ["mine.txt"]
    shutil.rmtree(output)
    monkeypatch.setattr("clipalign.tasks.prepare.write_part", None)  # nothing is made again
    assert prepare_part("0/1", "typographic", pictures, output) == []


def test_a_split_without_a_usable_image_is_an_error_of_whoever_finishes(tmp_path):
    folder = tmp_path / "pictures" / "apple"
    (tmp_path / "pictures" / "pear").mkdir(parents=True)
    folder.mkdir()
    (folder / "1.png").write_bytes(b"no picture")
    (tmp_path / "pictures" / "pear" / "1.png").write_bytes(b"nor this")
    output = tmp_path / "prefs"
    prepare_part("0/2", "typographic", tmp_path / "pictures", output)
    with pytest.raises(DataError, match="No image of the split"):
        prepare_part("1/2", "typographic", tmp_path / "pictures", output)
    assert not output.exists()


@pytest.mark.parametrize("total", [0, 1, 7, 8, 1000])
def test_parts_cover_everything_once(total):
    for count in (1, 2, 3, 8):
        parts = [Shard(i, count).of(total) for i in range(count)]
        assert [n for part in parts for n in part] == list(range(total))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("text", "words"), [("8/8", "the last of 8 is 7/8"), ("1", "must be I/N"), ("-1/2", "must be")]
)
def test_a_part_that_is_none_is_refused(text, words):
    with pytest.raises(UsageError, match=words):
        parse_shard(text)


def test_torchrun_says_which_part(command, pictures, whole, tmp_path):
    assert shard_of_environment({}) is None
    assert shard_of_environment({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}) is None
    for rank in ("1", "0"):
        env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
        result = command("prepare", "--dataset", str(pictures), "-o", "prefs", env=env)
        assert result.returncode == 0, result.stderr
    assert "Part 0/2 is there, and so are all others." in result.stdout
    assert files(tmp_path / "prefs") == files(whole)
    wrong = command("prepare", "--shard", "0/2")
    assert wrong.returncode == 2
    assert "give --output" in wrong.stderr
