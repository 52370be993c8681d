"""`clipalign cache`: what is kept, what it belongs to, and that removing it stays within it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch

from clipalign import cache
from clipalign.errors import UsageError
from clipalign.models.feature_cache import write_features


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two entries of features, a preference set, and a lock."""
    root = tmp_path / "cache"
    monkeypatch.setenv("CLIPALIGN_CACHE", str(root))
    features = root / "features"
    write_features(features / f"images-{'ab' * 32}.safetensors", torch.ones(50, 8), "train, tiny")
    write_features(features / f"texts-{'cd' * 32}.safetensors", torch.ones(2, 8))
    (features / ".images-ab.safetensors.lock").touch()
    made = root / "preferences" / f"typographic-{'ef' * 32}"
    (made / "train").mkdir(parents=True)
    (made / "train" / "metadata.jsonl").write_bytes(b"x" * 10_000)
    (made / "manifest.yaml").write_text(
        "task: typographic\ndataset: emoji\nseed: 3\ncounts:\n  train: {rows: 1200}\n"
    )
    old = time.time() - 3 * 86_400
    os.utime(made, (old, old))
    return root


def test_the_list_says_sizes_ages_and_what_things_belong_to(root, command) -> None:
    result = command("cache", "list", "--json", env={"CLIPALIGN_CACHE": str(root)})
    rows = {row["kind"]: row for row in json.loads(result.stdout)}
    assert set(rows) == {"preferences", "images", "texts"}
    assert rows["preferences"]["of"] == "typographic on emoji, seed 3, 1,200 rows"
    assert rows["preferences"]["age_seconds"] == pytest.approx(3 * 86_400, abs=60)
    assert rows["images"]["of"] == "train, tiny"
    assert rows["images"]["bytes"] == Path(rows["images"]["path"]).stat().st_size
    text = command("cache", "list", env={"CLIPALIGN_CACHE": str(root)}).stdout
    assert "images-abababababab" in text
    assert "3 days" in text


def test_entries_go_by_name_by_kind_and_by_age(root, command) -> None:
    def rm(*arguments: str):
        return command("cache", "rm", *arguments, env={"CLIPALIGN_CACHE": str(root)})

    assert "images-abababababab" in rm("images-ab").stdout
    assert {e.kind for e in cache.entries()} == {"texts", "preferences"}
    assert "preferences" not in rm("--older-than", "4", "--json").stdout
    assert rm("--kind", "texts", "--older-than", "2").stdout.strip() == "There is none of it."
    rm("--older-than", "2")
    assert {e.kind for e in cache.entries()} == {"texts"}
    wrong = rm("--kind", "text")
    assert wrong.returncode == 2
    assert "Did you mean 'texts'?" in wrong.stderr
    assert rm().returncode == 2
    rm("--all")
    assert cache.entries() == []


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "./../../secret"])
def test_no_name_leads_out_of_the_cache(root, name) -> None:
    secret = root.parent / "secret"
    secret.write_text("kept")
    with pytest.raises(UsageError, match="holds no entry"):
        cache.select([name])
    stranger = cache.Entry(root / "features" / name, name, "images", 0, 0.0, "")
    with pytest.raises(UsageError, match="not an entry of the cache"):
        cache.remove(stranger)
    assert secret.read_text() == "kept"


def test_links_are_removed_and_not_followed(root) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "photo.png").write_text("kept")
    (root / "features" / "linked").symlink_to(outside, target_is_directory=True)
    (root / "elsewhere").symlink_to(outside, target_is_directory=True)
    for entry in cache.select(everything=True):
        cache.remove(entry)
    assert (outside / "photo.png").read_text() == "kept"
    assert not (root / "features" / "linked").exists()


def test_a_name_that_could_be_two_is_asked_about(root) -> None:
    again = root / "features" / f"images-{'ab' * 31}ff.safetensors"
    write_features(again, torch.ones(1, 8))
    with pytest.raises(UsageError, match="give more of it"):
        cache.select(["images-ab"])
