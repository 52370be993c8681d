"""A plugin that is broken is named, with what is wrong, and the others work."""

from __future__ import annotations

import re
import sys

import pytest

from clipalign import __version__
from clipalign.errors import Interrupted, PluginError, UsageError
from clipalign.plugins import registry
from tests.plugin_packages import GOOD, status_of

BROKEN = {
    "raises-on-import": ("raise OSError('no licence file')", "OSError: no licence file"),
    "exits-on-import": ("raise SystemExit(3)", "SystemExit: 3"),
    "misspelt-hook": (
        """
        import clipalign

        @clipalign.hookimpl
        def register_objective(register):
            register("x", "json:loads", summary="x")
        """,
        "'register_objective': Did you mean 'register_objectives'",
    ),
    "wrong-argument": (
        """
        import clipalign

        @clipalign.hookimpl
        def register_objectives(registry):
            registry("x", "json:loads", summary="x")
        """,
        "'registry'",
    ),
    "other-interface": (
        """
        import clipalign

        CLIPALIGN_API = 99

        @clipalign.hookimpl
        def register_objectives(register):
            register("x", "json:loads", summary="x")
        """,
        f"written for plugin interface 99, and clipalign {__version__} offers 1",
    ),
    "long-training": (
        """
        import clipalign

        @clipalign.hookimpl
        def register_datasets(register):
            register("x", "json:loads", summary="x", epochs="many")
        """,
        "epochs must be a whole number, not 'many'",
    ),
    "axes-of-numbers": (
        """
        import clipalign

        @clipalign.hookimpl
        def register_suites(register):
            register("x", "json:loads", summary="x", axes=(1,))
        """,
        "axes are names of metrics, not (1,)",
    ),
    "one-axis": (
        """
        import clipalign

        @clipalign.hookimpl
        def register_suites(register):
            register("x", "json:loads", summary="x", axes="accuracy")
        """,
        "axes must be a tuple, not 'accuracy'",
    ),
    "raises-midway": (
        """
        import clipalign

        @clipalign.hookimpl
        def register_objectives(register):
            register("half", "json:loads", summary="x")
            raise KeyError("the other half")
        """,
        "KeyError: 'the other half'",
    ),
    "no-hook": ("def register_objectives(register): pass", "implements no hook"),
    "bad-target": (
        """
        import clipalign

        @clipalign.hookimpl
        def register_objectives(register):
            register("x", "json.loads", summary="x")
        """,
        "a target is written 'package.module:attribute'",
    ),
    "bad-name": (
        """
        import clipalign

        @clipalign.hookimpl
        def register_objectives(register):
            register("\\x1b[31mred", "json:loads", summary="x")
        """,
        "a name is lower-case letters, digits",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_a_row_and_the_others_work(make_package, fault):
    source, words = BROKEN[fault]
    make_package(f"clipalign-{fault}", source)
    make_package("clipalign-good", GOOD)

    status = status_of(f"clipalign-{fault}")
    assert status.status == "error"
    assert words in status.detail
    assert "Traceback" in status.traceback
    assert status.registered == ()

    names = registry("objectives").names()
    assert "good" in names
    assert "kto" in names
    assert not {"x", "half"} & set(names)
    with pytest.raises(UsageError, match=f"because they are broken: .*clipalign-{fault}"):
        registry("objectives").entry("nowhere-near")


def test_a_package_with_a_malformed_entry_point_file_is_a_row(make_package):
    make_package("clipalign-bad", "", entry_points="[clipalign]\nthis line has no equals sign\n")
    make_package("clipalign-good", GOOD)
    assert "entry_points.txt cannot be read" in status_of("clipalign-bad").detail
    assert "good" in registry("objectives").names()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module_at_all:X", "ModuleNotFoundError"),
        ("json:no_such_thing", "AttributeError"),
    ],
)
def test_a_target_that_does_not_import_names_its_package(make_package, target, words):
    make_package("clipalign-good", GOOD.replace("json:JSONDecoder", target))
    with pytest.raises(PluginError, match=f"'good' of clipalign-good 1.0 cannot be .*{words}"):
        registry("objectives").load("good")


