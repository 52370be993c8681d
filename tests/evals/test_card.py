"""Model cards and `export`: what a stranger reads beside the weights."""

from __future__ import annotations

import functools
import json
import os
import shutil
import types
from pathlib import Path

import huggingface_hub
import pytest
import yaml

import clipalign
from clipalign.errors import ModelError, UsageError
from clipalign.evals.card import card_of, public, refresh_card, run_card
from clipalign.evals.results import (
    Comparison,
    DatasetIdentity,
    MetricValue,
    ModelIdentity,
    SuiteResult,
    write_result,
)
from clipalign.evals.statistics import Interval
from clipalign.training.removal import check_removal

SETTINGS = ["train.steps=1", "train.batch_size=4", "dataset_options={concepts: 10, train_views: 1}"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of one step, and two results: one of its model, one of other weights."""
    output = tmp_path_factory.mktemp("runs") / "apples"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
        clipalign.train(overrides=SETTINGS, output=output, trainable="head")
    sha256 = clipalign.load_model(output).sha256
    write_result(output / "results" / "gender-x-test.json", result(sha256, 0.875))
    write_result(output / "results" / "old.json", result("0" * 64, 0.111))
    return output, sha256


def result(sha256, accuracy):
    def interval(low, high):
        return Interval(low, high, 0.95, "bootstrap-percentile")

    def share(value, **fields):
        return MetricValue(value=value, n=100, unit="share", description="A share.", **fields)

    metrics = {
        "clean_accuracy": share(accuracy, higher_is_better=True, interval=interval(0.8, 0.93)),
        "max_skew": share(0.25, higher_is_better=False),
        "kl_to_reference": MetricValue(value=0.125, n=100, unit="nats", description="KL."),
        "retention_kl_to_reference": MetricValue(value=1e-9, n=100, unit="nats", description="KL."),
        "cosine_to_reference": MetricValue(
            value=1 - 1e-9, n=100, unit="cosine", description="Cosine."
        ),
    }
    worse = {"difference": -0.0625, "interval": interval(-0.1, -0.02)}
    return SuiteResult(
        suite="gender", suite_version=1, created_by="clipalign 0",
        model=ModelIdentity(spec="/home/someone/runs/apples", sha256=sha256, name="apples"),
        against=ModelIdentity(spec="emoji-tiny", sha256="1" * 64, name="emoji-tiny"),
        dataset=DatasetIdentity(
            name="/home/someone/photos", split="test", fingerprint="2" * 64, licence="x", n=100
        ),
        seed=0, metrics=metrics,
        comparisons=[
            Comparison(metric="clean_accuracy", n=100, **worse),
            Comparison(metric="max_skew", n=100, difference=-0.5),
        ],
    )  # fmt: skip


def section(text, title):
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_a_run_brings_its_card_with_its_data(run):
    text = (run[0] / "model" / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["library_name"] == "open_clip"
    assert head["license"] == "mit"  # emoji-tiny's
    data = section(text, "Data")
    manifest = yaml.safe_load((run[0] / "manifest.yaml").read_text())
    assert manifest["content_sha256"] in data
    assert "licence of the images" in data
    assert "Not measured." in section(text, "What was given up")
    assert "do not use this model to decide about people" in section(text, "Bias").lower()
    assert "open_clip.create_model_and_transforms" in section(text, "How to load it")
    assert str(run[0].parent) not in text


def test_what_a_real_run_holds_may_be_removed_with_it(run):
    files = [path for path in run[0].rglob("*") if path.is_file()]
    assert check_removal(run[0]).bytes == sum(path.stat().st_size for path in files)


def test_results_come_with_intervals_costs_and_bias(run):
    output, sha256 = run
    refresh_card(output / "model", sha256)
    text = (output / "model" / "README.md").read_text()
    assert "| clean accuracy | 87.5 % [80.0, 93.0] | -6.2 [-10.0, -2.0] |" in text
    given_up = section(text, "What was given up")
    assert "| clean accuracy | -6.2 [-10.0, -2.0] | yes |" in given_up
    assert "max skew" not in given_up  # it fell, and that is better
    assert "| kl to reference | 0.1250 | – |" in given_up
    assert "retention" not in given_up  # nothing moved there
    assert "cosine" not in given_up
    assert "max skew | 25.0 %" in section(text, "Bias")
    assert "11.1 %" not in text  # of other weights
    assert "/home/someone" not in text


def test_what_somebody_else_wrote_is_left_alone(run, tmp_path):
    output, _ = run
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    shutil.copytree(output / "model", mine)
    refresh_card(mine)
    assert "Written by clipalign" in (mine / "README.md").read_text()
    shutil.copytree(output / "model", theirs)
    (theirs / "README.md").write_text("# A model of ours\n")
    refresh_card(theirs)
    (tmp_path / "link").symlink_to(mine)
    before = (mine / "README.md").read_text() + " "
    (mine / "README.md").write_text(before)
    refresh_card(tmp_path / "link")
    assert (theirs / "README.md").read_text() == "# A model of ours\n"
    assert (mine / "README.md").read_text() == before


def test_a_path_shows_its_last_part_and_a_name_the_whole(tmp_path):
    assert public(str(tmp_path / "secret" / "photos")) == "photos"
    assert public("local-dir:/home/me/model") == "model"
    assert public("hf-hub:org/name") == "hf-hub:org/name"
    assert public("ViT-B-32/openai") == "ViT-B-32/openai"


@pytest.mark.parametrize(("name", "said"), [("none", "none"), ("js", "js (weight=3.0)")])
def test_the_card_of_a_run_without_regulariser_names_no_weight(name, said, tmp_path):
    (tmp_path / "config.yaml").write_text(f"regulariser: {name}\nregulariser_weight: 3.0\n")
    assert run_card(tmp_path).facts["regulariser"] == said


def test_a_model_of_nobody_says_that_nothing_is_known():
    card = card_of("ViT-B-32/openai")
    assert (card.metrics, card.licence) == ([], None)


class Recorder:
    sent: list[dict] = []  # noqa: RUF012

    def create_repo(self, *_, **__):
        pass

    def upload_folder(self, folder_path, repo_id, **_):
        card = (folder_path / "README.md").read_text()
        self.sent.append({"repo": repo_id, "card": card, "names": os.listdir(folder_path)})
        return types.SimpleNamespace(commit_url="https://hub.example/1")


def test_export_writes_a_copy_and_sends_it_only_when_asked(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "sent", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", Recorder)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_" + "a" * 30)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    output, sha256 = run
    done = clipalign.export(output, tmp_path / "copy")
    assert Recorder.sent == []
    assert done.pushed is None
    assert clipalign.load_model(tmp_path / "copy").sha256 == sha256
    done = clipalign.export(output, tmp_path / "copy", push="hf-hub:me/apples", licence="mit")
    assert done.pushed == "https://hub.example/1"
    (sent,) = Recorder.sent
    assert sent["repo"] == "me/apples"
    assert "'hf-hub:me/apples'" in section(sent["card"], "How to load it")
    assert "87.5 % [80.0, 93.0]" in sent["card"]
    assert sorted(sent["names"]) == [
        "README.md", "SHA256SUMS", "open_clip_config.json", "open_clip_model.safetensors"
    ]  # fmt: skip


def test_export_never_overwrites_its_source(run):
    with pytest.raises(UsageError, match="is the model itself"):
        clipalign.export(run[0], run[0] / "model")


def test_what_a_format_cannot_hold_is_refused_before_anything(run, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="a ResNet image tower"):
        clipalign.export(run[0], tmp_path / "out", format="transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE"):
        clipalign.export(run[0], tmp_path / "out", push="hf-hub:me/apples")
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_and_train_refuses_a_format_before_it_trains(command, run, tmp_path):
    done = command("export", str(run[0]), "-o", "copy", "--json")
    assert json.loads(done.stdout)["format"] == "open_clip", done.stderr
    assert (tmp_path / "copy" / "README.md").is_file()
    done = command("train", "--format", "transformers", "-o", "run", "--steps", "1")
    assert done.returncode == ModelError.exit_code
    assert "ResNet image tower" in done.stderr
    assert not (tmp_path / "run").exists()
    for words in (["--format", "onx"], ["--push", "me/apples"], ["--public"]):
        done = command("export", str(run[0]), *words)
        assert done.returncode == UsageError.exit_code
        assert "Traceback" not in done.stderr


def test_a_card_that_a_stop_left_behind_its_results_is_written_later(run, tmp_path):
    output = Path(shutil.copytree(run[0], tmp_path / "apples"))
    shutil.rmtree(output / "results")
    card = output / "model" / "README.md"
    refresh_card(output / "model", run[1])
    unmeasured = card.read_text()
    measure = functools.partial(
        clipalign.evaluate, output, against=None, splits=["test"], only_missing=True,
        dataset_options={"concepts": 10, "views": 1}, dataset="emoji",
    )  # fmt: skip
    assert len(measure()) == 1
    measured = card.read_text()
    assert "attacked accuracy" in measured
    assert "attacked accuracy" not in unmeasured
    card.write_text(unmeasured)
    assert measure() == []
    assert card.read_text() == measured
