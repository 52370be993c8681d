"""The three trackers, through the real libraries, with nothing sent anywhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import clipalign
from clipalign.config import RunConfig
from clipalign.training.tracking import Trackers

CONFIG = RunConfig(method="dpo", seed=3, train={"epochs": 4}).model_dump(mode="json")


@pytest.fixture(autouse=True)
def nothing_leaves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def two_attempts(entry: str | Mapping[str, Any], run: Path, apart: float = 0) -> None:
    """Stopped after step 4, resumed from step 2, so many seconds later."""
    run.mkdir()
    first = Trackers([entry])
    first.start(run, CONFIG, 0)
    for step in range(1, 5):
        first.log(step, {"loss": 1 / step})
    first.finish(None)
    time.sleep(apart)
    second = Trackers([entry])
    second.start(run, CONFIG, 2)
    for step in range(3, 6):
        second.log(step, {"loss": 2 / step, "validation_loss": 0.5})
    second.finish({"steps": 5, "model": "runs/a/model"})


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    two_attempts("tensorboard", tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "validation/loss"}
    values = {event.step: event.value for event in events.Scalars("train/loss")}
    assert values == pytest.approx({1: 1, 2: 1 / 2, 3: 2 / 3, 4: 2 / 4, 5: 2 / 5})
    text = events.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| method | dpo |" in text
    assert "| train.epochs | 4 |" in text


def test_mlflow_goes_on_with_its_run(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = (tmp_path / "store").as_uri()
    two_attempts({"mlflow": {"uri": uri, "experiment": "mine"}}, tmp_path / "run")
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params["method"] == "dpo"
    assert run.data.params["train.epochs"] == "4"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert {m.step for m in history} == {1, 2, 3, 4, 5}
    assert history[-1].value == pytest.approx(2 / 5)


def test_wandb_keeps_an_offline_run_of_the_same_id(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    # it names folders by the second, and two runs of one second are one folder
    two_attempts({"wandb": {"project": "mine"}}, tmp_path / "run", apart=1.1)
    name = (tmp_path / "run" / "wandb-id").read_text()
    folders = list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert all(folder.name.endswith(name) for folder in folders)
    # a process of the library's own writes the file, on a busy machine after the run has ended
    until = time.monotonic() + 30
    for words in (b"validation/loss", b"averaging_options"):  # of the configuration
        while words not in b"".join(f.read_bytes() for f in (tmp_path / "run").rglob("*.wandb")):
            assert time.monotonic() < until, words
            time.sleep(0.1)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_library_says_how_to_install_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    words = rf"'{name}' needs a library.*pip install 'clipalign-trackers\[{name}\]'"
    with pytest.raises(clipalign.PluginError, match=words):
        Trackers([name])
