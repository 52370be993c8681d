"""The README keeps its word: its commands exist as written, its Python runs, its CI runs it."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from clipalign.cli.app import _command
from clipalign.plugins import registry

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S)
LINES = [
    line.split("#")[0].strip()
    for block in re.findall(r"^```(?:sh)?\n(.*?)^```$", README, re.M | re.S)
    for line in block.splitlines()
]
COMMANDS = sorted(
    {
        part.strip().removeprefix(".venv/bin/")
        for line in LINES
        for part in line.split("&&")
        if part.strip().removeprefix(".venv/bin/").startswith("clipalign ")
    }
    | set(re.findall(r"`(clipalign [a-z][^`]*)`", README))
)


def test_the_first_two_blocks_are_the_two_commands() -> None:
    install, test = SHELL[:2]
    assert len(install.strip().splitlines()) == len(test.strip().splitlines()) == 1
    assert "clipalign train --method kto --task typographic" in install
    assert "pytest" in test


@pytest.mark.parametrize("text", COMMANDS)
def test_every_command_and_option_exists(text: str) -> None:
    _, name, *rest = shlex.split(text)
    commands = registry("commands")
    assert name in commands.names(), text
    command = _command(commands.load(name), name, "")
    if rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    known = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    used = {word.split("=")[0] for word in rest if word.startswith("-")}
    assert used <= known, text


@pytest.mark.parametrize("block", re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S))
def test_python_uses_names_that_exist(block: str) -> None:
    import clipalign

    tree = ast.parse(block)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "clipalign"
    }
    assert used <= set(clipalign.__all__)


def test_ci_runs_the_readmes_test_command() -> None:
    assert "readme_block 2" in (ROOT / ".ci" / "run").read_text()
