"""Tar shards as a dataset: what is read, what is passed over, and what is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile

import pytest
from PIL import Image

from clipalign.datasets.locate import load_dataset, locate_dataset
from clipalign.datasets.webdataset import WebDataset
from clipalign.errors import DataError, UsageError


def picture(colour="red", form="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), colour).save(buffer, form)
    return buffer.getvalue()


def shard(path, members):
    """Write members: (name, bytes or text or dictionary), or a TarInfo as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, data = member
            data = json.dumps(data) if isinstance(data, dict) else data
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_samples_of_every_kind(tmp_path):
    shard(
        tmp_path / "train-000.tar",
        [
            ("a/0.jpg", picture("blue", "JPEG")), ("a/0.json", {"label": "ant", "n": 3, "t": None}),
            ("1.PNG", picture()), ("1.cls", "bee\n"), ("1.txt", "a bee"),
            ("2.webp", picture("lime", "WEBP")), ("2.npy", b"ignored"),
        ],
    )  # fmt: skip
    shard(tmp_path / "train-001.tar", [("0.jpeg", picture(form="JPEG")), ("0.cls", "ant")])
    data = load_dataset(tmp_path, {})
    assert data.splits() == ("train",)
    assert data.classnames == ("ant", "bee")
    first, second, third, last = data.examples("train")
    assert (first.key, first.label) == ("train-000.tar/a/0", "ant")
    assert first.attributes == {"n": "3", "t": "", "txt": ""}
    assert (second.label, second.attributes["txt"]) == ("bee", "a bee")
    assert third.label is None
    assert last.key == "train-001.tar/0"
    again = pickle.loads(pickle.dumps(data))
    assert again.image(third).getpixel((3, 3))[1] > 250
    assert again.image(first).size == (20, 10)


def test_splits_are_named_by_shards_or_folders(tmp_path):
    for name in ("x-val-0.tar", "test/7.tar", "other.tar"):
        shard(tmp_path / name, [("0.png", picture()), ("0.cls", "ant")])
    data = WebDataset(path=tmp_path)
    assert data.splits() == ("train", "validation", "test")
    assert [e.key for e in data.examples("test")] == ["test/7.tar/0"]
    with pytest.raises(DataError, match=r"no split 'tset'.*'test'"):
        data.examples("tset")


def test_shards_of_one_name_in_two_folders_are_told_apart(tmp_path):
    for folder in ("a", "b", "test"):
        shard(tmp_path / folder / "0.tar", [("0.png", picture()), ("0.cls", "ant")])
    for path in (tmp_path, tmp_path / "*" / "*.tar"):
        data = WebDataset(path=path)
        assert [e.key for e in data.examples("train")] == ["a/0.tar/0", "b/0.tar/0"]
        assert [e.key for e in data.examples("test")] == ["test/0.tar/0"]


def test_braces_name_shards_as_in_a_shell(tmp_path):
    for name in ("train-08", "train-09", "train-10", "val-08"):
        shard(tmp_path / f"{name}.tar", [("0.png", picture()), ("0.cls", "ant")])
    pattern = str(tmp_path / "{train,val}-{08..09}.tar")
    with pytest.raises(DataError, match=r"There is no shard .*val-09\.tar"):
        WebDataset(path=pattern)
    shard(tmp_path / "val-09.tar", [("0.png", picture()), ("0.cls", "ant")])
    data = load_dataset(pattern, {})
    keys = [e.key for split in ("train", "validation") for e in data.examples(split)]
    assert keys == [f"{name}.tar/0" for name in ("train-08", "train-09", "val-08", "val-09")]
    data = load_dataset(str(tmp_path / "*-{09..10}.tar"), {})
    assert [e.key for e in data.examples("train")] == ["train-09.tar/0", "train-10.tar/0"]


