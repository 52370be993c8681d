"""A weighted sum and trackers in a real run: heard, harmless, and reproduced by its config.yaml."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from PIL import Image

import clipalign
from clipalign.plugins import PluginWarning

SETTINGS = {
    "train": {"steps": 3, "batch_size": 4, "log_every": 1, "averaging": "none"},
    "objective": [{"dpo": {"weight": 0.7, "beta": 0.5}}, {"kto": {"weight": 0.3}}],
}
PLUGIN = """
import clipalign

@clipalign.hookimpl
def register_trackers(register):
    register("diary", "clipalign_diary_target:Diary", summary="Writes.")
    register("shy", "clipalign_diary_target:Shy", summary="Fails.")
"""
TARGET = """
import json
from clipalign import PluginError, Tracker, TrackerOptions

class Diary(Tracker):
    def write(self, *row):
        with open(self.run_dir / "diary.jsonl", "a") as file:
            file.write(json.dumps(row) + "\\\\n")

    def start(self, run_dir, config, step):
        self.run_dir = run_dir
        self.write("start", config["method"], step)

    def log(self, step, metrics):
        self.write("log", step, metrics["loss"])

    def finish(self, summary):
        self.write("finish", summary and summary["steps"])

class Shy(Tracker):
    class Options(TrackerOptions):
        library: bool = True

    def __init__(self, **options):
        super().__init__(**options)
        if not self.options.library:
            raise PluginError("The tracker 'shy' needs courage: pip install courage.")

    def log(self, step, metrics):
        raise ConnectionError("nobody is there")
"""


@pytest.fixture
def folder(tmp_path: Path, make_package, own_cache: Path) -> Path:
    """A folder of drawings, a cache of its own, and two trackers."""
    make_package("clipalign-diary", PLUGIN)
    target = make_package.folder / "clipalign_diary_target.py"
    target.write_text(TARGET.replace("\\\\n", "\\n"))
    make_package.modules.append("clipalign_diary_target")
    for name in ("red", "green", "blue"):
        for size in range(4):
            picture = Image.new("RGB", (64, 64), "white")
            picture.paste(Image.new("RGB", (20 + 8 * size,) * 2, name), (8, 8))
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "photos" / name / f"{size}.png")
    return tmp_path


def diary(run: Path) -> list[list[object]]:
    return [json.loads(line) for line in (run / "diary.jsonl").read_text().splitlines()]


def test_a_sum_trains_and_its_trackers_hear(folder: Path) -> None:
    keys = {"dataset": str(folder / "photos"), **SETTINGS}
    with pytest.warns(PluginWarning) as caught:
        first = clipalign.train(**keys, trackers=["shy", "diary"], output=folder / "first")
    (warning,) = caught  # once, however many lines follow
    assert str(warning.message) == (
        "The tracker 'shy' of clipalign-diary 1.0 failed in log and hears no more of this run: "
        "ConnectionError: nobody is there"
    )
    rows = [json.loads(line) for line in (first.run / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["preference_loss"] == pytest.approx(0.7 * 0.693147 + 0.3, abs=1e-3)
    assert diary(first.run) == [
        ["start", "dpo+kto", 0],
        *(["log", row["step"], row["loss"]] for row in rows),
        ["finish", 3],
    ]

    config = (first.run / "config.yaml").read_text().replace("- shy\n", "")
    (folder / "again.yaml").write_text(config)
    again = clipalign.train(folder / "again.yaml", output=folder / "again")
    name = "open_clip_model.safetensors"
    assert (again.model / name).read_bytes() == (first.model / name).read_bytes()


def test_a_tracker_hears_of_a_stop_and_of_the_resumption(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipalign.training import train as training

    stops = iter([True])
    keys = {"dataset": str(folder / "photos"), "trackers": ["diary"], **SETTINGS}
    with monkeypatch.context() as patch:
        patch.setattr(training._Callbacks, "stop_requested", lambda self: next(stops))
        with pytest.raises(clipalign.Interrupted):
            clipalign.train(**keys, output=folder / "run")
    clipalign.train(resume=folder / "run")
    assert [row[:2] for row in diary(folder / "run")] == [
        ["start", "dpo+kto"],
        ["log", 1],
        ["finish", None],
        ["start", "dpo+kto"],
        ["log", 2],
        ["log", 3],
        ["finish", 3],
    ]
    assert diary(folder / "run")[3][2] == 1


def test_a_tracker_may_stop_the_training_which_is_saved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As early stopping by a rule of one's own does, or a notebook's own interrupt."""
    import clipalign_diary_target as target

    def log(self: object, step: int, metrics: object) -> None:
        raise KeyboardInterrupt

    keys = {"dataset": str(folder / "photos"), "trackers": ["diary"], **SETTINGS}
    with monkeypatch.context() as patch:
        patch.setattr(target.Diary, "log", log)
        with pytest.raises(clipalign.Interrupted, match=r"Stopped after step 1 of 3; saved"):
            clipalign.train(**keys, output=folder / "run")
    assert clipalign.train(resume=folder / "run").steps == 3


def test_a_signal_while_a_tracker_begins_is_not_taken_for_its_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import clipalign_diary_target as target

    def start(self: object, run_dir: Path, config: object, step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(target.Diary, "start", start)
    keys = {"dataset": str(folder / "photos"), "trackers": ["diary"], **SETTINGS}
    with pytest.raises(clipalign.Interrupted, match="SIGINT"):
        clipalign.train(**keys, output=folder / "run")


@pytest.mark.parametrize(
    ("trackers", "error", "words"),
    [
        (["dairy"], clipalign.ConfigError, r"trackers\.0: There is no tracker 'dairy'"),
        ([{"diary": {"page": 1}}], clipalign.ConfigError, "page: unknown key"),
        ([{"shy": {"library": False}}], clipalign.PluginError, "pip install courage"),
    ],
)
def test_a_tracker_that_cannot_begin_is_refused_before_the_run(
    folder: Path, trackers: list[object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        clipalign.train(trackers=trackers, output=folder / "run")
    assert not (folder / "run").exists()
