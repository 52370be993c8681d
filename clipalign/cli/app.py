"""The `clipalign` command: a lazy table of commands, and what becomes of errors.

A command is registered like anything else (kind "commands", see `clipalign.builtins`), by a target
that is imported when the command is run and not when it is listed. The target is either

- a `typer.Typer` named `app`, with one command or several:

        app = typer.Typer()

        @app.command()
        def train(method: Annotated[str, typer.Option(...)] = "kto", as_json: JsonFlag = False):
            \"\"\"Align a model with preferences.\"\"\"
            out = Console(json=as_json)

- or a function with Typer's annotations.

Its module imports nothing heavy: torch is imported within the function. The function raises a
subclass of `ClipAlignError` when something is wrong and returns nothing; `run` prints the error and
turns it into the exit code. A failed command prints no traceback; CLIPALIGN_DEBUG=1 shows it.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from clipalign import interrupts
from clipalign._version import __version__
from clipalign.cli import console
from clipalign.cli.help import SETTINGS, make_plain
from clipalign.errors import ClipAlignError, Interrupted, PluginError, from_machine
from clipalign.plugins import PluginWarning, blamed, registry
from clipalign.text import printable

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter
    from typer._click.shell_completion import CompletionItem

EXIT_CODES = """\b
Exit codes:
  0  done                        5  unusable data
  1  another error, or a bug     6  unusable model
  2  wrong usage                 7  unusable run directory
  3  invalid configuration       8  training cannot go on
  4  broken or missing plugin    9  disk full or not writable
  130  interrupted; what was done is saved
