"""A set that is broken off leaves nothing half made, and what was there before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from clipalign.errors import (
    ClipAlignError,
    StorageError,
    UsageError,
)
from clipalign.tasks import working
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.tasks.prepare import prepare
from clipalign.tasks.typographic import Typographic
from tests.tasks.conftest import content

pytestmark = pytest.mark.usefixtures("own_cache")


class Trips(Typographic):
    """A task that fails at one image."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def rows(self, example, *arguments):
        if example.key == "cat/2.png":
            raise self.error
        return super().rows(example, *arguments)


@pytest.mark.parametrize(
    ("error", "workers"),
    [(RuntimeError("a bug"), 0), (KeyboardInterrupt(), 0), (MemoryError(), 0), (ValueError(), 2)],
)
def test_a_failure_half_way_leaves_nothing(photos, tmp_path, error, workers):
    with pytest.raises(type(error)):
        prepare(Trips(error), photos, tmp_path / "out", workers=workers)
    assert os.listdir(tmp_path) == ["photos"]


def test_a_failure_half_way_keeps_the_old_set(photos, tmp_path):
    old = prepare("typographic", photos, tmp_path / "out")
    with pytest.raises(RuntimeError):
        prepare(Trips(RuntimeError()), photos, tmp_path / "out", overwrite=True)
    assert PreferenceSet.open(tmp_path / "out").content_sha256 == old.content_sha256


class Dies(Typographic):
    """A task that takes its process with it, as a kernel out of memory would."""

    def rows(self, example, *arguments):
        if example.key == "cat/2.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().rows(example, *arguments)


def test_a_worker_that_dies_is_one_message(photos, tmp_path):
    with pytest.raises(ClipAlignError, match="A worker process died"):
        prepare(Dies(), photos, tmp_path / "out", workers=1)
    assert os.listdir(tmp_path) == ["photos"]


def test_a_task_that_cannot_travel_says_so(photos, tmp_path):
    task = Typographic()
    task.secret = lambda: None
    with pytest.raises(UsageError, match="workers=0"):
        prepare(task, photos, tmp_path / "out", workers=1)
    assert len(prepare(task, photos, tmp_path / "out", workers=0).rows("train")) == 20


def test_a_full_disk_leaves_nothing(photos, tmp_path, monkeypatch):
    writes = 0
    usual = working._write

    def full(path, data):
        nonlocal writes
        writes += 1
        if writes > 9:
            raise OSError(28, "No space left on device", path)
        return usual(path, data)

    monkeypatch.setattr(working, "_write", full)
    with pytest.raises(StorageError, match="the disk is full"):
        prepare("typographic", photos, tmp_path / "out")
    assert os.listdir(tmp_path) == ["photos"]


def test_a_kill_in_the_middle_is_forgotten(photos, tmp_path):
    out = tmp_path / "out"
    script = (
        "import sys, time\n"
        "from clipalign.tasks import working, prepare\n"
        "usual = working._work\n"
        "working._work = lambda *a: (time.sleep(0.1), usual(*a))[1]\n"
        "prepare.prepare('typographic', sys.argv[1], sys.argv[2])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(photos), str(out)])
    while not list(tmp_path.glob(".out-*.tmp/train/images/*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not out.exists()
    assert list(tmp_path.glob(".out-*"))  # what it left behind

    made = prepare("typographic", photos, out)
    assert content(out) == content(prepare("typographic", photos, tmp_path / "calm").root)
    assert len(made.rows("train")) == 20
    assert sorted(os.listdir(tmp_path)) == ["calm", "out", "photos"]
