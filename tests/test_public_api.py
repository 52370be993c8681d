"""`import clipalign` offers what the README says, lazily."""

from __future__ import annotations

import subprocess
import sys

import pytest

import clipalign

HEAVY = {"torch", "open_clip", "numpy", "PIL", "pydantic", "yaml", "pluggy", "typer", "rich"}


@pytest.mark.parametrize("name", clipalign.__all__)
def test_every_public_name_is_there(name):
    assert getattr(clipalign, name) is not None
    assert name in dir(clipalign)


def test_the_names_are_sorted_so_that_a_new_one_has_one_place():
    assert clipalign.__all__ == sorted(clipalign.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="lode_model"):
        _ = clipalign.lode_model


@pytest.mark.parametrize("code", ["import clipalign", "from clipalign import ClipAlignError"])
def test_importing_loads_nothing_heavy(code):
    show = f"{code}\nimport sys\nprint(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", show], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert not HEAVY & set(loaded)
