"""`clipalign plugins` shows what is there, where it is from, and what is broken and why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from clipalign import __version__
from clipalign.cli.app import run
from clipalign.cli.plain_words import option_rows, type_words, value_words
from clipalign.plugins import registry
from clipalign.tasks.concept import ConceptTask

GOOD = """
import clipalign

@clipalign.hookimpl
def register_objectives(register):
    register("good", "clipalign_good_target:Good", summary="A \\x1b[31mgood\\n one.", paper="none")
"""

TARGET = '''
from pydantic import BaseModel, Field

class Good:
    """Does good."""
    class Options(BaseModel):
        beta: float = Field(0.5, description="How much good.")
        only: str = Field(description="To whom.")
'''


def install(make_package, target=TARGET):
    make_package("clipalign-good", GOOD, version="2.1")
    (make_package.folder / "clipalign_good_target.py").write_text(target)
    make_package("clipalign-broken", "raise RuntimeError('no licence file')")
    make_package("clipalign-taken", GOOD.replace('"good"', '"kto"'))


def test_list_shows_every_thing_with_its_package_and_state(command, make_package):
    install(make_package)
    done = command("plugins", "list", "--json", env=make_package.env)
    rows = json.loads(done.stdout)
    states = {(r["kind"], r["name"], r["package"]): r["status"] for r in rows}
    assert states["objectives", "dpo", "clipalign"] == "ok"
    assert states["objectives", "good", "clipalign-good"] == "ok"
    assert states["objectives", "kto", "clipalign-taken"] == "clash"
    assert states["-", "broken", "clipalign-broken"] == "error"
    (good,) = [r for r in rows if r["name"] == "good"]
    assert good["version"] == "2.1"
    assert good["summary"] == "A [31mgood one."


def test_list_is_a_table_and_can_be_narrowed(command, make_package):
    install(make_package)
    text = command("plugins", "list", "--kind", "regularisers", env=make_package.env).stdout
    lines = [line.split()[:2] for line in text.splitlines()]
    assert lines[:2] == [["KIND", "NAME"], ["regularisers", "forward-kl"]]
    assert ["-", "broken"] in lines
    assert "RuntimeError: no licence file" in text
    assert "dpo" not in text


def test_list_of_an_unknown_kind_names_the_near_one(command):
    done = command("plugins", "list", "--kind", "objectve")
    assert done.returncode == 2
    assert "There is no kind 'objectve'. Did you mean 'objectives'" in done.stderr


def test_a_kind_may_be_singular_or_plural_everywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    listed = []
    for kind in ("objective", "objectives"):
        assert run(["plugins", "list", "--kind", kind, "--json"]) == 0
        listed.append(json.loads(capsys.readouterr().out))
        assert run(["plugins", "show", f"{kind}/kto", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["kind"] == "objectives"
        assert run(["plugins", "new", f"my-{kind}", "--kind", kind, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["kind"] == "objective"
    assert listed[0] == listed[1]
    assert {row["kind"] for row in listed[0]} >= {"objectives"}


def test_show_speaks_of_types_and_values_as_yaml_does(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    for kind in ("tasks", "suites", "datasets", "transforms"):
        for name in registry(kind).names():
            assert run(["plugins", "show", f"{kind}/{name}"]) == 0
            text = capsys.readouterr().out
            assert not re.search(r"0x[0-9a-f]{6}|Optional|Literal|typing|NoneType", text)
    assert run(["plugins", "show", "suites/typographic"]) == 0
    text = capsys.readouterr().out
    options = text.partition("NAME ")[2].partition("\n\nAccuracy clean")[0]
    assert max(map(len, options.splitlines())) <= 60
    assert "list of outlined|note" in options
    assert "train|test or null" in options
    assert "[outlined, note]" in options


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | float, "number"),
        (Annotated[str, "checked"] | None, "text or null"),
        (tuple[float, float], "list of number"),
        (dict[str, int], "mapping of text to whole number"),
        (Literal["a", True, None], "a|true|null"),
        (tuple[Path, ...] | None, "list of path or null"),
        (Any, "anything"),
        (list, "list"),
    ],
)
def test_types_in_words(annotation, words):
    assert type_words(annotation) == words


def test_values_in_words():
    values = (None, True, ("a", "b"), {"concepts": 10}, Path("a/b"), "null", 0.5)
    assert list(map(value_words, values)) == [
        "null", "true", "[a, b]", "{concepts: 10}", "a/b", "'null'", "0.5",
    ]  # fmt: skip


def test_plugins_can_be_switched_off(command, make_package):
    install(make_package)
    done = command("plugins", "list", "--json", env=make_package.env | {"CLIPALIGN_PLUGINS": ""})
    states = {
        r["name"]: r["status"] for r in json.loads(done.stdout) if r["package"] != "clipalign"
    }
    assert set(states.values()) == {"disabled"}


def test_show_tells_origin_options_and_documentation(command, make_package):
    install(make_package)
    done = command("plugins", "show", "good", "--json", env=make_package.env)
    document = json.loads(done.stdout)
    assert document["kind"] == "objectives"
    assert document["package"] == "clipalign-good"
    assert document["origin"].endswith("clipalign_good.py:6")
    assert document["metadata"] == {"paper": "none"}
    assert document["documentation"] == "Does good."
    assert document["options"] == [
        {"name": "beta", "type": "number", "default": 0.5, "description": "How much good."},
        {"name": "only", "type": "text", "default": "required", "description": "To whom."},
    ]
    text = command("plugins", "show", "objectives/good", env=make_package.env).stdout
    assert "clipalign-good 2.1" in text
    assert "How much good." in text


def test_options_of_a_plain_constructor_show_too(command, make_package):
    install(make_package, "class Good:\n    def __init__(self, size: int = 3): ...\n")
    done = command("plugins", "show", "good", "--json", env=make_package.env)
    assert json.loads(done.stdout)["options"] == [
        {"name": "size", "type": "whole number", "default": 3, "description": ""}
    ]


def test_show_of_an_unknown_name_names_the_near_ones(command):
    for name, words in {
        "kot": "Nothing is registered as 'kot'. Did you mean 'kto'",
        "objectives/kot": "There is no objective 'kot'. Did you mean 'kto'",
        "objectve/kto": "There is no kind 'objectve'. Did you mean 'objectives'",
    }.items():
        done = command("plugins", "show", name)
        assert done.returncode == 2
        assert words in done.stderr


def test_doctor_explains_each_fault_and_ends_with_4(command, make_package):
    install(make_package, "import no_such_dependency")
    done = command("plugins", "doctor", env=make_package.env)
    assert done.returncode == 4
    assert "broken (clipalign-broken 1.0): error" in done.stdout
    assert "RuntimeError: no licence file" in done.stdout
    assert "| Traceback (most recent call last):" in done.stdout
    assert "pip uninstall clipalign-broken" in done.stdout
    assert "taken (clipalign-taken 1.0): clash" in done.stdout
    assert "good (clipalign-good 2.1): error" in done.stdout
    assert "No module named 'no_such_dependency'" in done.stdout
    assert "3 of " in done.stderr

    done = command("plugins", "doctor", "--json", env=make_package.env)
    assert done.returncode == 4
    states = {d["plugin"]: d["status"] for d in json.loads(done.stdout)}
    assert states["builtins"] == "ok"
    assert states["broken"] == states["good"] == "error"


def test_doctor_is_content_when_all_is_well(command):
    done = command("plugins", "doctor", env={"CLIPALIGN_PLUGINS": ""})
    assert done.returncode == 0
    assert f"builtins (clipalign {__version__}): ok" in done.stdout


def test_a_command_from_a_package_runs_and_a_broken_one_harms_no_other(command, make_package):
    make_package(
        "clipalign-dance",
        """
        import clipalign

        @clipalign.hookimpl
        def register_commands(register):
            register("dance", "dancing:dance", summary="Dances.")
            register("limp", "no_such_module:limp", summary="Limps.")
            register("sit", "dancing:SEAT", summary="Sits.")
        """,
    )
    (make_package.folder / "dancing.py").write_text(
        "def dance(times: int = 1) -> None:\n    print('pas de ' * times)\nSEAT = 3\n"
    )
    assert command("dance", "--times", "2", env=make_package.env).stdout == "pas de pas de \n"
    helped = command("dance", "--help", env=make_package.env).stdout
    assert "Dances." in helped
    assert "--install-completion" not in helped
    assert command("sit", env=make_package.env).returncode == 4
    limped = command("limp", env=make_package.env)
    assert limped.returncode == 4
    assert "The command 'limp' of clipalign-dance 1.0 cannot be loaded" in limped.stderr


def test_a_default_that_is_made_anew_each_time_is_shown_as_it_is():
    (row,) = [r for r in option_rows(ConceptTask) if r["name"] == "keep_options"]
    assert row["default"] == {}
