"""A class whose constructor loses the options of its base is told how it keeps them."""

from __future__ import annotations

import re

import pytest

import clipalign
from clipalign import plugins
from clipalign.config import load_config
from clipalign.errors import ConfigError, PluginError
from clipalign.options import component

HOW = r"`Options` declares .* must call `super\(\).__init__\(\*\*options\)`"


class Margin(clipalign.Objective):
    def __init__(self, beta=1.0):
        self.beta = beta


class Mine(clipalign.Tracker):
    def __init__(self, path="x"):
        self.path = path


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(plugins, "_registered", {})
    clipalign.register("objective", "margin", Margin)
    clipalign.register("tracker", "mine", Mine)


def test_what_has_lost_its_options_is_told_how_it_keeps_them():
    with pytest.raises(PluginError, match=f"'margin' of .* is none: it has no options. {HOW}"):
        clipalign.objective("margin")
    with pytest.raises(PluginError, match=f"'mine' of .* is none: it has no options. {HOW}"):
        component("trackers", "mine")


def test_a_parameter_that_no_options_declare_is_told_where_it_is_declared():
    with pytest.raises(ConfigError) as refused:
        load_config(
            None,
            check_options=True,
            method="margin",
            method_options={"beta": 2.0, "gamma": 1},
            trackers=[{"mine": {"path": "y"}}],
        )
    beta, gamma, path = str(refused.value).splitlines()[1:]
    assert re.fullmatch(rf"  method_options\.beta: unknown key\. {HOW}\.", beta)
    assert gamma == "  method_options.gamma: unknown key."
    assert re.fullmatch(rf"  trackers\.0\.mine\.path: unknown key\. {HOW}\.", path)
