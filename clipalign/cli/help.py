"""Help pages: plain text of at most 100 columns, where a value has the name of what it is.

Plain text reads the same in a log, and needs no rich. Typer folds at 80 columns on any terminal,
breaks names at their hyphens, and names a value by its type in Python (`<list[str]>`). Here
emoji-tiny stays in one piece and a value is named after its option: `--suite SUITE`, `--steps N`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from clipalign.text import fold

if TYPE_CHECKING:
    from typer._click import Command

__all__ = ["SETTINGS", "make_plain"]

SETTINGS: dict[str, Any] = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}
"""Context settings of the root; the commands below it have them from there."""

_REMARK = re.compile(r"\[[^][]{1,40}\]$")
"""What Typer adds to a help text: [default: 10]. It is not broken across lines."""

_JOINED = "\xa0"
_VALUES = {int: "N", float: "X", Path: "PATH"}
_Formatter: Any = typer.Context.formatter_class


class _PlainFormatter(_Formatter):
    """Folds between words alone."""

    def write_text(self, text: str) -> None:
        """Paragraphs, folded; one that begins with a line of \\b stays as it is."""
        indent = " " * self.current_indent
        blocks = []
        for block in filter(str.strip, text.expandtabs().split("\n\n")):
            first, _, rest = block.partition("\n")
            raw = first.strip() == "\b"
            lines = rest.splitlines() if raw else fold(block, self.width - self.current_indent)
            blocks.append("\n".join(f"{indent}{line}" for line in lines))
        self.write("\n\n".join(blocks) + "\n")

    def write_dl(
        self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Names and what is said of each, in two columns."""
        indent = " " * self.current_indent
        column = min(max(len(name) for name, _ in rows), col_max) + col_spacing
        for name, words in rows:
            whole = _REMARK.sub(lambda remark: remark[0].replace(" ", _JOINED), words)
            lines = fold(whole, max(self.width - len(indent) - column, 10))
            lines = [line.replace(_JOINED, " ") for line in lines]
            beside = lines.pop(0) if lines and len(name) <= column - col_spacing else ""
            self.write(f"{indent}{name:<{column}}{beside}".rstrip() + "\n")
            for line in lines:
                self.write(f"{indent}{'':<{column}}{line}\n")


class _PlainContext(typer.Context):
    formatter_class = _PlainFormatter


def make_plain(command: Command) -> None:
    """Have a command, with all that it takes, write such a page."""
    command.context_class = _PlainContext
    if isinstance(command, TyperCommand | TyperGroup):
        command.rich_markup_mode = None
    for param in command.params:
        if isinstance(param, TyperArgument):
            _name_argument(param)
        elif isinstance(param, TyperOption):
            _name_value(param)
        if isinstance(param, TyperArgument | TyperOption):
            bounds = _bounds(param.min, param.max)
            param._get_number_range_help_str = lambda words=bounds: words  # type: ignore[method-assign, misc]


def _name_argument(argument: TyperArgument) -> None:
    """Show an argument as RUN where it must be given, else as [RUN]; with ... where it repeats."""
    argument.metavar = name = argument.metavar or str(argument.name).upper()
    usage = (name if argument.required else f"[{name}]") + ("..." if argument.nargs != 1 else "")
    argument.get_usage_pieces = lambda ctx: [usage]  # type: ignore[method-assign]
    argument.display_type_rich = lambda ctx: None  # type: ignore[method-assign]


def _name_value(option: TyperOption) -> None:
    """Show what an option takes; a choice of a few is shown by Typer."""
    annotation = option.type_descriptor.annotation
    kind = (get_args(annotation) or (annotation,))[0]
    if option.metavar is None and not option.is_flag and kind in (str, *_VALUES):
        name = max(option.opts, key=len).lstrip("-").upper()
        option.metavar = _VALUES.get(kind, name)


def _bounds(low: float | None, high: float | None) -> str | None:
    """What a number may be; that it is not below 0 goes without saying."""
    if low is not None and high is not None:
        return f"{low} to {high}"
    if high is not None:
        return f"at most {high}"
    return f"at least {low}" if low else None
