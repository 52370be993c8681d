"""`clipalign demo`: every step is done once, and a stopped walk goes on."""

from __future__ import annotations

import json

import pytest

from clipalign.cli import demo as module
from clipalign.cli.app import run
from clipalign.cli.console import Console
from clipalign.config import load_config
from clipalign.errors import Interrupted, RunError
from clipalign.training.defaults import resolved


@pytest.fixture
def walk(tmp_path):
    return module._Walk(tmp_path / "demo", True, None, Console(quiet=True))


@pytest.fixture
def trainings(monkeypatch):
    """What training is asked to do, in place of training."""
    asked = []
    monkeypatch.setattr("clipalign.training.train.train", lambda **keys: asked.append(keys))
    return asked


def half_done(walk, task, finished):
    run = walk.folder / task
    run.mkdir(parents=True)
    from clipalign.config_text import dump_config

    config = resolved(load_config(None, (), output=run, **walk.keys(task)))
    (run / "config.yaml").write_text(dump_config(config))
    if finished:
        (run / "model").mkdir()
        (run / "model" / "open_clip_config.json").write_text("{}")
    return run


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("task", ["typographic", "gender"])
def test_the_settings_of_every_run_are_valid(tmp_path, task, fast):
    keys = module._Walk(tmp_path, fast, None, Console()).keys(task)
    config = load_config(None, (), check_options=True, **keys)
    assert (config.task, config.method) == (task, "kto")
    if not fast:  # the defaults, which is what is shown
        assert config == load_config(None, (), task=task, method="kto")
    assert config.trainable == {"typographic": "image-encoder", "gender": "head"}[task]


def test_a_first_walk_trains(walk, trainings):
    module._trained(walk, walk.folder / "gender", "gender")
    assert trainings[0]["output"] == walk.folder / "gender"
    assert "resume" not in trainings[0]


def test_a_stopped_training_goes_on(walk, trainings):
    run = half_done(walk, "gender", finished=False)
    module._trained(walk, run, "gender")
    assert [call.get("resume") for call in trainings] == [run]


def test_what_is_trained_is_not_trained_again(walk, trainings):
    module._trained(walk, half_done(walk, "gender", finished=True), "gender")
    assert trainings == []


def test_a_run_of_other_settings_is_left_alone(walk, trainings):
    run = half_done(walk, "typographic", finished=True)
    whole = module._Walk(walk.folder, False, None, walk.out)
    with pytest.raises(RunError, match="other settings than this demo's"):
        module._trained(whole, run, "typographic")


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys, tmp_path):
    def stopped(**keys):
        raise Interrupted("Stopped by SIGINT.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clipalign.training.train.train", stopped)
    assert run(["demo", "--fast", "-o", "here"]) == 130
    out, err = capsys.readouterr()
    assert "1 of 4. A word on the picture" in out
    assert "Go on with: clipalign demo -o here --fast" in err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_short_form_walks_all_the_way_and_the_second_walk_is_short(
    tmp_path, monkeypatch, capsys, own_cache
):
    monkeypatch.chdir(tmp_path)
    assert run(["demo", "--fast", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["report"] == "demo-fast/report.html"
    assert document["problems"] == []
    assert document["results"] == 5  # three typographic splits, gender, and neutral
    assert document["neutral"].startswith("t* = ")
    page = (tmp_path / "demo-fast" / "report.html").read_bytes()

    monkeypatch.setattr("clipalign.training.train.train", None)  # nothing is left to train
    monkeypatch.setattr("clipalign.evals.evaluate.evaluate", None)
    assert run(["demo", "--fast"]) == 0
    assert capsys.readouterr().out.count(" of 4. ") == 4
    assert (tmp_path / "demo-fast" / "report.html").read_bytes() == page
