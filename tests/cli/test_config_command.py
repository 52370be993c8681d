"""`clipalign config` shows, checks, describes and copies configurations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from clipalign.cli.app import run
from clipalign.config import RunConfig, load_config
from clipalign.tasks.concepts.file import load_concept


def test_show_prints_every_key_with_what_it_means(command, tmp_path):
    done = command("config", "show", "--set", "method=dpo", "--set", "train.lr=1e-5")
    assert done.returncode == 0
    assert "# Model spec to start from.\nmodel: emoji-tiny\n" in done.stdout
    (tmp_path / "shown.yaml").write_text(done.stdout)
    assert load_config(tmp_path / "shown.yaml") == load_config(
        None, ["method=dpo", "train.lr=1e-5"]
    )


def test_show_as_json_is_the_same(command):
    done = command("config", "show", "--json")
    assert json.loads(done.stdout) == RunConfig().model_dump(mode="json")


def test_a_recipe_is_copied_once_and_is_valid(command, tmp_path):
    done = command("config", "cp", "typographic")
    assert (done.returncode, done.stdout) == (0, "Wrote typographic.yaml.\n")
    copied = tmp_path / "typographic.yaml"
    assert load_config(copied).task == "typographic"

    copied.write_text("seed: 7\n")
    done = command("config", "cp", "typographic")
    assert done.returncode == 3
    assert "typographic.yaml exists" in done.stderr
    assert copied.read_text() == "seed: 7\n"
    assert command("config", "cp", "typographic", "--force").returncode == 0
    assert "method: kto" in copied.read_text()


def test_copying_to_a_folder_or_another_name(command, tmp_path):
    (tmp_path / "recipes").mkdir()
    document = json.loads(command("config", "cp", "typographic", "recipes", "--json").stdout)
    assert (tmp_path / document["file"]).is_file()
    assert command("config", "cp", "typographic", "none/mine.yaml").returncode == 3


def test_a_concept_is_copied_and_the_messages_say_how(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["config", "cp", "concept/gender", "age.yaml"]) == 0
    assert run(["config", "cp", "concept/gender", "."]) == 0
    assert load_concept("age.yaml") == load_concept("./gender.yaml") == load_concept("gender")
    Path("age.yaml").write_text("name: age\n")
    capsys.readouterr()
    for spec in ("age.yaml", "other.yaml"):
        assert run(["train", "--task", "concept", "--set", f"task.concept={spec}"]) == 3
        assert "`clipalign config cp concept/gender mine.yaml` copies" in capsys.readouterr().err
    assert run(["plugins", "show", "tasks/concept"]) == 0
    assert "clipalign config cp concept/gender" in capsys.readouterr().out


def test_an_unknown_recipe_names_the_near_ones(command):
    done = command("config", "cp", "typografic")
    assert done.returncode == 2
    assert "There is no recipe 'typografic'. Did you mean 'typographic'?" in done.stderr


def test_validate_reports_everything_and_ends_with_3(command, tmp_path):
    (tmp_path / "bad.yaml").write_text("method: kot\ntrain: {lrr: 1}\n")
    done = command("config", "validate", "bad.yaml", "--json")
    assert done.returncode == 3
    message = json.loads(done.stdout)["error"]["message"]
    assert "There is no objective 'kot'. Did you mean 'kto'" in message
    assert "train.lrr: unknown key. Did you mean 'lr'?" in message


def test_a_model_that_nothing_is_named_stands_with_the_rest(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("model: ViT-B-33/openai\n")
    assert run(["config", "validate", "recipe.yaml"]) == 3
    assert "model: Unknown model 'ViT-B-33/openai'" in capsys.readouterr().err
    # alone, it ends a training with the code of a model
    assert run(["train", "--config", "recipe.yaml"]) == 6
    assert run(["train", "--config", "recipe.yaml", "--method", "dop"]) == 3
    said = capsys.readouterr().err
    assert "method: There is no objective 'dop'. Did you mean 'dpo'?" in said
    assert "model: Unknown model 'ViT-B-33/openai'" in said
    assert "Did you mean 'ViT-B-32'" in said


def test_validate_checks_the_options_too(command, tmp_path):
    (tmp_path / "bad.yaml").write_text("method_options: {betta: 1}\n")
    done = command("config", "validate", "bad.yaml")
    assert done.returncode == 3
    assert "method_options.betta: unknown key. Did you mean 'beta'?" in done.stderr
    (tmp_path / "good.yaml").write_text("method_options: {beta: 1}\n")
    assert command("config", "validate", "good.yaml").stdout == "good.yaml is valid.\n"


def test_schema_describes_every_key(command):
    schema = json.loads(command("config", "schema").stdout)
    assert set(schema["properties"]) == set(RunConfig.model_fields)
    for name, field in schema["properties"].items():
        assert "description" in field or "$ref" in field, name


def test_what_config_prints_is_plain_yaml(command):
    assert yaml.safe_load(command("config", "show").stdout)["train"]["averaging"] == "bma"


def test_show_takes_the_recipes_that_cp_copies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["config", "show", "gender", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["task"], shown["dataset"]) == ("gender", "emoji-people")
    assert run(["config", "show", "gendr"]) == 3
    assert "neither a file nor a recipe 'gendr'. Did you mean 'gender'?" in capsys.readouterr().err
    assert run(["config", "show", "gender.yaml"]) == 3
    assert "There is no file gender.yaml" in capsys.readouterr().err
    (tmp_path / "gender").write_text("seed: 3\n")  # a file goes before
    assert run(["config", "show", "gender", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "--lr", "abc"], 2, "'--lr': must be a number, such as 0.5"),
        (["train", "--epochs", "1.5"], 2, "'--epochs': must be a whole number, such as 3"),
        (["train", "--set", "train.lr=abc"], 3, "train.lr: must be a number, such as 0.5 (got"),
        (["train", "--dataset", "./nowhere"], 3, "dataset: There is no folder or file './nowhere'"),
        (["train", "--dataset", "photos.csv"], 3, "There is no folder or file 'photos.csv'"),
        (["train", "--dataset", "emojii"], 3, "folder or table 'emojii'. Did you mean 'emoji'"),
        (["prepare", "--dataset", "./nowhere"], 2, "There is no folder or file './nowhere'."),
    ],
)
def test_what_is_wrong_is_said_in_words_of_our_own(arguments, code, words, capsys):
    assert run(arguments) == code
    said = capsys.readouterr().err
    assert words in " ".join(said.replace("│", " ").split())
    assert "Known:" not in said


def test_an_option_of_the_dataset_has_one_spelling_for_all_commands(tmp_path, monkeypatch, capsys):
    """`--dataset-set KEY=VALUE` and `--set dataset.KEY=VALUE` reach whoever reads the dataset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clipalign.cli.eval._newest", lambda _: "emoji-tiny")
    commands = (["train"], ["prepare", "typographic"], ["eval"], ["transform", "emoji-tiny"])
    more = {"transform": ["--method", "project", "--dataset", "emoji-people"]}
    for command in commands:
        for spelling in (["--dataset-set", "viws=2"], ["--set", "dataset.viws=2"]):
            assert run([*command, *more.get(command[0], []), *spelling]) == 3
            assert "viws: unknown key" in capsys.readouterr().err
    assert run(["eval", "--dataset-set", "views"]) == 2
    assert "must be KEY=VALUE" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
