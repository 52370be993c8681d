"""What packages add to the registry, and which of them are loaded."""

from __future__ import annotations

import json
import re
import sys

import pytest

from clipalign import hookspecs
from clipalign.errors import UsageError
from clipalign.plugins import plugin_report, registry
from tests.plugin_packages import GOOD, status_of


def test_the_built_ins_come_through_their_own_entry_point():
    status = plugin_report()[0]
    assert (status.name, status.package, status.status) == ("builtins", "clipalign", "ok")
    assert registry("objectives").names()[:5] == ["dpo", "ipo", "kto", "rlhf", "cross-entropy"]
    assert registry("regularisers").names()[:4] == ["forward-kl", "reverse-kl", "js", "none"]


@pytest.mark.parametrize("kind", hookspecs.KINDS)
def test_a_package_adds_a_thing_of_every_kind(make_package, kind):
    make_package(
        "clipalign-good",
        f"""
        import clipalign

        @clipalign.hookimpl
        def register_{kind}(register):
            register("good", "json:JSONDecoder", summary="Decodes.", paper="none")
        """,
        version="2.1",
    )
    entry = registry(kind).entry("good")
    assert (entry.package, entry.version, entry.summary) == ("clipalign-good", "2.1", "Decodes.")
    assert entry.metadata == {"paper": "none"}
    assert re.search(r"clipalign_good\.py:6$", entry.origin)
    assert registry(kind).load("good") is json.JSONDecoder


def test_looking_names_up_imports_no_target(make_package):
    make_package(
        "clipalign-lazy",
        """
        import clipalign

        @clipalign.hookimpl
        def register_tasks(register):
            register("lazy", "xml.dom.expatbuilder:Namespaces", summary="Slow to import.")
        """,
    )
    sys.modules.pop("xml.dom.expatbuilder", None)
    assert "lazy" in registry("tasks").names()
    assert "xml.dom.expatbuilder" not in sys.modules
    registry("tasks").load("lazy")
    assert "xml.dom.expatbuilder" in sys.modules


def test_the_built_in_keeps_a_name_that_a_package_also_wants(make_package):
    make_package(
        "a-clash",  # sorts before clipalign, and still comes second
        """
        import clipalign

        @clipalign.hookimpl
        def register_objectives(register):
            register("kto", "json:JSONDecoder", summary="Mine.")
            register("fine", "json:JSONDecoder", summary="Free.")
        """,
    )
    status = status_of("a-clash")
    assert status.status == "clash"
    assert "objective 'kto' belongs to clipalign" in status.detail
    assert [e.name for e in status.refused] == ["kto"]
    assert [e.name for e in status.registered] == ["fine"]
    assert registry("objectives").entry("kto").package == "clipalign"


def test_the_same_name_may_stand_in_two_kinds(make_package):
    make_package("clipalign-good", GOOD.replace('"good"', '"typographic"'))
    assert status_of("clipalign-good").status == "ok"
    assert registry("tasks").entry("typographic").package == "clipalign"


@pytest.mark.parametrize(
    ("allowed", "loaded"),
    [
        (None, True),
        ("", False),
        ("other", False),
        ("good", True),
        ("clipalign-good", True),
        ("clipalign_good", True),
        (" other , Good ", True),
    ],
)
def test_the_environment_chooses_plugins_before_they_are_imported(
    make_package, monkeypatch, allowed, loaded
):
    module = make_package("clipalign-good", GOOD)
    if allowed is not None:
        monkeypatch.setenv("CLIPALIGN_PLUGINS", allowed)
    assert ("good" in registry("objectives").names()) == loaded
    assert (module in sys.modules) == loaded
    assert "kto" in registry("objectives").names()
    assert status_of("clipalign-good").status == ("ok" if loaded else "disabled")


def test_asking_for_a_plugin_that_is_not_installed_is_said(make_package, monkeypatch):
    make_package("clipalign-good", GOOD)
    monkeypatch.setenv("CLIPALIGN_PLUGINS", "good,goood")
    (absent,) = [s for s in plugin_report() if s.name == "goood"]
    assert absent.status == "error"
    assert "not installed. Did you mean 'good'" in absent.detail


def test_what_a_plugin_prints_stays_off_standard_output(make_package, capsys):
    make_package("clipalign-loud", "print('hello')\n" + GOOD)
    registry("objectives")
    out, err = capsys.readouterr()
    assert out == ""
    assert "hello" in err


def test_unknown_names_and_kinds_say_what_is_near():
    with pytest.raises(UsageError, match=r"There is no objective 'kot'\. Did you mean 'kto'"):
        registry("objectives").load("kot")
    with pytest.raises(
        UsageError, match=r"There is no kind 'objectve'\. Did you mean 'objectives'"
    ):
        registry("objectve")