"""


_INTERRUPTED = "Interrupted. Nothing is half-written: run the same command again."
_HEARD_ONCE = (2, 3, 7, 130)
"""Exit codes of errors that every process of a torchrun comes to: its first one speaks for all."""


class LazyGroup(TyperGroup):
    """Commands from the registry; lists them without importing them."""

    def list_commands(self, ctx: Context) -> list[str]:
        """Names in the order of registration."""
        return registry("commands").names()

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Import one command; None when there is none of that name."""
        commands = registry("commands")
        if cmd_name not in commands.names():
            return None
        return _command(commands.load(cmd_name), cmd_name, commands.entry(cmd_name).summary)

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, Command | None, list[str]]:
        """Find the command that `args` begin with, or fail with the near matches."""
        known = registry("commands").names()
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            from clipalign.cli.usage import other_command

            ctx.fail(f"There is no command {args[0]!r}.{other_command(args[0])}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Context) -> Any:
        """Run the command; of an interruption in a plugin's code, say where it was."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            if (plugin := blamed(error)) is None:
                raise
            raise Interrupted(f"Interrupted. {plugin}") from error

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the section that lists commands."""
        commands = registry("commands")
        rows = [(name, commands.entry(name).summary) for name in commands.names()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        """Complete command names from stand-ins that carry the summary."""
        commands = registry("commands")
        stand_ins = [
            TyperCommand(name, help=commands.entry(name).summary) for name in commands.names()
        ]
        ctx.command = TyperGroup(name=self.name, commands=stand_ins, params=self.params)
        return ctx.command.shell_complete(ctx, incomplete)


def _command(target: Any, name: str, summary: str) -> Command:
    if isinstance(target, typer.Typer):
        app = target
    elif not callable(target):
        raise _unusable(name, "it is neither a typer.Typer nor a function")
    else:
        app = typer.Typer()
        app.command()(target)
    try:
        command = get_command(app)
    except Exception as error:  # no command in it, an annotation that Typer knows nothing of, …
        raise _unusable(name, f"{type(error).__name__}: {error}") from error
    command.name = name
    command.help = command.help or summary
    # The root has these two options; a command that repeats them hides its own.
    own = [p for p in command.params if p.name not in ("install_completion", "show_completion")]
    command.params = own
    _lighten(command)
    return command


def _unusable(name: str, reason: str) -> PluginError:
    entry = registry("commands").entry(name)
    return PluginError(
        f"The command {name!r} of {entry.package} {entry.version} ({entry.target}) cannot be run: "
        f"{reason}."
    )


class _AsGiven:
    """The value of a text option or a flag, as it stands."""

    def coerce(self, value: Any, **_: Any) -> Any:
        return value


def _lighten(command: Command) -> None:
    """Answer at once: help as plain text, without rich, and plain options without pydantic.

    Typer makes a pydantic adapter for every option, even where there is nothing to convert, and
    importing pydantic doubles the time of a light command.
    """
    make_plain(command)
    for param in command.get_params(typer.Context(command, **SETTINGS)):
        kind = getattr(param, "type_descriptor", None)
        if kind is None or kind.annotation not in (str, bool) or kind.parameter_info.parser:
            continue
        if param.nargs == 1 and not param.envvar:
            param._runtime_param = _AsGiven()  # type: ignore[attr-defined]
    if isinstance(command, TyperGroup):
        for inner in command.commands.values():
            _lighten(inner)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"clipalign {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Teach a CLIP-like model which of two texts an image should prefer, without forgetting.

    \b
    Examples:
      clipalign demo                                # both tasks, in a few minutes
      clipalign train --method kto --task typographic
      clipalign eval --suite typographic
      clipalign train --help
    """


def build() -> Command:
    """The root command."""
    app = typer.Typer(
        cls=LazyGroup,
        callback=_root,
        epilog=EXIT_CODES,
        context_settings=SETTINGS,
        rich_markup_mode=None,
        no_args_is_help=True,
    )
    root = get_command(app)
    _lighten(root)
    return root


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name.

    Returns:
        The exit code.
    """
    as_json = "--json" in arguments
    _show_plugin_warnings()
    stdout = sys.stdout
    try:
        try:
            code = build().main(list(arguments), prog_name="clipalign", standalone_mode=False)
        finally:
            if sys.stdout is sys.stderr:  # a `Console` laid it aside
                sys.stdout = stdout
        sys.stdout.flush()
    except TyperException as error:
        return _misused(error, as_json)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("Interrupted", _INTERRUPTED, 130, as_json)
    except BrokenPipeError:
        # The reader has gone; nothing may be written when Python closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ClipAlignError as error:
        if interrupts.heard and not isinstance(error, Interrupted):
            return _fail("Interrupted", _INTERRUPTED, 130, as_json, error)
        return _fail(type(error).__name__, str(error), error.exit_code, as_json, error)
    except SystemExit as error:
        if blamed(error) is None or not _is_builtin(arguments):
            raise  # Typer's, of a reader that has gone; or a command's that a plugin brought
        return _bug(error, as_json)
    except BaseException as error:
        if interrupts.heard:
            return _fail("Interrupted", _INTERRUPTED, 130, as_json, error)
        if (refused := from_machine(error)) is None:
            return _bug(error, as_json)
        return _fail(type(refused).__name__, str(refused), refused.exit_code, as_json, error)
    if code == 130:  # Typer turned Ctrl-C into this code and said nothing
        return _fail("Interrupted", _INTERRUPTED, 130, as_json)
    return code if isinstance(code, int) else 0


def _misused(error: TyperException, as_json: bool) -> int:
    """Print how the command is used, and what is wrong; a group without a command is explained."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" and not as_json:
        print(printable(error.format_message()), file=sys.stderr)
        return error.exit_code
    from clipalign.cli.usage import in_our_words

    message = in_our_words(error, build())
    if context is not None and not as_json and console.process_number() == 0:
        hint = f"`{context.command_path} --help` explains it."
        print(printable(f"{context.get_usage()}\n{hint}\n"), file=sys.stderr)
    return _fail("UsageError", message, error.exit_code, as_json)


def main() -> NoReturn:
    """Entry point of the `clipalign` script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a letter gets an escape
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # all is said and done
    sys.exit(code)


def _fail(
    kind: str, message: str, code: int, as_json: bool, error: BaseException | None = None
) -> int:
    if error is not None and os.environ.get("CLIPALIGN_DEBUG") == "1":
        print("".join(traceback.format_exception(error)), file=sys.stderr)
    if console.process_number() > 0 and code in _HEARD_ONCE:
        return code
    with interrupts.postponed():  # one message, and all of it, however impatient somebody is
        interrupts.said = True
        if as_json:
            console.print_json_error(kind, message, code)
        else:
            console.print_error(message)
    return code


def _is_builtin(arguments: Sequence[str]) -> bool:
    """Whether a command line runs a command of clipalign's own."""
    commands = registry("commands")
    names = [a for a in arguments if not a.startswith("-")]
    return not (
        names and names[0] in commands.names() and commands.entry(names[0]).package != "clipalign"
    )


def _bug(error: BaseException, as_json: bool) -> int:
    if (plugin := blamed(error)) is not None:
        return _fail("PluginError", str(plugin), plugin.exit_code, as_json, error)
    message = (
        f"{type(error).__name__}: {error}. This is a bug in clipalign {__version__} or in a "
        "plugin: please report it with what CLIPALIGN_DEBUG=1 shows when you run this again."
    )
    return _fail(type(error).__name__, message, 1, as_json, error)


def _show_plugin_warnings() -> None:
    """Print a plugin's failure as one line; leave other warnings as they are."""
    usual = warnings.showwarning

    def show(message: Any, category: Any, *place: Any, **more: Any) -> None:
        if issubclass(category, PluginWarning):
            console.print_warning(str(message))
        else:
            usual(message, category, *place, **more)

    warnings.showwarning = show
