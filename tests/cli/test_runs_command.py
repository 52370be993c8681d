"""`clipalign runs` reads run directories, whole or half-written."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from clipalign.cli.app import run as run_command
from clipalign.cli.runs import find_runs, last_metrics
from clipalign.config import RunConfig
from clipalign.config_text import dump_config
from clipalign.evals.results import DatasetIdentity, ModelIdentity, SuiteResult, write_result


@pytest.fixture
def run(tmp_path):
    """A finished run, as training leaves it."""
    folder = tmp_path / "runs" / "typographic-kto-2"
    for part in ("model", "results"):
        (folder / part).mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(RunConfig(seed=5)))
    (folder / "metrics.jsonl").write_text('{"step": 10, "loss": 0.5}\n{"step": 20, "loss": 0.25}\n')
    (folder / "model" / "open_clip_config.json").write_text("{}")
    (folder / "results" / "typographic.json").write_text('{"n": 3}')
    return folder


def test_list_shows_each_run_in_natural_order(command, run):
    for number in (10, 9):
        other = run.parent / f"typographic-kto-{number}"
        other.mkdir()
        (other / "config.yaml").write_text("method: dpo\n")
    (run.parent / "not-a-run").mkdir()
    rows = json.loads(command("runs", "list", "--json").stdout)
    assert [r["run"] for r in rows] == [f"runs/typographic-kto-{n}" for n in (2, 9, 10)]
    assert (rows[0]["state"], rows[0]["step"], rows[0]["method"]) == ("finished", 20, "kto")
    assert (rows[1]["state"], rows[1]["step"], rows[1]["method"]) == ("unfinished", None, "dpo")
    assert "typographic-kto-10" in command("runs", "list").stdout


def test_a_folder_without_runs_says_so(command, tmp_path):
    assert command("runs", "list").stdout == "There are no runs directly in runs.\n"
    assert find_runs(tmp_path / "nowhere") == []


def test_a_broken_run_does_not_hide_the_others(command, run):
    broken = run.parent / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text("a: [")
    rows = json.loads(command("runs", "list", "--json").stdout)
    assert rows[0]["state"].startswith("unreadable")
    assert rows[1]["state"] == "finished"


def test_show_tells_configuration_progress_and_how_to_load_it(command, run):
    document = json.loads(command("runs", "show", "runs/typographic-kto-2", "--json").stdout)
    assert document["config"]["seed"] == 5
    assert document["metrics"] == {"step": 20, "loss": 0.25}
    assert document["results"] == {"typographic": {"n": 3}}
    text = command("runs", "show", "runs/typographic-kto-2").stdout
    assert 'create_model_and_transforms("local-dir:runs/typographic-kto-2/model")' in text


def test_show_writes_values_as_yaml_does_and_a_result_a_line(run, monkeypatch, capsys):
    config = RunConfig(task_options={"wrong_classes": None}, dataset_options={"concepts": 10})
    (run / "config.yaml").write_text(dump_config(config))
    (run / "results" / "gender.json").write_text("{}")
    monkeypatch.chdir(run.parents[1])
    assert run_command(["runs", "show", "runs/typographic-kto-2"]) == 0
    text = capsys.readouterr().out
    assert "{concepts: 10}" in text
    assert "{wrong_classes: null}" in text
    assert not re.search(r"\b(None|True|False)\b", text)
    assert "Results:\n  results/gender.json\n  results/typographic.json\n" in text


def measure(run):
    """Give the run a result against its reference: an aim, a cost, and what is neither."""

    def metric(value, low, high):
        return {
            "value": value,
            "n": 50,
            "unit": "share",
            "description": "",
            "interval": {"low": low, "high": high, "level": 0.95, "method": "bootstrap"},
        }

    def change(name, difference, low, high):
        return {
            "metric": name,
            "n": 50,
            "difference": difference,
            "p_value": 0.0004,
            "test": "mcnemar-exact",
            "interval": {"low": low, "high": high, "level": 0.95, "method": "bootstrap"},
        }

    result = SuiteResult(
        suite="typographic",
        suite_version=1,
        seed=0,
        classnames=["fox", "owl"],
        model=ModelIdentity(spec="x", sha256="0" * 64, name="typographic-kto-2"),
        against=ModelIdentity(spec="y", sha256="1" * 64, name="emoji-tiny"),
        dataset=DatasetIdentity(name="emoji", split="test", fingerprint="f", licence="", n=50),
        metrics={
            "attacked_accuracy": metric(0.72, 0.6, 0.836),
            "attacked_accuracy_p90": metric(0.9, 0.8, 0.95),
            "clean_accuracy": metric(0.8, 0.656, 0.92),
        },
        comparisons=[
            change("attacked_accuracy", 0.508, 0.408, 0.6),
            change("clean_accuracy", -0.064, -0.128, -0.016),
        ],
    )
    write_result(run / "results" / "typographic-emoji-test.json", result)


def test_show_has_aims_and_costs_of_each_result_with_intervals_and_differences(command, run):
    (run / "results" / "typographic.json").unlink()
    measure(run)
    text = command("runs", "show", "runs/typographic-kto-2").stdout
    assert "typographic on emoji, split test: 50 images" in text
    aim = "attacked accuracy  21.2 %  72.0 % [60.0, 83.6]  +50.8 [+40.8, +60.0]  <0.001"
    assert aim in re.sub(" {2,}", "  ", text)
    cost = "clean accuracy  86.4 %  80.0 % [65.6, 92.0]  -6.4 [-12.8, -1.6]  <0.001"
    assert cost in re.sub(" {2,}", "  ", text)
    assert "p90" not in text
    assert "Results:\n  results/typographic-emoji-test.json\n" in text

    shown = json.loads(command("runs", "show", "runs/typographic-kto-2", "--json").stdout)
    found = shown["headline"]["typographic-emoji-test"]
    assert list(found["metrics"]) == ["attacked_accuracy", "clean_accuracy"]
    assert found["metrics"]["attacked_accuracy"]["interval"]["low"] == 0.6
    assert [c["difference"] for c in found["comparisons"]] == [0.508, -0.064]
    assert "attacked_accuracy_p90" in shown["results"]["typographic-emoji-test"]["metrics"]
    assert shown["refused"] == {}


def test_show_says_which_result_it_cannot_read_and_shows_the_others(command, run):
    measure(run)
    text = " ".join(command("runs", "show", "runs/typographic-kto-2").stdout.split())
    assert "attacked accuracy" in text
    assert "results/typographic.json is not shown: " in text
    assert "has no results schema version" in text
    shown = json.loads(command("runs", "show", "runs/typographic-kto-2", "--json").stdout)
    assert list(shown["headline"]) == ["typographic-emoji-test"]
    assert list(shown["refused"]) == ["typographic"]


def test_show_of_results_loads_no_torch(run):
    measure(run)
    code = (
        "import sys, io, contextlib\n"
        "from clipalign.cli.app import run\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        f"    assert run(['runs', 'show', {str(run)!r}]) == 0\n"
        "assert 'attacked accuracy' in out.getvalue()\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert not {"torch", "open_clip"} & set(loaded)


def test_show_of_an_unfinished_run_says_how_to_go_on(command, run):
    (run / "model" / "open_clip_config.json").unlink()
    text = command("runs", "show", "runs/typographic-kto-2").stdout
    assert "clipalign train --resume runs/typographic-kto-2" in text


def test_show_of_something_else_names_the_near_runs(command, run):
    done = command("runs", "show", "runs/typographic-kto-3")
    assert done.returncode == 7
    assert "Did you mean 'runs/typographic-kto-2'?" in done.stderr


def test_a_line_that_a_kill_cut_short_is_passed_over(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "lo')
    assert last_metrics(run) == {"step": 20, "loss": 0.25}


def test_a_damaged_result_is_named(command, run):
    (run / "results" / "typographic.json").write_text("{")
    done = command("runs", "show", "runs/typographic-kto-2")
    assert done.returncode == 7
    assert "typographic.json is not a result file" in done.stderr