BAD = """
import clipalign

@clipalign.hookimpl
def register_objectives(register):
    register("bad", "clipalign_bad:Bad", summary="x")

@clipalign.hookimpl
def register_tasks(register):
    register("bad", "clipalign_bad:Task", summary="x")

class Bad(clipalign.Objective):
    def forward(self, batch):
        return {gives}

def fail():
    raise SystemExit(0)

class Task:
    name = {name!r}
"""


@pytest.mark.parametrize(
    ("gives", "words"),
    [
        ("batch.log_ratio(batch.chosen).mean()", r"gave torch.float32 \[\]"),
        ("batch.chosen", "gave torch.int64"),
        ("None", "gave None"),
        ("batch.reference.zero_().sum(1)", "changed its input in place"),
    ],
)
def test_an_objective_that_gives_no_loss_an_image_is_named(make_package, gives, words):
    import torch

    import clipalign

    make_package("clipalign-bad", BAD.format(gives=gives, name="bad"))
    logs = torch.zeros(2, 3)
    batch = clipalign.PolicyBatch(logs, logs.clone(), torch.tensor([0, 1]), torch.tensor([1, 0]))
    for loss in (clipalign.objective("bad"), clipalign.objective(["kto", "bad"])):
        with pytest.raises(PluginError, match=f"'bad' of clipalign-bad 1.0.*{words}"):
            loss(batch)


@pytest.mark.parametrize("weight", ["-1", "None", "float('inf')"])
def test_an_objective_whose_own_weight_is_none_is_named(make_package, weight):
    import clipalign

    source = BAD.format(gives="None", name="bad") + f"Bad.regulariser_weight = {weight}\n"
    make_package("clipalign-bad", source)
    with pytest.raises(PluginError, match=r"'bad' of clipalign-bad 1.0 has .*regulariser_weight"):
        clipalign.objective("bad")


@pytest.mark.parametrize(
    ("name", "words"),
    [("bad", "it has no options and no fingerprint"), ("kto", "it calls itself 'kto'")],
)
def test_a_component_that_is_none_is_named(make_package, name, words):
    from clipalign.options import component

    source = BAD.format(gives="None", name=name)
    if name == "kto":
        source += "    options = fingerprint = candidates = rows = None\n"
    make_package("clipalign-bad", source)
    with pytest.raises(PluginError, match=rf"clipalign-bad 1\.0 .*is none: {words}"):
        component("tasks", "bad")


def test_an_exception_is_traced_to_the_plugin_that_raised_it(make_package):
    from clipalign.plugins import blamed, owner_of

    module = make_package("clipalign-bad", BAD.format(gives="None", name="bad"))
    registry("objectives")
    with pytest.raises(SystemExit) as caught:
        sys.modules[module].fail()
    assert re.search(r"clipalign-bad 1\.0 failed in fail .*SystemExit", str(blamed(caught.value)))
    assert owner_of(sys.modules[module].Bad) == "clipalign-bad 1.0"
    with pytest.raises(KeyError) as caught:
        {}["x"]
    assert blamed(caught.value) is None


def test_ctrl_c_in_an_import_names_the_package(make_package):
    make_package("clipalign-endless", "raise KeyboardInterrupt")
    with pytest.raises(Interrupted, match=r"clipalign-endless 1\.0 was being loaded"):
        registry("objectives")
    sys.modules.pop("clipalign_endless", None)


def test_a_plugin_s_message_is_bounded_and_holds_no_password():
    from clipalign.plugin_loading import words

    text = words(ValueError("https://me:secret@host/x " + "A" * 9999))
    assert text.startswith("ValueError: https://…@host/x AAA")
    assert len(text) < 600
    mute = type("Mute", (Exception,), {"__str__": lambda self: 1 / 0})()
    assert "cannot be read: ZeroDivisionError" in words(mute)
