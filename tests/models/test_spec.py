from __future__ import annotations

import subprocess
import sys

import pytest

from clipalign.errors import ModelError
from clipalign.models.spec import matching_architecture, parse_model_spec


def refused(spec) -> str:
    with pytest.raises(ModelError) as refusal:
        parse_model_spec(spec)
    return str(refusal.value)


def test_reading_a_spec_needs_neither_torch_nor_open_clip():
    code = (
        "from clipalign.models.spec import parse_model_spec as p\n"
        "from clipalign.models.trainable import parse_trainable\n"
        "p('emoji-tiny'); p('ViT-B-16/openai'); p('hf-hub:a/b'); parse_trainable('last:2')\n"
        "import sys; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert not {"torch", "open_clip"} & set(loaded.stdout.split())


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("emoji-tiny", "embedded", "emoji-tiny"),
        ("ViT-B-16/laion2b_s34b_b88k", "pretrained", "ViT-B-16/laion2b_s34b_b88k"),
        ("hf-hub:laion/CLIP-ViT-B-32", "hub", "laion/CLIP-ViT-B-32"),
        ("random:RN50", "random", "random:RN50"),
    ],
)
def test_kinds_that_are_not_on_the_disk(text, kind, name):
    spec = parse_model_spec(text)
    assert (spec.kind, spec.name, str(spec)) == (kind, name, text)


def test_a_tag_may_itself_hold_no_slash_but_the_name_and_the_tag_come_apart():
    spec = parse_model_spec("ViT-L-14/datacomp_xl_s13b_b90k")
    assert (spec.architecture, spec.tag) == ("ViT-L-14", "datacomp_xl_s13b_b90k")


@pytest.fixture
def run(tmp_path):
    """A finished run: config.yaml and model/open_clip_config.json."""
    model = tmp_path / "gender-kto" / "model"
    model.mkdir(parents=True)
    (model / "open_clip_config.json").write_text("{}")
    (model.parent / "config.yaml").write_text("model: emoji-tiny\n")
    return model.parent


def test_a_run_its_model_and_its_local_dir_are_one_model_under_one_name(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    for text in (str(run), f"local-dir:{run}/model", "gender-kto", f"{run}/model/", "./gender-kto"):
        spec = parse_model_spec(text)
        assert (spec.kind, spec.name, spec.path) == ("directory", "gender-kto", run / "model")
    assert parse_model_spec(run).path == run / "model"  # a Path does as well


def test_what_is_on_the_disk_comes_before_what_open_clip_knows(run, monkeypatch):
    run.rename(run.with_name("RN50"))
    monkeypatch.chdir(run.parent)
    assert parse_model_spec("RN50").kind == "directory"


def test_a_run_without_a_model_says_how_to_go_on(run):
    (run / "model" / "open_clip_config.json").unlink()
    (run / "model").rmdir()
    assert f"clipalign train --resume {run}" in refused(run)


def test_a_directory_that_is_no_model_says_what_is_missing(tmp_path):
    assert "open_clip_config.json" in refused(tmp_path)


def test_a_checkpoint_file_is_safetensors(tmp_path):
    file = tmp_path / "best.safetensors"
    file.touch()
    spec = parse_model_spec(file)
    assert (spec.kind, spec.name, spec.path) == ("file", "best", file)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".pkl", ".ckpt", ".PTH"])
def test_pickles_are_refused_unread(tmp_path, suffix):
    file = tmp_path / f"model{suffix}"
    file.mkdir() if suffix == ".PTH" else file.write_bytes(b"cos\nsystem\n")
    if suffix == ".PTH":
        assert "is not a model" in refused(file)  # a directory with an odd name is no pickle
    else:
        words = refused(file)
        assert "pickled" in words
        assert "not read" in words


def test_other_files_are_no_models(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert "not a .safetensors checkpoint" in refused(tmp_path / "notes.txt")


@pytest.mark.parametrize("text", ["./nowhere", "/no/where", "a/b/c", "gone.safetensors", "x/y.pt"])
def test_a_path_to_nothing_says_so(text):
    assert f"no file or directory {text}" in refused(text)


@pytest.mark.parametrize("text", ["", "  ", "hf-hub:", "local-dir:", "random:"])
def test_a_spec_of_nothing_lists_the_kinds(text):
    assert "local-dir:PATH" in refused(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("emoji-tyni", "emoji-tiny"),
        ("ViT-B32/openai", "ViT-B-32"),
        ("ViT-B/32", "ViT-B-32/TAG"),
        ("ViT-B-32:laion2b_e16", "ViT-B-32/laion2b_e16"),
        ("random:ViT-B33", "ViT-B-32"),
        ("runs/dpo", "no file or directory"),
    ],
)
def test_a_wrong_name_brings_the_near_ones(text, meant):
    assert meant in refused(text)


def test_hub_names_have_two_parts():
    assert "hf-hub:org/name" in refused("hf-hub:just-a-name")


def test_a_name_without_a_tag_lists_the_tags_instead_of_being_random():
    words = refused("ViT-B-32")
    assert "laion2b_s34b_b79k" in words
    assert "random:ViT-B-32" in words


def test_a_wrong_tag_brings_the_near_ones():
    with pytest.raises(ModelError, match="Did you mean 'laion2b_s34b_b79k'"):
        matching_architecture(parse_model_spec("ViT-B-32/laion2b_s34b_b79"))


@pytest.mark.parametrize(
    ("text", "architecture"),
    [
        ("ViT-B-32-quickgelu/openai", "ViT-B-32-quickgelu"),
        ("ViT-B-32/openai", "ViT-B-32-quickgelu"),  # what open_clip only warns of
        ("ViT-B-32/laion2b-s34b-b79k", "ViT-B-32"),
        ("roberta-ViT-B-32/laion2b_s12b_b32k", "roberta-ViT-B-32"),  # the only one there is
    ],
)
def test_weights_get_the_architecture_with_their_own_activation(text, architecture):
    assert matching_architecture(parse_model_spec(text)) == architecture
