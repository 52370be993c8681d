"""The command line answers at once, says what is wrong in one message, and ends with its code."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import sys
import time

import pytest
import typer

from clipalign import __version__, errors, interrupts
from clipalign.cli import app as cli
from clipalign.cli.console import Console, PlainBar, printable, table, terminal_width, wrapped

HEAVY = {"torch", "open_clip", "numpy", "PIL", "rich", "pydantic", "yaml", "pytest"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["plugins", "list"], ["plugins", "list", "--kind", "tasks"]],
)
def test_light_commands_load_nothing_heavy(arguments):
    code = (
        "import sys, io, contextlib\n"
        "from clipalign.cli.app import run\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    assert run({arguments!r}) == 0\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert not HEAVY & set(loaded)


def test_help_lists_every_command_with_its_summary_and_imports_none(command, make_package):
    make_package(
        "clipalign-dance",
        """
        import clipalign

        @clipalign.hookimpl
        def register_commands(register):
            register("dance", "no_such_module:app", summary="Dances.")
        """,
    )
    done = command("--help", env=make_package.env)
    assert done.returncode == 0
    assert done.stderr == ""
    for name in ("prepare", "train", "transform", "eval", "runs", "config", "plugins", "dance"):
        assert f"\n  {name} " in done.stdout
    assert re.search(r"\n  dance +Dances\.", done.stdout)
    assert "130  interrupted" in done.stdout


def test_version(command):
    assert command("--version").stdout == f"clipalign {__version__}\n"


def test_an_unknown_command_names_the_near_ones(command):
    done = command("trian")
    assert done.returncode == 2
    assert "There is no command 'trian'. Did you mean 'train'?" in done.stderr


def test_an_unknown_option_is_wrong_usage(command):
    done = command("plugins", "list", "--kinds", "tasks")
    assert done.returncode == 2
    assert "Usage: clipalign plugins list [OPTIONS]" in done.stderr
    assert "clipalign plugins list has no option --kinds. Did you mean '--kind'?" in done.stderr
    assert done.stdout == ""


def test_with_json_an_error_is_the_one_document(command):
    for arguments in (["plugins", "list", "--kind", "tusk"], ["trian"], ["plugins", "--nope"]):
        done = command(*arguments, "--json")
        error = json.loads(done.stdout)["error"]
        assert error["type"] == "UsageError"
        assert error["exit_code"] == done.returncode == 2
        assert done.stderr == ""


def test_commands_complete_with_their_summaries(command):
    env = {
        "_CLIPALIGN_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": "clipalign pl",
    }
    done = command(env=env)
    assert "plugins" in done.stdout
    assert "List, show, diagnose and write plugins." in done.stdout
    assert "train" not in done.stdout


@pytest.fixture
def failing_command(monkeypatch):
    """Make `clipalign` run one command, `fail`, that raises what it is given."""

    def install(error):
        def fail() -> None:
            raise error

        def get_command(group, ctx, name):
            return cli._command(fail, name, "Fails.")

        monkeypatch.setattr(cli.LazyGroup, "get_command", get_command)
        monkeypatch.setattr(cli.LazyGroup, "resolve_command", cli.TyperGroup.resolve_command)

    return install


@pytest.mark.parametrize("name", errors.__all__)
def test_each_error_prints_one_message_and_ends_with_its_code(failing_command, capsys, name):
    error = getattr(errors, name)
    failing_command(error("The frobnicator is loose: tighten it."))
    assert cli.run(["fail"]) == error.exit_code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "Error: The frobnicator is loose: tighten it.\n")

    assert cli.run(["fail", "--json"]) == 2  # this command has no such option


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "The disk is full (/data/x). Free some space"),
        (errno.EROFS, "The disk is read-only (/data/x)"),
        (errno.EACCES, "No permission to read or write (/data/x)"),
        (errno.EMFILE, "Too many files are open (/data/x). Raise the limit (ulimit -n)"),
    ],
)
def test_a_disk_that_cannot_be_written_is_a_storage_error(failing_command, capsys, code, words):
    failing_command(OSError(code, os.strerror(code), "/data/x"))
    assert cli.run(["fail"]) == errors.StorageError.exit_code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "is out of memory. Use a smaller batch"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "is out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "is out of memory"),
        (RuntimeError("can't start new thread"), "starts no more threads. Use fewer workers"),
    ],
)
def test_a_machine_that_gives_no_more_is_no_bug(failing_command, capsys, error, words):
    failing_command(error)
    assert cli.run(["fail"]) == 1
    err = capsys.readouterr().err
    assert words in err
    assert "bug" not in err


def test_torch_has_words_of_its_own_for_too_many_files(failing_command, capsys):
    failing_command(RuntimeError("unable to open file <x> in mode: Too many open files (24)"))
    assert cli.run(["fail"]) == errors.StorageError.exit_code
    assert "Too many files are open. Raise the limit (ulimit -n)" in capsys.readouterr().err


def test_ctrl_c_ends_with_130(failing_command, capsys):
    failing_command(KeyboardInterrupt())
    assert cli.run(["fail"]) == 130
    assert capsys.readouterr().err.startswith("Error: Interrupted. ")


@pytest.mark.parametrize(
    "error", [ValueError("could not determine the shape"), errors.ModelError("It does not fit.")]
)
def test_what_a_library_makes_of_ctrl_c_is_ctrl_c(failing_command, capsys, monkeypatch, error):
    failing_command(error)
    monkeypatch.setattr(interrupts, "heard", True)
    assert cli.run(["fail"]) == 130
    assert capsys.readouterr().err.startswith("Error: Interrupted. ")


def test_a_command_may_choose_its_exit_code(failing_command, capsys):
    failing_command(typer.Exit(4))
    assert cli.run(["fail"]) == 4
    assert capsys.readouterr() == ("", "")


def test_a_bug_is_one_message_and_a_traceback_only_when_asked(failing_command, capsys, monkeypatch):
    failing_command(ZeroDivisionError("division by zero"))
    assert cli.run(["fail"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero. This is a bug" in err
    assert "Traceback" not in err

    monkeypatch.setenv("CLIPALIGN_DEBUG", "1")
    assert cli.run(["fail"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    writer = subprocess.Popen(
        [sys.executable, "-m", "clipalign", "plugins", "list", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    writer.stdout.close()
    stderr = writer.stderr.read().decode()
    writer.wait(timeout=60)
    writer.stderr.close()
    assert stderr == ""


def test_a_failing_plugin_hook_is_one_line_of_warning(make_package, failing_command, capsys):
    from clipalign.plugins import call_hook

    make_package(
        "clipalign-bad",
        """
        import clipalign

        @clipalign.hookimpl
        def step_logged(step):
            raise ConnectionError("tracker is away")
        """,
    )
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        cli._show_plugin_warnings()
        call_hook("step_logged", run_dir="r", step=1, metrics={})
    assert capsys.readouterr().err == (
        "Warning: clipalign-bad 1.0 failed in step_logged and was passed over: "
        "ConnectionError: tracker is away\n"
    )


def test_text_from_files_is_printed_inert():
    assert printable("a\x1b[31mb\u202ec\nd\te") == "a\\x1b[31mb\\u202ec\nd\te"
    assert printable("\u0645\u06cc\u200c\u0631") == "\u0645\u06cc\u200c\u0631"
    assert printable("👩\u200d🚒 naïve → ½") == "👩\u200d🚒 naïve → ½"


def test_json_has_no_nan_and_takes_paths(capsys, tmp_path):
    Console(json=True).result({"loss": float("nan"), "at": tmp_path, "shape": (1, 2)})
    assert json.loads(capsys.readouterr().out) == {
        "loss": None,
        "at": str(tmp_path),
        "shape": [1, 2],
    }


def test_quiet_and_json_leave_only_the_result(capsys):
    for out in (Console(quiet=True), Console(json=True, quiet=True)):
        out.say("Hello.")
        out.note("Loading.")
        with out.progress("Training", 3) as bar:
            bar.advance()
        out.result({"n": 1}, "n = 1")
    printed = capsys.readouterr()
    assert printed.out == 'n = 1\n{\n  "n": 1\n}\n'
    assert printed.err == ""


def test_progress_off_a_terminal_is_a_line_now_and_then():
    now, lines = [0.0], []
    bar = PlainBar("Training", 400, every=10, clock=lambda: now[0], write=lines.append)
    for step in range(1, 401):
        now[0] = step / 8
        bar.advance(loss=1 / step)
    bar.finish()
    assert lines[0] == "Training 80/400 (20 %), loss 0.0125, 8/s, 0:00:40 left"
    assert lines[-1] == "Training 400/400 (100 %), loss 0.0025, 8/s"
    assert len(lines) == 5


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Console().progress("Training", 2) as bar:
        bar.advance(loss=0.25)
        time.sleep(0.2)
        bar.advance(loss=0.125)
    assert "Training" in terminal.getvalue()
    assert "loss 0.125" in terminal.getvalue()


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch):
    from clipalign.cli.console import paint

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert paint("Error:", "red", Terminal()) == "\x1b[31mError:\x1b[0m"
    assert paint("Error:", "red", io.StringIO()) == "Error:"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("Error:", "red", Terminal()) == "Error:"


def test_tables_align_and_wrap_their_last_column():
    text = table(["NAME", "WHAT"], [["a", "one two three four five"], ["long-name", "x"]], width=31)
    assert text.splitlines() == [
        "NAME       WHAT",
        "a          one two three four",
        "           five",
        "long-name  x",
    ]


def test_a_paragraph_is_folded_at_the_terminal_and_no_wider_than_it_reads(monkeypatch, capsys):
    for columns, most in (("60", 60), ("300", 100)):
        monkeypatch.setenv("COLUMNS", columns)
        folded = wrapped("A few words. " * 40, indent="  ").splitlines()
        assert most - 8 < max(map(len, folded)) <= most
        assert all(line.startswith("  A") or line[2].isalpha() for line in folded)
    monkeypatch.delenv("COLUMNS")
    assert wrapped("A few words. " * 40) == "A few words. " * 40  # nothing to fold for


def test_a_terminal_without_escapes_has_a_width_too(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((72, 24)))
    assert terminal_width() == 72


@pytest.mark.parametrize("line", ["report {}", "transform {} --t 0", "compare {}.yaml"])
def test_a_name_that_is_too_long_is_no_bug(capsys, line):
    assert cli.run(line.format("9" * 400).split()) == 2
    assert "A name is longer than this disk allows" in capsys.readouterr().err
