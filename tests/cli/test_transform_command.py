"""`clipalign transform` as it is typed."""

from __future__ import annotations

import json

import pytest

from clipalign.config import RunConfig
from clipalign.config_text import dump_config
from clipalign.reports.sources import find_sources


@pytest.fixture
def run(tmp_path):
    """A run of the embedded model whose head stretched some directions and shrank others."""
    import torch

    from clipalign.models.linear_map import LinearMap
    from clipalign.models.load import load_model

    model = load_model("emoji-tiny")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(model.embed_dim, model.embed_dim, generator=generator)
    linear = LinearMap(torch.eye(model.embed_dim) + 0.4 * noise / model.embed_dim**0.5)
    folder = tmp_path / "runs" / "gender"
    folder.mkdir(parents=True)
    config = RunConfig(task="gender", dataset="emoji-people", trainable="head")
    (folder / "config.yaml").write_text(dump_config(config))
    linear.save(folder / "linear_map.safetensors", model_sha256=model.sha256)
    return folder


@pytest.fixture
def people(tmp_path):
    """A small table of women and men of six occupations and activities."""
    from clipalign.datasets.emoji_people import EmojiPeople

    source = EmojiPeople()
    folder = tmp_path / "people"
    folder.mkdir()
    lines = ["image,split,gender,activity,kind"]
    some = [e for e in source.examples("validation") if e.label in source.classnames[:6]]
    for e in some:
        source.image(e).save(folder / f"{e.key}.png")
        a = e.attributes
        lines.append(f"{e.key}.png,validation,{a['gender']},{a['activity']},{a['kind']}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_last_line_is_the_open_clip_line(command, run):
    done = command("transform", "runs/gender", "--t", "-0.5", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (
        "model, _, preprocess = open_clip.create_model_and_transforms('local-dir:out')"
    )
    assert "t: -0.5" in (run.parents[1] / "out" / "transform.yaml").read_text()


def test_neutral_with_its_scan_as_one_json_document(command, run, people, tmp_path):
    done = command(
        "transform", "runs/gender", "--t", "auto", "--scan", "-1:1:0.5", "--epsilon", "0.5",
        "--dataset", "people/index.csv",
        "-o", "out", "--json", "--quiet",
        env={"CLIPALIGN_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" or "font" in done.stderr
    document = json.loads(done.stdout)
    neutral = document["transform"]["neutral"]
    assert document["transform"]["maps"][0]["t"] == neutral["t"]
    assert document["statement"].startswith("t* = ")
    assert [row["t"] for row in document["scan"]["rows"]] == [-1.0, -0.5, 0.0, 0.5, 1.0]
    for name in ("scan.csv", "scan.json", "transform.yaml", "open_clip_config.json"):
        assert (tmp_path / "out" / name).is_file()
    # --scan alone makes no model, and prints the table
    done = command(
        "transform", "runs/gender", "--scan", "0:1:1", "--dataset", "people/index.csv",
        "--top", "4",
        env={"CLIPALIGN_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split("  ")[0] == "T"
    assert "WOMAN IN TOP 4" in done.stdout
    assert "Scan:  models/gender-scan/scan.csv" in done.stdout
    assert "Report: clipalign report models/gender-scan" in done.stdout
    (shown,) = find_sources([tmp_path / "models" / "gender-scan"])
    assert [row["t"] for row in shown.scan["rows"]] == [0.0, 1.0]
    kept = json.loads((tmp_path / "models" / "gender-scan" / "scan.json").read_text())
    assert any(json.loads(p.read_text()) == kept for p in tmp_path.rglob("gender/scan.json"))
    assert not (tmp_path / "models" / "gender-scan" / "open_clip_config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Say which t: --t 0.4, --t auto"),
        (("--t", "half"), "--t takes a number, such as 0.4, or auto; not 'half'"),
        (("--t", "nan"), "--t takes a number"),
        (("--t", "inf"), "--t takes a number"),
        (("--t", "auto", "--range", "1:0"), "--range takes a low and a high end"),
        (("--t", "1", "--after", "runs/b"), "--after takes RUN=T"),
        (("--t", "1", "--after", "b=1", "--after", "b=2"), "names b twice"),
        (("--method", "interpolate", "--scan", "0:1:0.1"), "goes with --method power"),
        (("--method", "pover", "--t", "1"), "Did you mean 'power'"),
        (("--scan", "1:0"), "A scan is A:B:STEP"),
        (("--scan", "1:0:0.1"), "holds no value"),
        (("--t", "auto", "--split", "test"), "nothing is fitted on a split of choice"),
        (("--t", "0.4", "--epsilon", "0.9"), "--epsilon says how --t auto finds t"),
        (("--t", "0.4", "--range", "0:2"), "--range says how --t auto finds t"),
        (("--t", "0.4", "--set", "resamples=200"), "--set resamples says how --t auto finds t"),
        (("--t", "auto", "--top", "3"), "--top says how many images --scan retrieves"),
        (("--scan", "0:1:1", "--epsilon", "0.9"), "--epsilon would change nothing: add --t"),
        (("--scan", "0:1:1", "--format", "onnx"), "--scan alone makes no model"),
        (("--t", "1", "--set", "t=auto"), "--set t is also given by its own flag"),
        (("--t", "1", "--set", "seed"), "must be KEY=VALUE"),
        (("--t", "1", "--set", "dataset.label_column=null"), "and none is named"),
    ],
)
def test_wrong_usage_is_said_in_words(arguments, message, capsys):
    from clipalign.cli.app import run as run_command

    assert run_command(["transform", "runs/gender", *arguments]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert message in said
    assert "Loading" not in said  # torch takes seconds: what needs none of it is refused before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--t", "1", "--alpha", "0.5"), "alpha: unknown key"),
        (("--method", "project", "--t", "0.4"), "t: unknown key"),
    ],
)
def test_options_of_another_method_are_named(arguments, message, capsys):
    from clipalign.cli.app import run as run_command

    assert run_command(["transform", "emoji-tiny", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
