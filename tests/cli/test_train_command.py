"""`clipalign train` as it is typed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

import clipalign.models
from clipalign.cli.app import run
from clipalign.config import RunConfig
from clipalign.config_text import dump_config
from clipalign.training.rundir import RunDirectory

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test in a folder of its own, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIPALIGN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def people(tmp_path):
    """A table of women and men: path and gender, as photographs of faces have them, no label."""
    folder = tmp_path / "people"
    folder.mkdir()
    lines = ["path,gender,age"]
    for i in range(8):
        gender = ("woman", "man")[i % 2]
        Image.effect_noise((80, 80), 20 + i).convert("RGB").save(folder / f"{i}.png")
        lines.append(f"{i}.png,{gender},{20 + i}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder / "index.csv"


def test_a_concept_needs_no_label(people, capsys):
    code = run(
        ["train", "--task", "gender", "--dataset", str(people), "--steps", "1", "-o", "runs/g",
         "--set", "task_options.balance=false", "--no-eval"]
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    assert run(["prepare", "gender", "--dataset", str(people), "-o", "prefs"]) == 0
    (result,) = clipalign.evaluate("runs/g", suites=["gender"], dataset=people)
    assert result.dataset.n == 8
    assert run(["transform", "runs/g", "--t", "auto", "--epsilon", "1", "-o", "out"]) == 0


@pytest.mark.parametrize("column", ["stage", pytest.param("age", marks=pytest.mark.slow)])
def test_the_readmes_concept_is_trained_and_measured_by(column, people, monkeypatch, capsys):
    monkeypatch.setattr("clipalign.evals.evaluate.with_retention", lambda result, _: result)
    [text] = re.findall(r"^```yaml\n(name: .*?)^```$", README.read_text(), re.M | re.S)
    Path("age.yaml").write_text(text)
    rows = [f"{i}.png,{('old', 'young')[i % 2]}" for i in range(8)]
    people.write_text("\n".join([f"path,{column}", *rows]) + "\n")
    train = ["train", "--task", "concept", "--set", "task.concept=age.yaml", "--steps", "1"]
    other = [] if column == "age" else ["--set", f"task.attribute={column}"]
    assert run([*train, *other, "--dataset", str(people), "-o", "runs/c", "--json"]) == 0
    (after,) = json.loads(capsys.readouterr().out)["results"]
    assert after["suite"] == "gender"
    assert after["options"]["values"] == ["old", "young"]
    assert after["dataset"]["n"] == 8
    assert run(["eval", "runs/c", "--set", "resamples=200", "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)["results"]
    assert again["options"]["resamples"] == 200
    assert [again[key] for key in ("prompts", "against")] == [
        after[key] for key in ("prompts", "against")
    ]
    values = {name: metric["value"] for name, metric in after["metrics"].items()}
    assert {name: metric["value"] for name, metric in again["metrics"].items()} == values


def test_written_words_need_one_and_say_which_column_may_be_it(people, capsys):
    assert run(["train", "--dataset", str(people), "-o", "runs/t"]) == 5
    said = capsys.readouterr().err
    assert "has no classes" in said
    assert "Its columns are gender, age: name the one of the class" in said
    assert "option label_column" in said
    with pytest.raises(clipalign.DataError, match=r"has a label.*option label_column"):
        clipalign.evaluate(dataset=people)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--model", "emoji-tinny"], 6, "Did you mean 'emoji-tiny'"),
        (["--model", "runs/nope"], 6, "runs/nope"),
        (["--model", "local-dir:nope"], 6, "There is no directory"),
        (["--device", "foo"], 2, "The device 'foo' cannot be used"),
        (["-o", "runs/a"], 7, "already holds a run"),
        (["-o", "runs/a/config.yaml"], 7, "is a file"),
        (["--set", "train.averaging_options.beta=1"], 3, "train.averaging_options.beta"),
        (["--trainable", "last:99"], 2, "more blocks than emoji-tiny has"),
    ],
)
def test_what_is_wrong_is_refused_before_any_image_is_read(
    arguments, code, words, tmp_path, monkeypatch, capsys
):
    def never(*_, **__):
        raise AssertionError("too late")

    monkeypatch.setattr("clipalign.training.train.made", never)
    if "--trainable" not in arguments:
        monkeypatch.setattr("clipalign.training.train.load_model", never)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "config.yaml").touch()
    (tmp_path / "runs" / "a" / "metrics.jsonl").write_text('{"step": 1}\n')  # it took a step
    before = sorted(tmp_path.rglob("*"))
    assert run(["train", *arguments]) == code
    assert words in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A run that has finished and moved nothing, of photographs of two classes; retention is left
    out."""
    for name, colour in (("leaf", "green"), ("ocean", "blue")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (80, 64), colour).save(tmp_path / "photos" / name / "0.png")
    folder = tmp_path / "runs" / "a"
    shutil.copytree(Path(clipalign.models.__file__).parent / "emoji_tiny", folder / "model")
    (folder / "config.yaml").write_text(dump_config(RunConfig(dataset="photos")))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    RunDirectory(folder).seal()
    monkeypatch.setattr("clipalign.evals.evaluate.with_retention", lambda result, _: result)
    return folder


def test_a_finished_run_is_measured_where_it_was_not_and_then_left_alone(
    finished, monkeypatch, capsys
):
    def never(*_, **__):
        raise AssertionError("done again")

    monkeypatch.setattr("clipalign.training.train.train", never)
    assert run(["train", "--resume", "runs/a"]) == 0
    assert "attacked accuracy" in capsys.readouterr().out
    (result,) = (finished / "results").glob("*.json")
    monkeypatch.setattr("clipalign.evals.evaluate.load_model", never)
    assert run(["train", "--resume", "runs/a"]) == 0
    assert capsys.readouterr().out == (
        "runs/a has finished; its model is runs/a/model, its results are in runs/a/results.\n"
    )
    result.unlink()
    assert run(["train", "--resume", "runs/a", "--no-eval", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["finished"] is True
    assert not result.exists()


def test_a_run_whose_model_was_never_sealed_or_is_damaged_has_not_finished(finished):
    from clipalign.cli.train import _is_over
    from clipalign.files import SUMS, write_sums

    directory = RunDirectory(finished)
    assert _is_over(directory)
    write_sums(directory.model, ["open_clip_config.json"])
    (directory.model / "open_clip_config.json").write_text("{}")
    assert not _is_over(directory)
    (finished / SUMS).unlink()
    assert not directory.complete
