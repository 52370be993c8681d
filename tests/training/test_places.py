"""What a run records of its configuration holds from any folder, on any number of processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipalign.config import RunConfig
from clipalign.objectives.dpo import DPO
from clipalign.training.distributed import ALONE, World
from clipalign.training.places import anywhere, recorded


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("photos", "first/model", "emoji-tiny", "emoji", "label", "auto"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "first/model/open_clip_config.json").write_text("{}")
    (tmp_path / "my.csv").write_text("image,label\n")
    (tmp_path / "mine.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("key", "given", "kept"),
    [
        ("model", "first", "{here}/first"),
        ("model", "local-dir:first/model", "local-dir:{here}/first/model"),
        ("model", "emoji-tiny", "emoji-tiny"),  # named, though a folder is called so
        ("model", "hf-hub:org/name", "hf-hub:org/name"),
        ("dataset", "photos", "{here}/photos"),
        ("dataset", "./photos", "{here}/photos"),
        ("dataset", "folder:photos", "folder:{here}/photos"),
        ("dataset", "my.csv", "{here}/my.csv"),
        ("dataset", "emoji", "emoji"),
        ("dataset", "shards/*.tar", "{here}/shards/*.tar"),
    ],
)
def test_what_is_read_is_found_from_any_folder(here, key, given, kept) -> None:
    config = anywhere(RunConfig(**{key: given}))
    assert getattr(config, key) == kept.format(here=here)
    assert anywhere(config) == config


def test_options_that_are_files_are_found_too(here) -> None:
    table = {"path": "my.csv", "root": "photos", "label_column": "label"}
    config = anywhere(RunConfig(dataset="table", dataset_options=table, data=Path("my.csv")))
    assert config.dataset_options == {
        "path": f"{here}/my.csv",
        "root": f"{here}/photos",
        "label_column": "label",  # a column, though a folder is called so
    }
    assert config.data == here / "my.csv"
    concept = anywhere(RunConfig(task="concept", task_options={"concept": "mine.yaml"}))
    assert concept.task_options == {"concept": f"{here}/mine.yaml"}
    beside = {"keep": "folder", "keep_options": {"root": "photos"}}
    assert anywhere(RunConfig(task="gender", task_options=beside)).task_options == {
        "keep": "folder",
        "keep_options": {"root": f"{here}/photos"},
    }
    for task, keep, kept in (
        ("concept", "photos", f"{here}/photos"),
        ("concept", "auto", "auto"),
        ("preferences", "photos", f"{here}/photos"),
        ("preferences", "emoji", "emoji"),
    ):
        assert anywhere(RunConfig(task=task, task_options={"keep": keep})).task_options == {
            "keep": kept
        }
    fonts = anywhere(RunConfig(task_options={"fonts": ["mine.ttf", "/b.ttf"], "styles": ["note"]}))
    assert fonts.task_options == {"fonts": [f"{here}/mine.ttf", "/b.ttf"], "styles": ["note"]}
    assert anywhere(fonts) == fonts
    assert anywhere(RunConfig(output=Path("runs/a"))).output == Path("runs/a")


def test_the_pieces_of_a_batch_are_recorded() -> None:
    config, loss = RunConfig(), DPO()
    assert recorded(config, loss, ALONE) == config
    assert recorded(config, loss, World(size=3)).train.accumulate == 3
    loss.per_image = False
    assert recorded(config, loss, World(size=3)) == config
