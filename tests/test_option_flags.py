"""An option that a message asks for can be typed as it stands, in every command that takes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import clipalign
from clipalign.cli.app import run
from clipalign.errors import ConfigError, DataError
from clipalign.option_flags import dataset_option, task_option


def flags(words: str) -> dict[str, list[str]]:
    """Command → flag and setting, of `--set KEY=VALUE` of train, …"""
    return {
        command: flag.split(" ", 1) for flag, command in re.findall(r"`(--[^`]+)` of (\w+)", words)
    }


def test_each_command_takes_the_flag_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty.csv").write_text("image,label\n")
    wrong = {task_option("attacks_per_image=0"), dataset_option("repeats=5")}
    tried = 0
    for words in wrong:
        for command, (flag, setting) in flags(words).items():
            if command == "train":
                continue  # below
            dataset = ["--dataset", "empty.csv"]
            assert run([command, *dataset, flag, setting]) == 3, (command, setting)
            assert setting.rpartition(".")[2].partition("=")[0] in capsys.readouterr().err
            tried += 1
    assert tried == 3
    for words in wrong:
        flag, setting = flags(words)["train"]
        assert run(["train", "--dataset", "empty.csv", flag, setting]) != 0
        assert setting.partition("=")[0].rpartition(".")[2] in capsys.readouterr().err


def test_a_table_without_the_column_says_what_to_type(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("picture,label\na.png,cat\n")
    with pytest.raises(DataError, match=r"`--dataset-set image_column=COLUMN` of prepare"):
        clipalign.prepare("typographic", dataset=str(path), output=tmp_path / "out")


def test_no_message_names_an_option_without_its_flag():
    for path in Path(clipalign.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"with the\s*\"?\s*f?\"?option [a-z{]", text), path


def test_the_option_is_refused_by_the_name_that_python_gives_it(tmp_path):
    (tmp_path / "t.csv").write_text("image,label\n")
    with pytest.raises(ConfigError, match="attacks_per_image"):
        clipalign.prepare(
            "typographic",
            dataset=str(tmp_path / "t.csv"),
            task_options={"attacks_per_image": 0},
            output=tmp_path / "out",
        )
