"""Of two that make the same directory, each ends with a whole one there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clipalign.errors import RunError
from clipalign.staging import staged


def test_two_that_replace_one_directory_leave_a_whole_one(tmp_path: Path) -> None:
    target = tmp_path / "set"
    target.mkdir()
    (target / "old").touch()
    with staged(target, replace=True) as first:
        (first / "first").touch()
        with staged(target, replace=True) as second:
            (second / "second").touch()
        assert [p.name for p in target.iterdir()] == ["second"]
    assert [p.name for p in target.iterdir()] == ["first"]
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_a_directory_that_was_filled_meanwhile_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "set"
    making = staged(target, replace=False)
    making.__enter__()
    target.mkdir()
    (target / "theirs").touch()
    with pytest.raises(RunError, match="filled by another"):
        making.__exit__(None, None, None)
    assert [p.name for p in target.iterdir()] == ["theirs"]


def test_what_a_killed_process_moved_away_comes_back(tmp_path: Path) -> None:
    target = tmp_path / "set"
    (tmp_path / ".set-0123abcd.old").mkdir()
    (tmp_path / ".set-0123abcd.old" / "whole").touch()
    (tmp_path / ".set-0123abcd.tmp").mkdir()
    (tmp_path / ".set-0123abcd.lock").touch()
    with staged(target, replace=True):
        assert (target / "whole").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_what_cannot_be_removed_is_swept_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(target: Path) -> None:
        with staged(target, replace=False) as folder:
            (folder / "half").touch()
            raise OSError("no more open files")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)  # it opens what it removes
        with pytest.raises(OSError, match="no more open files"):
            fail(tmp_path / "set")
    assert len(list(tmp_path.glob(".set-*.tmp"))) == 1
    with staged(tmp_path / "set", replace=False) as folder:
        (folder / "whole").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
