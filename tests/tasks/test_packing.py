"""`prepare --format webdataset`: the same rows in tar shards."""

from __future__ import annotations

import json

import pytest

from clipalign.datasets.webdataset import WebDataset
from clipalign.errors import DataError, UsageError
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.tasks.prepare import prepare

OPTIONS = {"task_options": {"attacks_per_image": 2}, "seed": 3}


def packed(photos, target, **options):
    return prepare("typographic", photos, target, format="webdataset", **OPTIONS, **options)


def test_shards_hold_the_rows_of_the_folder(broken_photos, tmp_path):
    loose = prepare("typographic", broken_photos, tmp_path / "loose", **OPTIONS)
    tars = packed(broken_photos, tmp_path / "tars", shard_size=9)
    assert sorted(p.name for p in (tmp_path / "tars" / "train").iterdir()) == [
        "metadata.jsonl", *(f"train-{i:06}.tar" for i in range(7))
    ]  # fmt: skip
    assert tars.candidates == loose.candidates
    assert tars.quarantined() == loose.quarantined()
    assert tars.preview.read_bytes() == loose.preview.read_bytes()
    pairs = list(zip(loose.rows("train"), tars.rows("train"), strict=True))
    for a, b in pairs:
        assert (a.chosen, a.rejected, a.label, a.key, a.columns) == (
            b.chosen, b.rejected, b.label, b.key, b.columns
        )  # fmt: skip
        assert loose.read_image(a.image).tobytes() == tars.read_image(b.image).tobytes()
        assert loose.read_image(a.clean_image).tobytes() == tars.read_image(b.clean_image).tobytes()
    assert len({b.clean_image for _, b in pairs}) == len({a.clean_image for a, _ in pairs})


def test_any_number_of_workers_writes_the_same_bytes(photos, tmp_path):
    for n in (0, 2):
        packed(photos, tmp_path / f"{n}", shard_size=7, workers=n)
    names = sorted(p.relative_to(tmp_path / "0") for p in (tmp_path / "0").rglob("*.*"))
    assert len(names) == 10
    for name in names:
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_the_shards_are_a_dataset_by_themselves(photos, tmp_path):
    made = packed(photos, tmp_path / "tars")
    data = WebDataset(path=tmp_path / "tars" / "train")
    rows, examples = made.rows("train"), data.examples("train")
    assert [e.label for e in examples] == [row.label for row in rows]
    assert examples[0].attributes["chosen"] == rows[0].chosen
    assert data.image(examples[5]).tobytes() == made.read_image(rows[5].image).tobytes()


def test_another_shard_size_is_another_set(photos, tmp_path):
    one, two = (packed(photos, tmp_path / f"{n}", shard_size=n) for n in (5, 6))
    assert one.manifest.recipe_sha256 != two.manifest.recipe_sha256
    with pytest.raises(UsageError, match="shard_size must be at least 1"):
        packed(photos, tmp_path / "x", shard_size=0)
    with pytest.raises(UsageError, match="'webdataset'"):
        prepare("typographic", photos, format="webdatset")


def damage_shard(folder):
    path = folder / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)


def cut_shard(folder):
    path = folder / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:2000])


def lead_out(folder):
    path = folder / "metadata.jsonl"
    path.write_bytes(path.read_bytes().replace(b"train-000000.tar/", b"../x.tar/", 1))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (damage_shard, "it is damaged"),
        (cut_shard, "the shard is gone or was cut short"),
        (lambda folder: (folder / "train-000000.tar").unlink(), "gone or was cut short"),
        (lead_out, "was changed after it was written"),
    ],
)
def test_damage_is_noticed(photos, tmp_path, harm, words):
    packed(photos, tmp_path / "tars")
    harm(tmp_path / "tars" / "train")

    def read_all():
        made = PreferenceSet.open(tmp_path / "tars")
        for row in made.rows("train"):
            made.read_image(row.image)

    with pytest.raises(DataError, match=words):
        read_all()


def test_training_reads_them(photos, tmp_path, own_cache):
    import clipalign

    packed(photos, tmp_path / "tars")
    settings = ["train.steps=2", "trainable=head"]
    result = clipalign.train(data=tmp_path / "tars", output=tmp_path / "run", overrides=settings)
    assert result.steps == 2


def test_the_library_datasets_opens_the_shards(photos, tmp_path):
    datasets = pytest.importorskip("datasets")
    made = packed(photos, tmp_path / "tars")
    loaded = datasets.load_dataset(
        "webdataset",
        data_files=str(tmp_path / "tars" / "train" / "*.tar"),
        cache_dir=str(tmp_path / "hf"),
    )["train"]
    assert len(loaded) == len(made.rows("train"))
    assert loaded[0]["json"]["chosen"] == made.rows("train")[0].chosen


def test_the_command(command, photos, tmp_path):
    done = command(
        "prepare", "--dataset", photos, "-o", "tars", "--format", "webdataset",
        "--shard-size", "8", "--json", "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["train"]["rows"] == 20
    assert len(list((tmp_path / "tars/train").glob("*.tar"))) == 3