@pytest.mark.parametrize("braces", ["{9..1}", "{0..99999999}"])
def test_braces_that_count_down_or_without_end_are_refused(tmp_path, braces):
    with pytest.raises(DataError, match="must count up"):
        WebDataset(path=tmp_path / f"{braces}.tar")


def test_numbers_stand_for_names(tmp_path):
    shard(
        tmp_path / "test" / "0.tar",
        [("0.png", picture()), ("0.cls", "1"), ("1.png", picture()), ("1.cls", "2")],
    )
    with pytest.raises(DataError, match=r"numbers, such as 1.*classnames\.txt"):
        WebDataset(path=tmp_path)
    (tmp_path / "classnames.txt").write_text("ant\nbee\n")
    data = WebDataset(path=tmp_path)
    assert [e.label for e in data.examples("test")] == ["bee"]
    assert data.skipped("test") == [("test/0.tar/1", "its class is 2, and there are 2 names")]
    named = WebDataset(path=tmp_path / "test" / "*.tar", classnames=("x", "y", "z"))
    assert [e.label for e in named.examples("train")] == ["y", "z"]


def test_labels_that_read_the_same_are_one_class(tmp_path):
    labels = {"0\u202f0": "caf\u00e9", "1": "cafe\u0301", "2": "ant"}
    images = [(f"{key}.png", picture()) for key in labels]
    members = [*images, *((f"{key}.cls", label) for key, label in labels.items())]
    shard(tmp_path / "0.tar", sorted(members))
    data = WebDataset(path=tmp_path)
    assert data.classnames == ("ant", "caf\u00e9")
    assert data.skipped("train") == ()


def test_what_cannot_be_used_is_passed_over_with_its_reason(tmp_path):
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    inner = shard(tmp_path / "inner" / "x.tar", [("0.png", picture())]).read_bytes()
    (tmp_path / "inner" / "x.tar").unlink()
    wrong = [
        ("../../up.png", picture(), "leads out of the archive"),
        ("/abs.png", picture(), "leads out of the archive"),
        (link, None, "a link or a device"),
        ("nested.tar", inner, "an archive within the archive"),
        ("alone.json", {"label": "ant"}, "it has no image"),
        ("bare", "x", "no ending"),
        ("bad.json", "[1]", "not a JSON object"),
        ("bad.png", picture(), "not a JSON object"),
        ("deep.json", "[" * 100_000, "not a JSON object"),
        ("deep.png", picture(), "not a JSON object"),
        ("latin.txt", "é".encode("latin-1"), "not UTF-8"),
        ("latin.png", picture(), "not UTF-8"),
        ("two.png", picture(), "two images"),
        ("two.jpg", picture(form="JPEG"), "two images"),
        ("name.png", picture(), "cannot be printed"),
        ("name.cls", "a\x07b", "cannot be printed"),
        ("good.png", picture(), "its key came before"),
    ]
    members = [("good.png", picture()), ("good.cls", "ant")]
    members += [m if isinstance(m, tarfile.TarInfo) else (m, data) for m, data, _ in wrong]
    shard(tmp_path / "0.tar", members)
    data = WebDataset(path=tmp_path)
    assert [e.key for e in data.examples("train")] == ["0.tar/good"]
    reasons = dict(data.skipped("train"))
    for member, _, words in wrong:
        name = member.name if isinstance(member, tarfile.TarInfo) else member
        assert words in reasons["0.tar/" + (name.rpartition(".")[0] or name)], (name, reasons)
    assert not (tmp_path.parent / "up.png").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[: len(data) // 2], "ends within '1.png'|end mark is missing"),
        (lambda data: data[:1024], "end mark is missing"),
        (lambda data: b"", "empty|not a tar"),
        (lambda data: b"not a tar at all" * 100, "not a tar file"),
        (lambda data: data[:1024] + b"x" * 512 + data[1536:], "end mark is missing|damaged"),
        (lambda data: __import__("gzip").compress(data), "Compressed shards"),
    ],
)
def test_a_damaged_shard_is_an_error_and_never_half_a_dataset(tmp_path, damage, words):
    noise = Image.effect_noise((60, 60), 90)
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    path = shard(tmp_path / "0.tar", [("0.png", picture()), ("1.png", buffer.getvalue())])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=words):
        WebDataset(path=tmp_path)


