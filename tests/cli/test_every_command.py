"""What holds of every command alike: its help is whole, its examples parse, its JSON is JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from clipalign.cli.app import run
from clipalign.hookspecs import KINDS
from clipalign.plugins import registry
from tests.command_lines import LEAVES, arguments_of, parse, words_of

NAMES = [" ".join(path) for path in LEAVES]
BY_NAME = dict(zip(NAMES, LEAVES.values(), strict=True))
ON_NOTHING = (  # commands that have a result where there is neither a run nor a file
    ["runs", "list"], ["datasets", "list"], ["cache", "list"], ["config", "show"],
    ["config", "schema"], ["plugins", "list"], ["plugins", "show", "kto"], ["plugins", "doctor"],
    ["datasets", "show", "oxford-pets"], ["config", "cp", "gender", "copy.yaml"],
    ["cache", "rm", "--all"], ["plugins", "new", "my-loss", "--kind", "objective"],
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_it_takes_json_and_quiet(name):
    options = {option for param in BY_NAME[name].params for option in param.opts}
    assert {"--json", "--quiet", "-q"} <= options


@pytest.mark.parametrize("name", NAMES)
def test_its_help_documents_every_option_and_argument(name, capsys):
    assert run([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    together = " ".join(shown.split())
    for param in BY_NAME[name].params:
        assert param.help, param.name
        options = [o for o in (*param.opts, *param.secondary_opts) if o.startswith("-")]
        assert all(option in shown for option in options), param.name
        assert " ".join(param.help.split())[:40] in together, param.name


@pytest.mark.parametrize("name", NAMES)
def test_its_help_fits_the_terminal_and_has_no_words_of_python(name, monkeypatch, capsys):
    pages = {}
    for columns in (80, 140):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert run([*name.split(), "--help"]) == 0
        pages[columns] = capsys.readouterr().out
    assert max(map(len, pages[80].splitlines())) <= 80
    assert max(map(len, pages[140].splitlines())) <= 100
    assert pages[80].split() == pages[140].split()  # no name is cut in two
    assert not re.search(r"<\w+|list\[str\]|\bint\b|x>=", pages[80])
    assert run([*name.split(), "-h"]) == 0
    assert capsys.readouterr().out == pages[140]


def test_a_wide_terminal_is_used(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "140")
    assert run(["train", "--help"]) == 0
    assert "--seed N                   Seed of everything random.\n" in (
        shown := capsys.readouterr().out
    )
    assert 90 < max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_its_arguments_are_in_capitals_and_only_optional_ones_in_brackets(name, capsys):
    assert run([*name.split(), "--help"]) == 0
    usage = capsys.readouterr().out.partition("[OPTIONS]")[2].splitlines()[0].split()
    arguments = [p for p in BY_NAME[name].params if p.param_type_name == "argument"]
    for shown, argument in zip(usage, arguments, strict=True):
        assert shown.upper() == shown
        assert not set(shown) & set("{}…")
        bare = shown.removesuffix("...")
        assert (bare.startswith("[") and bare.endswith("]")) is not argument.required
        assert "[[" not in bare


@pytest.mark.parametrize("group", sorted({path[0] for path in LEAVES if len(path) == 2}))
def test_a_group_lists_its_commands_uncut(group, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert run([group, "--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2].strip().splitlines()
    assert len(listed) == sum(path[0] == group for path in LEAVES)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_registered_says_what_it_is_in_a_sentence(kind):
    entries = [registry(kind).entry(name) for name in registry(kind).names()]
    for entry in (e for e in entries if e.package == "clipalign"):
        name = entry.name
        assert entry.summary[:1].upper() == entry.summary[:1], name
        assert entry.summary.endswith("."), name


@pytest.mark.parametrize("name", NAMES)
def test_its_examples_are_commands_that_it_takes(name):
    lines = [line.strip() for line in (BY_NAME[name].help or "").splitlines()]
    examples = [line for line in lines if line.startswith("clipalign ")]
    assert any(line.startswith(f"clipalign {name}") for line in examples)
    for line in examples:
        parse(arguments_of(words_of(line)))


@pytest.mark.parametrize("name", NAMES)
def test_with_json_what_goes_wrong_is_one_document_too(name, capsys):
    assert run([*name.split(), "--no-such-option", "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["exit_code"] == 2
    assert printed.err == ""


def completed(path, name, incomplete):
    """What the shell is offered for one parameter of a command."""
    command = LEAVES[path]
    (param,) = [p for p in command.params if p.name == name]
    items = param.shell_complete(command.make_context("x", [], resilient_parsing=True), incomplete)
    return [item.value for item in items]


def test_models_recipes_and_comparisons_complete(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/kto-1", "comparisons/mine", ".git"):
        Path(folder).mkdir(parents=True)
    Path("runs/kto-1/config.yaml").write_text("method: kto\n")
    for file in ("recipe.yaml", "notes.txt"):
        Path(file).write_text("")
    for path, name in (("train",), "model"), (("eval",), "models"), (("export",), "model"):
        assert completed(path, name, "") == ["emoji-tiny", "runs/kto-1"]
        assert completed(path, name, "runs/") == ["runs/kto-1"]
    assert completed(("config", "cp"), "name", "") == ["concept/gender", "gender", "typographic"]
    assert completed(("config", "cp"), "name", "ty") == ["typographic"]
    assert completed(("compare",), "recipe", "") == ["comparisons/", "recipe.yaml", "runs/"]
    assert completed(("compare",), "recipe", "comparisons/") == ["comparisons/mine/"]
    assert completed(("plugins", "list"), "kind", "o") == ["objectives"]


@pytest.mark.parametrize("arguments", ON_NOTHING, ids=" ".join)
def test_with_json_its_result_is_one_document(arguments, tmp_path, monkeypatch, capsys, own_cache):
    monkeypatch.chdir(tmp_path)
    assert run([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    json.loads(printed.out)
    assert "\x1b" not in printed.out + printed.err


@pytest.mark.parametrize("arguments", ON_NOTHING[:6], ids=" ".join)
def test_quiet_leaves_the_result_alone(arguments, tmp_path, monkeypatch, capsys, own_cache):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 0
    result = capsys.readouterr().out
    assert run([*arguments, "--quiet"]) == 0
    assert capsys.readouterr() == (result, "")
    assert result


def declarations(flag):
    """What each command says of an option: its values' name, kind, bounds, completion and help."""
    return {
        (
            param.metavar,
            bool(param._custom_shell_complete),
            (param.min, param.max),
            param.help if flag in SAME_WORDS else "",
        )
        for command in LEAVES.values()
        for param in command.params
        if flag in param.opts
    }


SAME_WORDS = ("--json", "--quiet", "--device", "--dataset-set", "--push", "--open")


@pytest.mark.parametrize("flag", [*SAME_WORDS, "--dataset", "--seed", "--task", "--against"])
def test_an_option_is_the_same_in_every_command_that_has_it(flag):
    assert len(declarations(flag)) == 1
