"""`clipalign datasets` as a user runs it."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from clipalign.cli.app import run
from clipalign.datasets.known.description import catalogue
from clipalign.plugins import registry


@pytest.fixture
def pets(tmp_path):
    """A tiny copy of Oxford-IIIT Pet: two breeds, three images each."""
    root = tmp_path / "pets"
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    lines = []
    for breed in ("Abyssinian", "great_pyrenees"):
        for i in range(3):
            Image.effect_noise((90, 80), 60).convert("RGB").save(root / f"images/{breed}_{i}.jpg")
            lines.append(f"{breed}_{i} 1 1 1")
    (root / "annotations" / "test.txt").write_text("\n".join(lines))
    return root


def test_list_and_show(command):
    listed = json.loads(command("datasets", "list", "--json").stdout)
    specs = {row["name"]: row["spec"] for row in listed}
    assert specs["oxford-pets"] == "oxford-pets:PATH"
    assert specs["emoji"] == "emoji"
    shown = command("datasets", "show", "oxford-pets")
    assert "CC BY-SA 4.0" in shown.stdout
    assert "annotations/test.txt" in shown.stdout
    document = json.loads(command("datasets", "show", "caltech101", "--json").stdout)
    assert document["share"] == {"train": 50, "validation": 20, "test": 30}
    wrong = command("datasets", "show", "oxfordpets")
    assert wrong.returncode == 2
    assert "'oxford-pets'" in wrong.stderr


@pytest.mark.parametrize("name", registry("datasets").names())
def test_everything_that_is_listed_can_be_shown(name, capsys):
    assert run(["datasets", "show", name]) == 0
    text = capsys.readouterr().out
    for words in ("About:", "Splits:", "Licence:", f"--dataset {name}"):
        assert words in text
    assert run(["datasets", "show", name, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"name", "title", "about", "splits", "licence", "templates"} <= document.keys()


@pytest.mark.parametrize("name", ["folder", "oxford-pets"])
def test_a_place_after_the_name_is_no_part_of_it(name, capsys):
    assert run(["datasets", "show", name]) == 0
    alone = capsys.readouterr().out
    assert run(["datasets", "show", f"{name}:photos"]) == 0
    assert capsys.readouterr().out == alone


def test_the_embedded_world_is_shown_with_its_splits_and_options(capsys):
    assert run(["datasets", "show", "emoji", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["splits"]["test"] == 500
    assert "CC-BY-SA-4.0" in document["licence"]
    options = {option["name"]: option for option in document["options"]}
    assert "C, more to train on" in json.dumps(options["concepts"])
    assert "views" in options
    assert run(["datasets", "show", "folder"]) == 0
    text = capsys.readouterr().out
    assert "--dataset folder:PATH" in text
    assert "extensions" in text


def test_the_list_says_what_a_known_dataset_holds():
    for name, known in catalogue().items():
        summary = registry("datasets").entry(name).summary
        assert known.about.startswith(summary.removesuffix("."))


def test_check_takes_name_path_either_way(pets, capsys):
    said = []
    for words in (["oxford-pets", str(pets)], [f"oxford-pets:{pets}"]):
        assert run(["datasets", "check", *words, "--json", "--quiet"]) == 5
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == said[1]
    assert said[0]["name"] == "oxford-pets"
    assert run(["datasets", "check", "oxford-pets"]) == 2
    words = capsys.readouterr().err
    assert "clipalign datasets check oxford-pets PATH, or oxford-pets:PATH" in words
    assert run(["datasets", "check", f"oxford-pets:{pets}", "elsewhere"]) == 2
    assert "is given two places" in capsys.readouterr().err


def test_check(command, pets):
    done = command("datasets", "check", "oxford-pets", pets, "--json", "--quiet")
    assert done.returncode == 5
    document = json.loads(done.stdout)
    assert document["splits"]["test"]["images"] == 6
    assert document["missing"] == ["train"]
    assert not document["sound"]
    own = command("datasets", "check", "folder", pets / "images")
    assert own.returncode == 5
    assert "no folders of classes" in own.stderr


def test_prepare_takes_a_known_dataset(command, pets, tmp_path):
    done = command(
        "prepare", "typographic", "--dataset", f"oxford-pets:{pets}", "--split", "test",
        "-o", "prefs", "--json", "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["counts"]["test"]["rows"] == 6
    row = json.loads((tmp_path / "prefs/test/metadata.jsonl").read_text().splitlines()[0])
    assert row["chosen"] == "a photo of a Abyssinian, a type of pet."


def test_eval_takes_a_known_dataset(pets, own_cache):
    import clipalign

    (result,) = clipalign.evaluate(dataset=f"oxford-pets:{pets}")
    assert result.dataset.name == "oxford-pets"
    assert result.dataset.n == 6
    assert result.templates == ["a photo of a {}, a type of pet."]
