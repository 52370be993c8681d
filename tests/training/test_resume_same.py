"""A run goes on with what it began with, or not at all; a prepared set brings its own task."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import clipalign
from clipalign.config import load_config
from clipalign.errors import RunError, UsageError
from clipalign.tasks.manifest import read_manifest
from tests.conftest import Notes

pytestmark = pytest.mark.usefixtures("module_cache")
SMALL = {"concepts": 10, "train_views": 1}


def prepare(folder: Path, seed: int) -> None:
    clipalign.prepare(
        "typographic", "emoji", folder, dataset_options=SMALL, splits=["train"], limit=12,
        seed=seed, overwrite=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, module_cache) -> Path:
    """A model, a set, and a run of two steps on them; who changes one puts it back."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(tiny_model_dir, folder / "base")
    prepare(folder / "prefs", seed=0)
    clipalign.train(
        model=f"local-dir:{folder / 'base'}", data=folder / "prefs", trainable="last:1",
        train={"steps": 2, "batch_size": 4, "checkpoint_every_steps": 1}, output=folder / "run",
    )  # fmt: skip
    return folder


@pytest.fixture
def begun(made: Path, tmp_path: Path) -> Path:
    """The run, copied."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def bytes_of(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_other_preferences_are_not_gone_on_with(made: Path, begun: Path) -> None:
    before = bytes_of(begun)
    prepare(made / "prefs", seed=1)
    with pytest.raises(RunError, match=r"prefs holds other preferences than .* start a new run"):
        clipalign.train(resume=begun)
    assert bytes_of(begun) == before  # the manifest above all, which is the evidence
    prepare(made / "prefs", seed=0)
    clipalign.train(resume=begun)


def test_another_base_model_is_not_gone_on_with(made: Path, begun: Path) -> None:
    before = bytes_of(begun)
    path = made / "base" / "open_clip_model.safetensors"
    as_it_was, weights = path.read_bytes(), load_file(path)
    save_file({**weights, "visual.proj": weights["visual.proj"] + 1}, path)
    with pytest.raises(RunError, match="base is another model than the one this run began with"):
        clipalign.train(resume=begun)
    path.write_bytes(as_it_was)
    assert bytes_of(begun) == before


def test_the_same_preferences_made_by_another_version_are_the_same(begun: Path) -> None:
    made = read_manifest(begun)
    later = made.model_copy(update={"made_with": {"clipalign": "99"}, "notes": ["other"]}).sealed()
    assert later.content_sha256 != made.content_sha256
    assert later.same_preferences(made)
    assert not later.model_copy(update={"candidates": ["a", "b"]}).same_preferences(made)


def test_other_threads_or_another_torch_are_said(begun: Path, notes: Notes) -> None:
    path = begun / "environment.json"
    environment = json.loads(path.read_text())
    (begun / "SHA256SUMS").unlink()
    path.write_text(json.dumps(environment | {"threads": 99, "torch": "1.0"}))
    clipalign.train(resume=begun, reporter=notes)
    said = [line for line in notes.lines if "last bits" in line]
    assert [line.split(",")[0] for line in said] == [
        "This run began with torch 1.0", "This run began with threads 99",
    ]  # fmt: skip
    assert json.loads(path.read_text()) == environment


@pytest.mark.parametrize("content", ["[1", "3"])
def test_an_environment_that_no_run_wrote(begun: Path, content: str) -> None:
    (begun / "SHA256SUMS").unlink()
    (begun / "environment.json").write_text(content)
    with pytest.raises(RunError, match=r"environment\.json is not what a run writes"):
        clipalign.train(resume=begun)


def test_a_prepared_set_brings_its_task(tmp_path: Path) -> None:
    clipalign.prepare(
        "gender", "emoji-people", tmp_path / "gp", dataset_options={"views": 1}, limit=12,
    )  # fmt: skip
    usual = load_config(task="gender")
    config = load_config(data=tmp_path / "gp")
    assert (config.task, config.trainable, config.train) == ("gender", "head", usual.train)
    assert load_config(data=tmp_path / "gp", trainable="last:1").trainable == "last:1"
    with pytest.raises(UsageError, match="task 'gender', and not of 'typographic'"):
        clipalign.train(data=tmp_path / "gp", task="typographic", output=tmp_path / "run")
    for keys, named in (
        ({"task_options": {"balance": False}}, "task_options"),
        ({"dataset_options": {"train_views": 2}, "dataset": "emoji"}, "dataset_options, dataset"),
    ):
        with pytest.raises(UsageError, match=f"prepared already, so {named} would change nothing"):
            clipalign.train(data=tmp_path / "gp", output=tmp_path / "run", **keys)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_features_are_the_same_whatever_a_step_takes(made: Path, tmp_path: Path) -> None:
    """Weights do not depend on which run filled the cache."""

    def weights(batch_size: int, cache: str) -> dict[str, torch.Tensor]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CLIPALIGN_CACHE", str(tmp_path / cache))
            output = tmp_path / f"{cache}-{batch_size}"
            clipalign.train(
                model="emoji-tiny", data=made / "prefs", trainable="head", output=output,
                train={"steps": 2, "batch_size": batch_size},
            )  # fmt: skip
            return load_file(output / "model" / "open_clip_model.safetensors")

    weights(32, "first")
    after, alone = weights(4, "first"), weights(4, "alone")
    assert all(after[name].equal(alone[name]) for name in alone)
