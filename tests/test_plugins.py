"""A plugin adds things by name; a broken one is a row in the report and harms nothing else."""

from __future__ import annotations

import inspect
import json
import re
import sys
import warnings

import pytest

from clipalign import __version__, hookspecs
from clipalign.errors import PluginError, UsageError
from clipalign.plugins import PluginWarning, call_hook, plugin_report, registry

GOOD = """
import clipalign

@clipalign.hookimpl
def register_objectives(register):
    register("good", "json:JSONDecoder", summary="Decodes.", paper="none")
"""

REGISTRATION_HOOKS = [f"register_{kind}" for kind in hookspecs.KINDS]
LIFE_CYCLE_HOOKS = {
    "run_started": {"run_dir": "runs/a", "config": None},
    "step_logged": {"run_dir": "runs/a", "step": 3, "metrics": {"loss": 0.5}},
    "checkpoint_saved": {"run_dir": "runs/a", "path": "runs/a/checkpoints/3", "step": 3},
    "run_finished": {"run_dir": "runs/a", "summary": {"step": 3}},
}


def status_of(package):
    (status,) = [s for s in plugin_report() if s.package == package]
    return status


def hooks():
    return {n for n, f in vars(hookspecs).items() if hasattr(f, "clipalign_spec")}


def test_every_hook_is_tested_here_and_documented():
    assert hooks() == {*REGISTRATION_HOOKS, *LIFE_CYCLE_HOOKS}


@pytest.mark.parametrize("hook", sorted(hooks()))
def test_every_hook_documents_its_signature(hook):
    function = getattr(hookspecs, hook)
    signature = inspect.signature(function)
    assert signature.return_annotation == "None"
    assert all(p.annotation is not p.empty for p in signature.parameters.values())
    if hook in REGISTRATION_HOOKS:  # all are handed the same thing; what differs is the target
        assert list(signature.parameters) == ["register"]
        assert re.search(r"The target (is|builds) ", function.__doc__)
        return
    assert list(signature.parameters) == list(LIFE_CYCLE_HOOKS[hook])
    for name in signature.parameters:
        assert re.search(rf"^ {{8}}{name}: \S", function.__doc__, re.MULTILINE), name


def test_what_registration_hooks_are_handed_is_documented():
    call = hookspecs.Register.__call__
    for name in list(inspect.signature(call).parameters)[1:]:
        assert re.search(rf"^ +\**{name}: \S", call.__doc__, re.MULTILINE), name


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
        UsageError, match=r"There is no kind 'objective'\. Did you mean 'objectives'"
    ):
        registry("objective")


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


@pytest.mark.parametrize("hook", LIFE_CYCLE_HOOKS)
def test_life_cycle_hooks_reach_every_plugin_past_one_that_raises(make_package, hook):
    listening = f"""
        import clipalign
        calls = []

        @clipalign.hookimpl
        def {hook}({", ".join(LIFE_CYCLE_HOOKS[hook])}):
            calls.append(({", ".join(LIFE_CYCLE_HOOKS[hook])}))
        """
    make_package("clipalign-a", listening)
    make_package(
        "clipalign-b",
        f"""
        import clipalign

        @clipalign.hookimpl
        def {hook}():
            raise ConnectionError("tracker is away")
        """,
    )
    make_package("clipalign-c", listening)
    with pytest.warns(PluginWarning, match=rf"clipalign-b 1.0 failed in {hook}.*tracker is away"):
        call_hook(hook, **LIFE_CYCLE_HOOKS[hook])
    for module in ("clipalign_a", "clipalign_c"):
        assert sys.modules[module].calls == [tuple(LIFE_CYCLE_HOOKS[hook].values())]


def test_a_plugin_cannot_change_the_metrics_of_the_run(make_package):
    make_package(
        "clipalign-meddler",
        """
        import clipalign

        @clipalign.hookimpl
        def step_logged(metrics):
            metrics["loss"] = 0
        """,
    )
    metrics = {"loss": 0.5}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call_hook("step_logged", run_dir="runs/a", step=1, metrics=metrics)
    assert metrics == {"loss": 0.5}


def test_a_hook_that_does_not_exist_is_a_mistake_of_the_caller():
    with pytest.raises(AttributeError, match="step_loged"):
        call_hook("step_loged", step=1)


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


def test_a_stop_within_a_hook_stops(make_package):
    from clipalign.errors import Interrupted

    make_package(
        "clipalign-slow",
        """
        import clipalign

        @clipalign.hookimpl
        def run_started():
            raise clipalign.Interrupted("Stopped by SIGTERM.")  # as the signal's handler does
        """,
    )
    with pytest.raises(Interrupted):
        call_hook("run_started", **LIFE_CYCLE_HOOKS["run_started"])


def test_ctrl_c_in_an_import_names_the_package(make_package):
    from clipalign.errors import Interrupted

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
