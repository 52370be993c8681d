"""What the three trackers share: a library that may be missing, and names of charts."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from clipalign import PluginError


def library(module: str, tracker: str) -> Any:
    """Import what a tracker needs.

    Raises:
        PluginError: it is not installed; with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PluginError(
            f"The tracker {tracker!r} needs a library that is not installed ({error}): "
            f"pip install 'clipalign-trackers[{tracker}]'"
        ) from None


def chart(name: str) -> str:
    """`validation/loss` for validation_loss and `train/loss` for loss: one group of charts each."""
    if name.startswith("validation_"):
        return "validation/" + name.removeprefix("validation_")
    return f"train/{name}"


def flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """("train.lr", 0.1), … of {"train": {"lr": 0.1}}."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
