"""`clipalign eval` as a user types it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from PIL import Image

import clipalign.models
from clipalign.cli.app import run
from clipalign.cli.eval import _options
from clipalign.config import RunConfig
from clipalign.config_text import dump_config
from clipalign.errors import UsageError
from clipalign.evals.results import SuiteResult, read_result

EMBEDDED = Path(clipalign.models.__file__).parent / "emoji_tiny"
SMALL = ("--dataset", "photos", "--set", "styles=[note]")


@pytest.fixture
def finished(tmp_path):
    """A finished run that changed nothing, and an unfinished one that is newer."""
    run, other = tmp_path / "runs" / "typographic-kto-1", tmp_path / "runs" / "typographic-kto-2"
    for folder in (run, other):
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(dump_config(RunConfig()))
    (run / "model").symlink_to(EMBEDDED)
    return run


@pytest.fixture
def evaluate(command, tmp_path):
    """Run `clipalign eval` with a cache of its own, beside a folder of photographs."""
    for name, colour in (("leaf", "green"), ("ocean", "blue"), ("stone", "grey")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            image = Image.new("RGB", (80, 64 + number), colour)
            image.save(tmp_path / "photos" / name / f"{number}.png")
    (tmp_path / "photos" / "leaf" / "broken.png").write_bytes(b"not an image")
    return lambda *arguments: command(
        "eval", *arguments, env={"CLIPALIGN_CACHE": str(tmp_path / "cache")}
    )


def test_without_a_model_the_newest_run_stands_beside_the_default_model(evaluate, finished):
    done = evaluate(*SMALL)
    assert done.returncode == 0, done.stderr
    assert "The newest run is runs/typographic-kto-1." in done.stderr
    assert "Loading torch and open_clip" in done.stderr
    assert "typographic-kto-1 against emoji-tiny." in " ".join(done.stdout.split())
    assert "Warning: 1 of 7 images could not be used" in done.stdout
    assert done.stdout.count("broken.png") == 1
    for label in ("clean accuracy", "attacked accuracy", "attack success rate", "KL to reference"):
        assert label in done.stdout
    name = "typographic-folder-photos-train.json"
    path = finished / "results" / name
    assert f"Results: runs/typographic-kto-1/results/{name}" in done.stdout
    assert done.stdout.splitlines()[-1] == "Report: clipalign report runs/typographic-kto-1"
    # nothing was trained, so nothing may differ
    result = read_result(path)
    assert {c.difference for c in result.comparisons} == {0.0}
    assert result.metrics["kl_to_reference"].value == 0.0


def test_without_a_run_the_default_model_stands_alone_and_json_is_all_that_is_printed(evaluate):
    done = evaluate(*SMALL, "--json", "--quiet", "-o", "results")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    document = json.loads(done.stdout)
    (result,) = map(SuiteResult.model_validate, document["results"])
    assert result.model.spec == "emoji-tiny"
    assert result.against is None
    assert result.dataset.n == result.metrics["clean_accuracy"].n == 6
    assert document["files"] == ["results/typographic-folder-photos-train.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--suite", "typografic"], 2, "Did you mean 'typographic'?"),
        (["nosuchmodel"], 6, "Unknown model 'nosuchmodel'"),
        (["emoji-tiny", "--against", "./nowhere"], 6, "no file or directory ./nowhere"),
        (["emoji-tiny", "--set", "styles"], 2, "must be KEY=VALUE"),
        (["emoji-tiny", "--set", "gender.k=3"], 2, "no suite 'gender'"),
        (["--batch-size", "0"], 2, "Invalid value for '--batch-size'"),
    ],
)
def test_what_is_mistyped_fails_before_torch_is_loaded(evaluate, arguments, code, words):
    done = evaluate(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Loading torch" not in done.stderr


def test_help_shows_examples(evaluate):
    text = evaluate("--help").stdout
    assert "clipalign eval runs/dpo runs/kto" in text
    assert "--against" in text


def test_settings_go_to_the_suite_the_dataset_or_the_one_that_is_named():
    settings = ["styles=[note]", "dataset.views=2", "typographic.resamples=500"]
    assert _options(settings, ["typographic"]) == {
        "dataset": {"views": 2},
        "typographic": {"styles": ["note"], "resamples": 500},
    }


def test_a_setting_of_no_suite_in_particular_is_refused_where_there_are_several(monkeypatch):
    class Anything:
        def entry(self, name):
            return name

    monkeypatch.setattr("clipalign.cli.eval.registry", lambda kind: Anything())
    with pytest.raises(UsageError, match=r"such as typographic\.k=3"):
        _options(["k=3"], ["typographic", "gender"])
    assert _options(["gender.k=3"], ["typographic", "gender"])["gender"] == {"k": 3}


@pytest.mark.parametrize(
    ("flags", "advice"), [([], "the same command goes on from there"), (["--no-cache"], "")]
)
def test_sigterm_ends_it_with_130_and_says_what_is_kept(monkeypatch, capsys, flags, advice):
    def interrupted(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("clipalign.evals.evaluate.evaluate", interrupted)
    assert run(["eval", "emoji-tiny", *flags]) == 130
    message = capsys.readouterr().err
    assert "Stopped by SIGTERM." in message
    assert advice in message
    assert bool(advice) == ("kept" in message)
