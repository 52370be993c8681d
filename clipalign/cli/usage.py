"""What is wrong with a command line, in our words: what, where, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from clipalign.errors import ClipAlignError, near_matches
from clipalign.plugins import registry
from clipalign.text import printable

if TYPE_CHECKING:
    from typer._click import Command
    from typer.exceptions import TyperException

__all__ = ["in_our_words", "other_command"]


def in_our_words(error: TyperException, root: Command) -> str:
    """The message of an error of Typer's, which speaks of click's terms or of pydantic's.

    Args:
        error: as Typer raised it.
        root: holds all commands, to look for an option that another command has.
    """
    problems = getattr(error.__cause__, "errors", None)
    if callable(problems):
        from clipalign.options import in_words

        error.message = printable(in_words(problems()[0]))
        return error.format_message()
    context = getattr(error, "ctx", None)
    said = error.format_message()
    if type(error).__name__ == "BadOptionUsage":
        option = getattr(error, "option_name", "")
        lacks = f"{option} needs a value after it."
        return lacks if "requires" in said else f"{option} takes no value: it stands alone."
    if context is None:
        return said
    command, path = context.command, context.command_path
    match type(error).__name__:
        case "NoSuchOption":
            return _no_option(str(getattr(error, "option_name", "")), command, path, root)
        case "MissingParameter":
            return _missing(getattr(error, "param", None), command, said)
    if extra := re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", said, re.S):
        return _too_many(extra[1], command, path)
    if unknown := re.match(r"No such command '(.*?)'\.", said, re.S):
        names = command.commands if isinstance(command, TyperGroup) else ()
        return f"There is no command {path} {unknown[1]}.{near_matches(unknown[1], names)}"
    return said


def other_command(name: str) -> str:
    """What to write instead of a command that there is not."""
    if name == "help":
        return " `clipalign --help` lists them, and `clipalign COMMAND --help` explains one."
    return near_matches(name, registry("commands").names())


def _no_option(name: str, command: Command, path: str, root: Command) -> str:
    mine = list(_options(command))
    if isinstance(command, TyperGroup):
        having = list(_commands_with(name, root, path))
        if having:
            return f"{name} stands after a command that has it, such as: {having[0]} {name}"
        return f"{path} has no option {name}.{near_matches(name, mine)}"
    for param in command.params:
        if isinstance(param, TyperArgument) and param.name == name.lstrip("-"):
            return f"{name} is no option here: {path} takes {param.metavar} with no name before it."
    letter = len(name) == 2
    near = [o for o in mine if o.startswith(f"-{name}")] if letter else []
    if near:
        return f"{path} has no option {name}. Did you mean {' or '.join(map(repr, near))}?"
    words = near_matches(name, mine)
    if having := list(_commands_with(name, root)):
        return f"{path} has no option {name}; {_listed(having)} {_have(having)} it."
    if "Did you mean" not in words:
        words = f" `{path} --help` lists those that it has."
    return f"{path} has no option {name}.{words}"


def _missing(param: Any, command: Command, said: str) -> str:
    if param is None:
        return said
    kind = "argument" if isinstance(param, TyperArgument) else "option"
    name = param.metavar if kind == "argument" else max(param.opts, key=len)
    example = next(_examples(command), None)
    return f"The {kind} {name} is missing" + (f", as in: {example}" if example else ".")


def _too_many(extra: str, command: Command, path: str) -> str:
    taken = [str(p.metavar) for p in command.params if isinstance(p, TyperArgument)]
    takes = f"takes {' and '.join(taken)} alone" if taken else "takes options alone"
    option = _option_of(extra, command)
    near = f" Did you mean {option} {extra}?" if option else ""
    return f"{extra!r} is too much: {path} {takes}.{near}"


def _option_of(name: str, command: Command) -> str | None:
    """The option whose completion knows a value of this name: kto is one of --method."""
    context = typer.Context(command, resilient_parsing=True)
    for param in command.params:
        if isinstance(param, TyperOption) and param._custom_shell_complete is not None:
            found = param.shell_complete(context, name)
            if any(item.value == name for item in found):
                return str(max(param.opts, key=len))
    return None


def _options(command: Command) -> Iterator[str]:
    for param in command.params:
        if not isinstance(param, TyperArgument):
            yield from (o for o in (*param.opts, *param.secondary_opts) if o.startswith("--"))


def _commands_with(name: str, root: Command, below: str = "clipalign") -> Iterator[str]:
    """Commands of clipalign's own, below a group, that have an option."""
    context = typer.Context(root, info_name="clipalign")
    commands = registry("commands")
    for word in commands.names():
        if commands.entry(word).package != "clipalign" or not isinstance(root, TyperGroup):
            continue
        try:
            command = root.get_command(context, word)
        except ClipAlignError:
            continue
        inner = command.commands if isinstance(command, TyperGroup) else {"": command}
        for last, leaf in inner.items():
            path = f"clipalign {word} {last}".strip()
            if leaf is not None and f"{path} ".startswith(f"{below} ") and name in _options(leaf):
                yield path


def _listed(names: list[str]) -> str:
    most = 3
    shown = names[:most]
    return " and ".join(shown) if len(names) <= most else f"{', '.join(shown)} and others"


def _have(names: Iterable[str]) -> str:
    return "has" if len(list(names)) == 1 else "have"


def _examples(command: Command) -> Iterator[str]:
    """The examples of a command's help."""
    for line in (command.help or "").splitlines():
        if line.strip().startswith("clipalign "):
            yield line.partition("#")[0].strip()
