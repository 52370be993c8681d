"""From labelled images to a preference set: the same bytes every time, and nothing lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest
from PIL import Image

from clipalign.datasets.folder import Folder
from clipalign.errors import (
    ConfigError,
    DataError,
    UsageError,
)
from clipalign.tasks import working
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.tasks.prepare import prepare
from tests.tasks.conftest import content

pytestmark = pytest.mark.usefixtures("own_cache")


# --- The same bytes -----------------------------------------------------------------------------


def test_any_number_of_workers_writes_the_same_bytes(broken_photos, tmp_path):
    options = {"task_options": {"attacks_per_image": 2}, "seed": 3}
    made = [
        prepare("typographic", broken_photos, tmp_path / f"out{n}", workers=n, **options).root
        for n in (0, 1, 3)
    ]
    first, second, third = map(content, made)
    assert first == second == third
    assert len(first) > 60


def test_the_order_of_the_images_does_not_matter(photos, tmp_path, monkeypatch):
    prepare("typographic", photos, tmp_path / "a")
    data = Folder(root=photos)
    random.Random(5).shuffle(data._splits["train"].examples)
    prepare("typographic", data, tmp_path / "b")

    def by_key(folder):
        rows = PreferenceSet.open(folder).rows("train")
        return {r.key: (r.image.read_bytes(), r.columns, r.rejected) for r in rows}

    assert by_key(tmp_path / "a") == by_key(tmp_path / "b")


def test_another_seed_gives_other_attacks_on_the_same_images(photos, tmp_path):
    one, two = (prepare("typographic", photos, tmp_path / str(s), seed=s) for s in (1, 2))
    assert one.content_sha256 != two.content_sha256
    a, b = one.rows("train"), two.rows("train")
    assert [r.clean_image.read_bytes() for r in a] == [r.clean_image.read_bytes() for r in b]
    assert [r.columns["attack_text"] for r in a] != [r.columns["attack_text"] for r in b]


# --- What is written ----------------------------------------------------------------------------


def test_counts_candidates_and_pairs(photos, tmp_path):
    made = prepare("typographic", photos, tmp_path / "out", task_options={"attacks_per_image": 3})
    assert made.candidates == tuple(
        f"a photo of a {n}." for n in ("ant", "bee", "cat", "polar bear")
    )
    assert made.manifest.counts["train"].model_dump() == {
        "images": 20, "rows": 60, "quarantined": 0
    }  # fmt: skip
    assert made.quarantined() == []
    assert not made.quarantine.exists()
    for row in made.rows("train"):
        assert row.chosen == f"a photo of a {row.label}."
        assert row.rejected != row.chosen
    assert len({row.clean_image for row in made.rows("train")}) == 20
    assert made.manifest.licence == "not stated"
    assert made.manifest.dataset_options == {"root": str(photos)}


def test_small_images_are_png_and_large_ones_fine_jpeg(photos, tmp_path):
    made = prepare("typographic", photos, tmp_path / "out")
    for row in made.rows("train"):
        with Image.open(row.image) as image:
            assert (image.format == "PNG") == (max(image.size) <= working.PNG_SIDE)
            if image.format == "JPEG":
                assert image.layer[0][1:3] == image.layer[1][1:3]  # 4:4:4: no coarser colours
    clean = made.read_image(made.rows("train")[0].clean_image)
    with Image.open(photos / "ant" / "0.png") as original:
        assert clean.tobytes() == original.convert("RGB").tobytes()


def test_large_images_are_shrunk_once(photos, tmp_path):
    Image.new("RGB", (900, 300)).save(photos / "ant" / "wide.png")
    made = prepare("typographic", photos, tmp_path / "out", max_side=150)
    sizes = {row.key: made.read_image(row.image).size for row in made.rows("train")}
    assert sizes["ant/wide.png"] == (150, 50)
    assert sizes["ant/0.png"] == (90, 100)
    for row in made.rows("train"):
        assert made.read_image(row.clean_image).size == sizes[row.key]


def test_a_limit_draws_from_everywhere(photos, tmp_path):
    made = prepare("typographic", photos, tmp_path / "out", limit=10)
    assert len(made.rows("train")) == 10
    assert len({row.label for row in made.rows("train")}) >= 3


def test_splits_are_those_of_training_unless_asked(tmp_path):
    made = prepare("typographic", "emoji", tmp_path / "a", limit=3)
    assert made.splits == ("train", "validation")
    made = prepare("typographic", "emoji", tmp_path / "b", limit=3, splits=["test"])
    assert made.splits == ("test",)
    with pytest.raises(UsageError, match=r"no split 'tset'\. Did you mean 'test'"):
        prepare("typographic", "emoji", tmp_path / "c", splits=["tset"])
    with pytest.raises(DataError, match=r"have different classes.*as two sets"):
        prepare("typographic", "emoji", tmp_path / "d", splits=["test", "test-unseen-concepts"])
    assert not (tmp_path / "c").exists()
    assert not (tmp_path / "d").exists()


def test_the_preview_shows_every_row_of_a_small_set(photos, tmp_path):
    made = prepare("typographic", photos, tmp_path / "out")
    with Image.open(made.preview) as image:
        assert image.width > image.height > 500
        colours = image.convert("RGB").getcolors(image.width * image.height)
    assert {(22, 128, 61), (200, 30, 45)} <= {colour for _, colour in colours}  # ✓ and ✗


# --- What cannot be used ------------------------------------------------------------------------


def test_every_image_is_converted_or_quarantined_with_its_reason(broken_photos, tmp_path):
    made = prepare("typographic", broken_photos, tmp_path / "out")
    refused = {row["file"]: row["reason"] for row in made.quarantined()}
    unusable = ("empty.png", "text.jpg", "cut.jpg", "drawing.svg", "tiny.png")
    assert set(refused) == {f"cat/{name}" for name in unusable}
    assert refused["cat/empty.png"] == "the file is empty"
    assert refused["cat/text.jpg"].startswith("not an image")
    assert refused["cat/cut.jpg"].startswith("damaged or truncated")
    assert refused["cat/drawing.svg"] == "its name is not that of an image file"
    assert "3 × 3 pixels are too few" in refused["cat/tiny.png"]
    assert made.manifest.quarantined == 5

    files = {path.relative_to(broken_photos).as_posix() for path in broken_photos.glob("*/*")}
    kept = {row.key for row in made.rows("train")}
    assert kept | set(refused) == files
    assert not kept & set(refused)

    sizes = {row.key: made.read_image(row.image).size for row in made.rows("train")}
    assert sizes["bee/turned.jpg"] == (60, 120)  # upright
    assert sizes["bee/huge.jpg"] == (1024, 512)
    deep = next(row for row in made.rows("train") if row.key == "bee/deep.png")
    assert made.read_image(deep.clean_image).getpixel((40, 40)) == (156, 156, 156)  # 40 000 / 257


def test_when_all_are_broken_nothing_is_written(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="No image of the split 'train'") as caught:
        prepare("typographic", tmp_path / "photos", tmp_path / "out")
    assert "a/1.png: the file is empty" in str(caught.value)
    assert os.listdir(tmp_path) == ["photos"]


# --- What is asked for --------------------------------------------------------------------------


def test_unknown_names_and_options_are_told_with_near_ones(photos, tmp_path):
    with pytest.raises(UsageError, match=r"no task 'typografic'\. Did you mean 'typographic'"):
        prepare("typografic", photos, tmp_path / "out")
    with pytest.raises(
        UsageError, match=r"no dataset, folder or table 'emojy'\. Did you mean 'emoji'"
    ):
        prepare("typographic", "emojy", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"attacks_per_image: (.|\n)*style: unknown key. Did"):
        prepare("typographic", photos, tmp_path / "out",
                task_options={"style": "note", "attacks_per_image": 0})  # fmt: skip
    with pytest.raises(ConfigError, match="dataset 'folder' cannot use"):
        prepare("typographic", photos, tmp_path / "out", dataset_options={"rot": "x"})
    for name in ("limit", "max_side"):
        with pytest.raises(UsageError, match=f"{name} must be at least 1"):
            prepare("typographic", photos, tmp_path / "out", **{name: 0})
    with pytest.raises(UsageError, match="workers must be at least 0"):
        prepare("typographic", photos, tmp_path / "out", workers=-1)


def test_a_table_is_a_dataset_too(photos, tmp_path):
    rows = [{"image": f"{n}/{i}.png", "label": n} for n in ("ant", "bee") for i in (0, 2)]
    (photos / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = prepare("typographic", photos / "index.jsonl", tmp_path / "out")
    assert [row.key for row in made.rows("train")] == [row["image"] for row in rows]


def test_two_classes_with_one_prompt_are_refused(photos, tmp_path):
    class Same(Folder):
        classnames = property(lambda self: ("ant", "ant"), lambda self, _: None)

    with pytest.raises(DataError, match=r"same text: 'a photo of a ant\.'"):
        prepare("typographic", Same(root=photos), tmp_path / "out")


def test_no_torch_is_needed():
    code = "import sys, clipalign.tasks.prepare, clipalign.tasks.typographic\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "open_clip", "numpy"} & set(done.stdout.split())


def test_real_photographs(real_photos, tmp_path):
    made = prepare(
        "typographic",
        real_photos / "caltech101" / "index.csv",
        tmp_path / "out",
        dataset_options={"image_column": "path", "label_column": "label"},
        splits=["train", "test"],
        limit=40,
    )
    for split in ("train", "test"):
        assert len(made.rows(split)) == 40
        for row in made.rows(split):
            attacked, clean = made.read_image(row.image), made.read_image(row.clean_image)
            assert attacked.size == clean.size
            assert attacked.tobytes() != clean.tobytes()
            assert row.chosen == f"a photo of a {row.label}."
    assert made.quarantined() == []
    assert not {r.columns["font"] for r in made.rows("train")} & {
        r.columns["font"] for r in made.rows("test")
    }
