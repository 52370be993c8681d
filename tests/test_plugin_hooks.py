"""Every hook: its signature is documented, and a plugin that raises in one harms nobody."""

from __future__ import annotations

import inspect
import re
import sys
import warnings

import pytest

from clipalign import hookspecs
from clipalign.errors import Interrupted
from clipalign.plugins import PluginWarning, call_hook

REGISTRATION_HOOKS = [f"register_{kind}" for kind in hookspecs.KINDS]
LIFE_CYCLE_HOOKS = {
    "run_started": {"run_dir": "runs/a", "config": None},
    "step_logged": {"run_dir": "runs/a", "step": 3, "metrics": {"loss": 0.5}},
    "checkpoint_saved": {"run_dir": "runs/a", "path": "runs/a/checkpoints/3", "step": 3},
    "run_finished": {"run_dir": "runs/a", "summary": {"step": 3}},
}


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
        assert re.search(rf"^ +{name}: \S", function.__doc__, re.MULTILINE), name


def test_what_registration_hooks_are_handed_is_documented():
    call = hookspecs.Register.__call__
    for name in list(inspect.signature(call).parameters)[1:]:
        assert re.search(rf"^ +\**{name}: \S", call.__doc__, re.MULTILINE), name


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


def test_a_stop_within_a_hook_stops(make_package):
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
