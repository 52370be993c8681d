"""Reads command lines as they stand in documents, and has the real command line parse them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import typer

from clipalign.cli import app as cli
from clipalign.plugins import registry

ROOT = Path(__file__).parents[1]
NAMED = {  # option → kinds of which one must have the name
    "method": ("objectives", "transforms"),
    "task": ("tasks",),
    "suites": ("suites",),
    "trackers": ("trackers",),
}
_IN_PACKAGES = {
    name
    for path in ROOT.glob("plugins/*/src/*/__init__.py")
    for name in re.findall(r'"([a-z][a-z0-9-]+)"', path.read_text(encoding="utf-8"))
}
"""Everything that a package under plugins/ may register; the packages need not be installed."""


def leaves() -> Iterator[tuple[tuple[str, ...], object]]:
    """Every command that can be run: its words after `clipalign`, and what Typer made of it."""
    root = cli.build()
    context = typer.Context(root)
    for name in registry("commands").names():
        command = root.get_command(context, name)
        inner = getattr(command, "commands", None)
        if inner is None:
            yield (name,), command
        else:
            yield from (((name, word), leaf) for word, leaf in inner.items())


LEAVES = dict(leaves())


def words_of(line: str) -> list[str]:
    """A simple command as words; comments, redirections and variables set before it are gone."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    cut = [i for i, word in enumerate(words) if word in (">", "|", "2>", ">>")]
    return words[: cut[0]] if cut else words


def simple_commands(block: str) -> list[list[str]]:
    """The commands of a block of shell, each as words."""
    joined = block.replace("\\\n", " ")
    parts = [part for line in joined.splitlines() for part in line.split("&&")]
    return [words for part in parts if (words := words_of(part))]


def arguments_of(words: list[str]) -> list[str] | None:
    """What stands after `clipalign`, however it is started; None for another program."""
    if Path(words[0]).name == "clipalign":
        return words[1:]
    module = "-m clipalign "
    if words[0] in ("python", "torchrun") and module in " ".join(words):
        return words[words.index("clipalign") + 1 :]
    return None


def parse(arguments: list[str], more_names: frozenset[str] = frozenset()) -> None:
    """Have the real command line parse them: command, options, values, and registered names.

    Nothing is run. Fails where `clipalign` would refuse the line before it looks at any file.
    """
    if arguments in (["--help"], ["--version"]):
        return
    path = next((p for p in ((*arguments[:2],), (*arguments[:1],)) if p in LEAVES), None)
    assert path is not None, f"There is no command clipalign {' '.join(arguments[:2])}"
    rest = arguments[len(path) :]
    if "--help" in rest:
        return
    context = LEAVES[path].make_context(" ".join(path), rest)
    for option, kinds in NAMED.items():
        values = context.params.get(option) or []
        known = {name for kind in kinds for name in registry(kind).names()}
        for name in [values] if isinstance(values, str) else values:
            assert name in known | _IN_PACKAGES | more_names, f"{option} {name}"
