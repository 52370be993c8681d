"""What commands print.

Standard output carries results: text, or under `--json` one JSON document and nothing else.
Standard error carries what is being done: a progress bar on a terminal, plain lines elsewhere;
`--quiet` silences it. Of processes that torchrun started only the first speaks; the others print
errors alone, with their number. Text from files and packages is printed inert: a control character
shows as its escape, never as an instruction to the terminal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from clipalign import interrupts
from clipalign.progress import Bar, PlainBar, Silent, figure
from clipalign.text import fold, printable

WIDTH = 100
"""At which a paragraph is folded on a wider terminal: longer lines are hard to read."""

T = TypeVar("T")

_COLOURS = {"red": 31, "yellow": 33}


class Console:
    """One command's output; it is the `clipalign.progress.Reporter` that the core reports to.

    Under `--json` standard output is the one document; whatever else is printed goes to standard
    error, for as long as the command runs.

    Args:
        json: print one JSON document instead of text.
        quiet: print results and errors only.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet or process_number() > 0
        self._document = sys.stdout
        if json:  # what a library or a plugin prints must not stand within the document
            sys.stdout = sys.stderr

    def say(self, text: str = "") -> None:
        """Text for people, on standard output; nothing under `--json` or `--quiet`."""
        if not (self.json or self.quiet):
            print(printable(text), file=self._document)

    def note(self, text: str) -> None:
        """What is being done, on standard error; nothing under `--quiet`."""
        if not self.quiet:
            print(printable(text), file=sys.stderr, flush=True)

    def load(self, *libraries: str) -> None:
        """Import these, and say so, as it takes seconds; a signal waits for the end of it."""
        self.note(f"Loading {' and '.join(libraries)}…")
        with interrupts.postponed():
            for library in libraries:
                importlib.import_module(library)

    def result(self, document: Any, text: str = "") -> None:
        """The command's result: `document` under `--json`, else `text`, even under `--quiet`."""
        if process_number() > 0:
            return
        if self.json:
            print(json.dumps(_plain(document), indent=2), file=self._document)
        elif text:
            print(printable(text), file=self._document)

    @contextlib.contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Bar]:
        """Show progress through `total` things while the block runs.

        Args:
            label: what is being done, "Training".
            total: how many there are; None when that is not known.
        """
        if self.quiet:
            yield Silent()
        elif _is_terminal(sys.stderr):
            with _rich_bar(label, total) as bar:
                yield bar
        else:
            lines = PlainBar(label, total)
            yield lines
            lines.finish()


@contextlib.contextmanager
def _rich_bar(label: str, total: int | None) -> Iterator[Bar]:
    from rich import progress
    from rich.console import Console as RichConsole

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[figures]}", markup=False),
    )
    with progress.Progress(*columns, console=RichConsole(stderr=True), transient=True) as bars:
        task = bars.add_task(printable(label), total=total, figures="")
        shown: dict[str, float | str] = {}

        class RichBar:
            def advance(self, by: int = 1, **figures: float | str) -> None:
                shown.update(figures)
                text = ", ".join(figure(name, value) for name, value in shown.items())
                bars.update(task, advance=by, figures=printable(text))

        yield RichBar()


def table(
    headers: Sequence[str], rows: Sequence[Sequence[Any]], *, width: int | None = None
) -> str:
    """Align rows under headers; the last column wraps at `terminal_width`.

    Where even that does not fit, each row becomes a block with a line a column.

    Args:
        headers: one a column.
        rows: as many cells each.
        width: in characters; None for `terminal_width`, or no wrapping where there is none.
    """
    cells = [[" ".join(printable(str(cell)).split()) for cell in row] for row in [headers, *rows]]
    if width is None:
        width = terminal_width() or 10_000
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers) - 1)]
    indent = sum(widths) + 2 * len(widths)
    if widths and indent + min(20, max(len(row[-1]) for row in cells)) > width:
        return _stacked(cells[0], cells[1:], width)
    lines = []
    for row in cells:
        left = "".join(f"{cell:<{w}}  " for cell, w in zip(row, widths, strict=False))
        last = fold(row[-1], max(20, width - indent)) or [""]
        lines.append((left + last[0]).rstrip())
        lines += [" " * indent + more for more in last[1:]]
    return "\n".join(lines)


def _stacked(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """A block a row, a line a column; empty cells are left out."""
    indent = min(max(map(len, headers)), max(width // 2 - 2, 1)) + 2
    blocks = []
    for row in rows:
        lines = []
        for header, cell in zip(headers, row, strict=True):
            parts = fold(cell, max(width - indent, 10))
            if parts and len(header) > indent - 2:  # too long to stand beside its value
                lines += fold(header, width)
            elif parts:
                lines.append(f"{header:<{indent}}{parts.pop(0)}")
            lines += [" " * indent + part for part in parts]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def terminal_width() -> int | None:
    """Columns to fold text at: COLUMNS where it is set, else the terminal's; None without one."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def wrapped(text: str, *, indent: str = "") -> str:
    """A paragraph, folded at the width of the terminal and at most WIDTH; whole without one."""
    width = terminal_width()
    if width is None:
        return f"{indent}{text}"
    width = min(max(width, 20), WIDTH)
    return "\n".join(fold(text, width, initial_indent=indent, subsequent_indent=indent))


def near(path: Path) -> Path:
    """The path as seen from here, where it lies below."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else Path(relative)


def with_near_paths(result: T) -> T:
    """What a function of the library returned, its own paths as seen from here."""
    own = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}  # type: ignore[arg-type]
    paths = {name: near(path) for name, path in own.items() if isinstance(path, Path)}
    return dataclasses.replace(result, **paths)  # type: ignore[type-var]


def has_bars() -> bool:
    """Whether standard output can show the bars of a sparkline."""
    try:
        "▁█".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def process_number() -> int:
    """Which of torchrun's processes this is, from 0; 0 without torchrun."""
    number = os.environ.get("RANK", "") if "LOCAL_RANK" in os.environ else ""
    return int(number) if number.isdigit() else 0


def print_error(message: str) -> None:
    """`Error: message` on standard error, in red on a terminal."""
    mark = f"Error (process {number}):" if (number := process_number()) else "Error:"
    print(f"{paint(mark, 'red', sys.stderr)} {printable(message)}", file=sys.stderr, flush=True)


def print_warning(message: str) -> None:
    """`Warning: message` on standard error, in yellow on a terminal."""
    print(f"{paint('Warning:', 'yellow', sys.stderr)} {printable(message)}", file=sys.stderr)


def print_json_error(kind: str, message: str, exit_code: int) -> None:
    """The one document that a failed command prints under `--json`."""
    error = {"type": kind, "message": message, "exit_code": exit_code}
    print(json.dumps({"error": error}, indent=2))


def paint(text: str, colour: str, stream: TextIO) -> str:
    """Colour `text` where `stream` is a terminal and NO_COLOR is not set."""
    if _is_terminal(stream) and not os.environ.get("NO_COLOR"):
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"
    return text


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _plain(value: Any) -> Any:
    """JSON knows no NaN, infinity, path or tuple."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
