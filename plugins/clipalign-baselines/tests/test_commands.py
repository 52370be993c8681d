"""The rivals as they are typed: `clipalign transform`, and `clipalign eval` of what came of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from clipalign.cli.app import run
from clipalign.config import load_config
from clipalign.options import options_model
from clipalign.plugins import registry

TYPOGRAPHIC = {
    "defense-prefix": ("--set", "epochs=1"),
    "orthogonal-projection": ("--set", "epochs=1"),
    "head-ablation": (),
}
CONCEPT = {"leace": (), "clip-clip": ()}


def slow_but(quick, methods):
    return [m if m == quick else pytest.param(m, marks=pytest.mark.slow) for m in methods]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", slow_but("defense-prefix", TYPOGRAPHIC))
def test_a_rival_of_the_typographic_task_is_made_and_measured(
    method, animals, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    options = ["--dataset", str(animals), "-o", "out", "-q", *TYPOGRAPHIC[method]]
    made = run(["transform", "emoji-tiny", "--method", method, *options])
    printed = capsys.readouterr()
    assert made == 0, printed.err
    assert printed.out.splitlines()[-1].endswith("('local-dir:out')")
    record = yaml.safe_load((tmp_path / "out" / "transform.yaml").read_text())
    assert (record["method"], record["source"]) == (method, "emoji-tiny")
    suite = ["--suite", "typographic", "--dataset", str(animals), "--split", "validation"]
    fast = ["--set", "resamples=100", "--set", "styles=[note]"]
    assert run(["eval", "out", "--against", "emoji-tiny", *suite, *fast, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["metrics"]["clean_accuracy"]["n"] > 0
    assert result["metrics"]["kl_to_reference"]["value"] >= 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", CONCEPT)
def test_a_rival_of_the_concept_task_is_made_and_measured(
    method, people, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    data = ["--dataset", str(people), "--set", "dataset.label_column=null"]
    made = run(["transform", "emoji-tiny", "--method", method, *data, "-o", "out", "-q"])
    printed = capsys.readouterr()
    assert made == 0, printed.err
    assert "gender" in printed.out
    fast = ["--set", "resamples=100", "--set", "searches=100"]
    suite = ["--suite", "gender", *data, "--split", "validation"]
    assert run(["eval", "out", "--against", "emoji-tiny", *suite, *fast, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    moved = {row["metric"]: row["difference"] for row in result["comparisons"]}
    assert result["metrics"]["kl_to_reference"]["value"] > 0
    if method == "leace":  # fitted to these very images; dropping dimensions promises nothing
        assert moved["gender_accuracy"] < 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--method", "leace", "--task", "typographic"), 2, "has no concept"),
        (("--method", "leace", "--set", "sides=left"), 2, "sides"),
        (("--method", "orthogonal-projection", "--set", "k=1000"), 2, "more than the 128"),
        (("--method", "clip-clip", "--set", "mm=5"), 2, "Did you mean 'm'"),
        (("--method", "head-ablatoin"), 2, "Did you mean 'head-ablation'"),
    ],
)
def test_wrong_inputs_end_in_one_message(arguments, code, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["transform", "emoji-tiny", *arguments, "-q"]) == code
    printed = capsys.readouterr().err
    assert words in printed
    assert "Traceback" not in printed


def test_every_option_is_documented_and_every_recipe_validates():
    transforms = registry("transforms")
    mine = [n for n in transforms.names() if transforms.entry(n).package == "clipalign-baselines"]
    assert mine == [*TYPOGRAPHIC, *CONCEPT]
    for name in mine:
        fields = options_model(transforms.load(name)).model_fields
        assert all(field.description for field in fields.values()), name
    recipes = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
    assert [load_config(path, check_options=True).method for path in recipes] == [
        "cross-entropy"
    ] * 2
