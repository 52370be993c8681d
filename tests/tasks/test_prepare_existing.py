"""What stands where a preference set is to go: used again, replaced when asked, or left alone."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from clipalign.errors import (
    RunError,
)
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.tasks.prepare import prepare
from clipalign.tasks.typographic import Typographic

pytestmark = pytest.mark.usefixtures("own_cache")


def test_an_equal_set_is_used_again_and_another_refused(photos, tmp_path):
    out = tmp_path / "out"
    before = prepare("typographic", photos, out)
    inode = before.preview.stat().st_ino
    assert prepare("typographic", photos, out).preview.stat().st_ino == inode
    with pytest.raises(RunError, match=r"holds another preference set \(typographic on folder"):
        prepare("typographic", photos, out, seed=1)
    assert PreferenceSet.open(out).content_sha256 == before.content_sha256
    after = prepare("typographic", photos, out, seed=1, overwrite=True)
    assert after.content_sha256 != before.content_sha256
    assert sorted(os.listdir(tmp_path)) == ["out", "photos"]


def test_a_changed_image_makes_another_set(photos, tmp_path):
    prepare("typographic", photos, tmp_path / "out")
    Image.new("RGB", (50, 50)).save(photos / "ant" / "new.png")
    with pytest.raises(RunError, match="other options or images"):
        prepare("typographic", photos, tmp_path / "out")


def test_images_that_changed_and_kept_their_size_are_warned_of(tmp_path, notes):
    for i, name in enumerate(("ant", "bee")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (50, 50), (i, 0, 0)).save(tmp_path / "photos" / name / "1.bmp")
    made = prepare("typographic", tmp_path / "photos", tmp_path / "out")
    prepare("typographic", tmp_path / "photos", tmp_path / "out", reporter=notes)
    assert notes.lines == [f"Using the preference set in {tmp_path / 'out'}."]
    later = (tmp_path / "out" / "manifest.yaml").stat().st_mtime_ns + 10**9
    Image.new("RGB", (50, 50), "red").save(tmp_path / "photos" / "ant" / "1.bmp")
    os.utime(tmp_path / "photos" / "ant" / "1.bmp", ns=(later, later))
    prepare("typographic", tmp_path / "photos", tmp_path / "out", reporter=notes)
    assert "Warning: files of its images were changed" in notes.lines[-1]
    cached = prepare("typographic", tmp_path / "photos")
    assert cached.content_sha256 != made.content_sha256


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_preference_set_is_left_alone(photos, tmp_path, overwrite):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="not a preference set, so it is left alone"):
        prepare("typographic", photos, tmp_path / "out", overwrite=overwrite)
    with pytest.raises(RunError, match="is a file"):
        prepare("typographic", photos, tmp_path / "out" / "thesis.txt", overwrite=overwrite)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_an_empty_directory_is_filled(photos, tmp_path):
    (tmp_path / "out").mkdir()
    assert len(prepare("typographic", photos, tmp_path / "out").rows("train")) == 20


def test_a_damaged_set_is_replaced_when_asked(photos, tmp_path):
    made = prepare("typographic", photos, tmp_path / "out")
    made.rows("train")[0].image.unlink()
    with pytest.raises(RunError, match=r"there is no file(.|\n)*Replace it with --overwrite"):
        prepare("typographic", photos, tmp_path / "out")
    again = prepare("typographic", photos, tmp_path / "out", overwrite=True)
    assert again.content_sha256 == made.content_sha256


def test_without_output_the_cache_is_used_and_mended(photos, own_cache):
    made = prepare("typographic", photos)
    assert made.root.parent == own_cache / "preferences"
    inode = made.preview.stat().st_ino
    assert prepare("typographic", photos).preview.stat().st_ino == inode
    assert prepare("typographic", photos, seed=1).root != made.root
    os.utime(next(photos.rglob("*.png")), ns=(1, 1))  # perhaps an edit that keeps the size
    again = prepare("typographic", photos)
    assert again.root != made.root
    assert again.content_sha256 == made.content_sha256
    made = again
    image = made.rows("train")[0].image
    before = image.read_bytes()
    image.unlink()
    assert prepare("typographic", photos).root == made.root
    assert image.read_bytes() == before


def test_what_another_process_wrote_meanwhile_is_left_alone(photos, tmp_path):
    class Slow(Typographic):
        """Something else fills the output in the middle."""

        def rows(self, *arguments):
            (tmp_path / "out").mkdir(exist_ok=True)
            (tmp_path / "out" / "theirs.txt").write_text("")
            return super().rows(*arguments)

    with pytest.raises(RunError, match="was filled by another process in the meantime"):
        prepare(Slow(), photos, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["theirs.txt"]


def test_two_that_need_the_same_cached_set_make_it_once(photos):
    made = []

    class Counts(Typographic):
        """Notes what it is asked for."""

        def rows(self, example, *arguments):
            made.append(example.key)
            return super().rows(example, *arguments)

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: prepare(Counts(), photos), range(2))
    assert one.root == two.root
    assert len(made) == len(set(made)) == 20
