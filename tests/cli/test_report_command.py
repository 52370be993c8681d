"""`clipalign report` as it is typed."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from clipalign.cli import report as module
from clipalign.cli.app import run
from clipalign.config import RunConfig
from clipalign.config_text import dump_config
from clipalign.reports.sources import find_sources


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A finished run that logged two steps and was never evaluated."""
    folder = tmp_path / "runs" / "kto"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "open_clip_config.json").write_text("{}")
    (folder / "config.yaml").write_text(dump_config(RunConfig(seed=5)))
    rows = [{"step": step, "loss": 1 / step, "margin": 2.0 * step} for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_newest_run_is_shown_and_the_page_lies_in_it(finished, capsys):
    assert run(["report"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "Report: runs/kto/report.html"
    assert "Training of kto" in out
    assert "█▃▁  1 → 0.333" in out
    assert "Gathering results" in err
    assert "kto was not evaluated" in (finished / "report.html").read_text()


def test_json_is_all_that_is_printed(finished, capsys):
    assert run(["report", "runs/kto", "-o", "page.html", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    assert document["report"] == "page.html"
    assert (document["plots"], document["problems"]) == ([], [])


def test_it_shows_what_eval_measured_on_a_folder(finished, capsys, tmp_path, own_cache):
    from clipalign import evaluate

    for name, colour in (("leaf", "green"), ("ocean", "blue")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (80, 64), colour).save(tmp_path / "photos" / name / "0.png")
    note = {"typographic": {"styles": ["note"]}}
    evaluate("emoji-tiny", dataset="photos", suite_options=note, output="out")
    assert run(["report", "out"]) == 0
    out, err = capsys.readouterr()
    assert "Warning" not in err
    assert "attacked accuracy" in out
    page = (tmp_path / "report.html").read_text()
    assert "2 of 2 attacked images" in page
    assert page.count('<img src="data:image/webp') == 2
    # results that lie in a model's own folder are found by the model's name
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "open_clip_config.json").write_text("{}")
    (tmp_path / "out").rename(tmp_path / "m" / "results")
    (source,) = find_sources(["m"])
    assert (source.name, len(source.results)) == ("m", 1)


def test_a_model_without_results_says_how_to_measure_it(finished, capsys, tmp_path):
    model = tmp_path / "models" / "half"
    model.mkdir(parents=True)
    (model / "open_clip_config.json").write_text("{}")
    assert run(["report", "models/half"]) == 2
    assert "there are no results of it in models/half/results" in capsys.readouterr().err
    (finished / "config.yaml").write_text(dump_config(RunConfig(task="gender")))
    (model / "transform.yaml").write_text("{source: runs/kto, model: emoji-tiny}")
    assert run(["report", "models/half"]) == 2
    said = "clipalign eval models/half --suite gender --against emoji-tiny -o models/half/results"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "There is no finished run in runs/"),
        (["nowhere"], 7, "There is no file or directory nowhere"),
        (["."], 2, "is neither a run"),
        ([".", "--set", "dataset.views=2"], 2, "and none is named"),
        ([".", "--dataset-set", "views=2"], 2, "and none is named"),
        ([".", "--dataset", "emoji", "--set", "views=2"], 2, "must be dataset.KEY=VALUE"),
        ([".", "--scan", "1:0:1"], 2, "holds no value"),
        ([".", "--wall", "-1"], 2, "--wall"),
    ],
)
def test_what_is_wrong_is_said(capsys, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    assert run(["report", *arguments]) == code
    assert words in capsys.readouterr().err


def test_a_mistyped_run_names_the_near_one(capsys, finished):
    assert run(["report", "runs/kot"]) == 7  # as `runs show` and `train --resume`
    assert "Did you mean 'runs/kto'?" in capsys.readouterr().err


def test_open_hands_the_page_to_a_browser(finished, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(module.webbrowser, "open", lambda uri: opened.append(uri) or True)
    assert run(["report", "runs/kto", "--open", "--quiet"]) == 0
    assert opened == [(finished / "report.html").as_uri()]
    monkeypatch.setattr(module.webbrowser, "open", lambda uri: False)
    assert run(["report", "runs/kto", "--open"]) == 0
    assert "There is no browser here. Open runs/kto/report.html in one." in capsys.readouterr().err


def test_without_jinja2_it_says_what_to_install(finished, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    assert run(["report", "runs/kto"]) == 2
    assert "pip install 'clipalign[report]'" in capsys.readouterr().err


def test_help_shows_examples(capsys):
    run(["report", "--help"])
    text = capsys.readouterr().out
    assert "clipalign report runs/dpo runs/kto -o both.html --plots figures/" in text
