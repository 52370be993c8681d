"""A wrong command line is told what is wrong, where, and what to write instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipalign.cli.app import run

WRONG = {
    "trian": "There is no command 'trian'. Did you mean 'train'?",
    "help": "There is no command 'help'. `clipalign --help` lists them",
    "runs ls": "There is no command clipalign runs ls. Did you mean 'list'?",
    "runs foo": "There is no command clipalign runs foo. Known: compare, list, rm, show.",
    "--method kto": "--method stands after a command that has it, such as: clipalign train",
    "--foo": "clipalign has no option --foo.",
    "train kto": "'kto' is too much: clipalign train takes options alone. "
    "Did you mean --method kto?",
    "train --method kto gender": "Did you mean --task gender?",
    "demo foo": "'foo' is too much: clipalign demo takes options alone.\n",
    "transform a b": "'b' is too much: clipalign transform takes RUN alone.",
    "train --metod kto": "clipalign train has no option --metod. Did you mean '--method'",
    "train -m kto": "clipalign train has no option -m. Did you mean '--method' or '--model'?",
    "train --suite gender": "clipalign train has no option --suite; clipalign eval has it.",
    "eval --method kto": "clipalign train and clipalign transform have it.",
    "train --zzz": "clipalign train has no option --zzz. `clipalign train --help` lists",
    "prepare --task gender": "--task is no option here: clipalign prepare takes TASK",
    "train --seed": "--seed needs a value after it.",
    "train --quiet=yes": "--quiet takes no value",
    "train --lr fast": "Invalid value for '--lr': must be a number, such as 0.5",
    "prepare --seed -1": "Invalid value for '--seed': should be greater than or equal to 0",
    "runs show": "The argument RUN is missing, as in: clipalign runs show runs/typographic-kto-1\n",
    "plugins new x": "The option --kind is missing, as in: clipalign plugins new my-loss --kind",
    "prepare photos": "photos is no task, and images stand after --dataset: "
    "clipalign prepare --dataset photos\n",
    "runs compare a": "A comparison takes two runs at least: clipalign runs compare a OTHER-RUN",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_line_is_told_what_to_write(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    assert run(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert WRONG[line] in err
    words = line.split()
    words.insert(1 if line == "train --seed" else len(words), "--json")
    assert run(words) == 2
    assert json.loads(capsys.readouterr().out)["error"]["message"] in err


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc")
@pytest.mark.parametrize(
    "line",
    [
        "prepare --limit 2 -o",
        "train -o",
        "eval emoji-tiny --suite retention -o",
        "transform emoji-tiny --method project --dataset emoji-people -o",
        "export emoji-tiny -o",
        "retrieve dog -o",
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(line, monkeypatch, capsys):
    """And not waited for: nobody could ever make the lock there."""

    def work(*_: object, **__: object) -> None:
        raise AssertionError("it has begun")

    monkeypatch.setattr("clipalign.datasets.emoji.EmojiWorld.image", work)
    assert run([*line.split(), "/proc/x/y"]) == 9
    assert "Cannot write /proc/x/y: nothing can be made there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("export emoji-tiny --dtype fp8", "Unknown dtype 'fp8' to export in. Known: bf16"),
        ("export emoji-tiny --format onnx --dtype fp16", "fp16 is for open_clip alone"),
    ],
)
def test_a_dtype_that_cannot_be_written_is_refused(line, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(line.split()) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_how_a_command_is_used_stands_before_what_is_wrong(capsys):
    assert run(["runs", "show", "--nope"]) == 2
    assert capsys.readouterr().err.splitlines()[:3] == [
        "Usage: clipalign runs show [OPTIONS] RUN",
        "`clipalign runs show --help` explains it.",
        "",
    ]


def test_of_torchruns_processes_one_says_what_is_wrong(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    assert run(["train", "--nope"]) == 2
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("line", ["eval mine", "runs show mine", "report mine", "export mine"])
def test_a_folder_of_runs_names_them(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path("mine", name).mkdir(parents=True)
        Path("mine", name, "config.yaml").write_text("method: kto\n")
    assert run(line.split()) in (2, 6, 7)
    assert "It holds runs: name one, such as mine/a or mine/b." in capsys.readouterr().err


def test_a_folder_that_is_not_there_has_no_list(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["runs", "list", "nowhere"]) == 7
    assert "There is no folder nowhere." in capsys.readouterr().err


def test_a_key_of_the_training_is_found_without_its_prefix(capsys):
    assert run(["config", "show", "--set", "epochs=3"]) == 3
    assert "epochs: unknown key. Did you mean 'train.epochs'?" in capsys.readouterr().err