def test_a_sample_whose_files_stand_apart_is_never_read_without_its_label(tmp_path):
    images = [(f"./{i}.png", picture()) for i in range(3)]
    shard(tmp_path / "0.tar", [*images, *((f"./{i}.cls", "ant") for i in range(3))])
    with pytest.raises(DataError, match=r"'\./0\.cls' apart from.*tar --sort=name"):
        WebDataset(path=tmp_path)


def test_a_shard_that_is_changed_later_is_noticed(tmp_path):
    path = shard(tmp_path / "0.tar", [("0.png", picture())])
    data = WebDataset(path=tmp_path)
    path.write_bytes(path.read_bytes()[:520])
    with pytest.raises(DataError, match="gone or was changed"):
        data.image(data.examples("train")[0])


def test_the_fingerprint_covers_labels_and_places(tmp_path):
    shard(tmp_path / "0.tar", [("0.png", picture()), ("0.cls", "ant")])
    first = WebDataset(path=tmp_path).fingerprint
    assert WebDataset(path=tmp_path / "0.tar").fingerprint == first
    before = WebDataset(path=tmp_path).cache_key
    os.utime(tmp_path / "0.tar", ns=(1, 1))
    assert WebDataset(path=tmp_path).fingerprint == first
    assert WebDataset(path=tmp_path).cache_key != before
    shard(tmp_path / "0.tar", [("0.png", picture()), ("0.cls", "bee")])
    assert WebDataset(path=tmp_path).fingerprint != first


def test_a_name_and_a_path_say_where_a_dataset_lies(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.tar").touch()
    tar, shards = tmp_path / "shards" / "0.tar", tmp_path / "shards"
    assert locate_dataset(tmp_path / "photos", {}) == ("folder", {"root": str(tmp_path / "photos")})
    assert locate_dataset(shards, {}) == ("webdataset", {"path": str(shards)})
    assert locate_dataset(tar, {}) == ("webdataset", {"path": str(tar)})
    assert locate_dataset("webdataset:a:b", {"x": 1}) == ("webdataset", {"path": "a:b", "x": 1})
    for spec, options, words in (
        ("folder", {}, "as folder:PATH"),
        ("emoji:/x", {}, "takes no path"),
        ("folder:/x", {"root": "/y"}, "two places"),
        ("foldr:/x", {}, "'folder'"),
        ("9" * 400, {}, "There is no dataset, folder or table"),  # longer than a name may be
        ("", {}, "There is no dataset, folder or table ''"),  # and not the current folder
    ):
        with pytest.raises(UsageError, match=words):
            locate_dataset(spec, options)


def test_a_prepared_set_is_no_dataset(tmp_path, monkeypatch):
    for name in ("prefs/manifest.yaml", "prefs/train/metadata.jsonl", "prefs/train/0.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "prefs/train/images").mkdir()
    monkeypatch.chdir(tmp_path)
    inside = ("train", "train/images", "train/metadata.jsonl", "train/*.tar")
    for spec in ("prefs", "folder:prefs", *(f"prefs/{path}" for path in inside)):
        with pytest.raises(UsageError, match=r"a prepared set .* train --data prefs"):
            locate_dataset(spec, {})
    (tmp_path / "manifest.yaml").touch()  # of something else
    assert locate_dataset(tmp_path, {})[0] == "folder"


def test_what_save_to_disk_wrote_is_named_as_such(tmp_path):
    (tmp_path / "dataset_dict.json").touch()
    with pytest.raises(UsageError, match=f"name it as huggingface:{tmp_path}"):
        locate_dataset(tmp_path, {})
