"""What all rivals share: the model that one was fitted to, and labels that some need."""

from __future__ import annotations

import importlib
from types import ModuleType

from clipalign import ModelError, UsageError
from clipalign.models.loaded import LoadedModel

__all__ = ["check_same_model", "extra"]


def check_same_model(what: str, sha256: str, model: LoadedModel) -> None:
    """Refuse another model than the one that was looked at.

    Args:
        what: was fitted.
        sha256: of the weights of the model that it was fitted to.
        model: that it is to be applied to.

    Raises:
        ModelError: naming both.
    """
    if model.sha256 != sha256:
        raise ModelError(
            f"The {what} was fitted to the model {sha256[:12]}…, and {model.spec} is "
            f"{model.sha256[:12]}…. Fit it again."
        )


def extra(module: str, method: str, package: str) -> ModuleType:
    """A library that one method alone needs.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"The transform {method!r} needs {package}, which is not installed ({error}). Install "
            f"it with: pip install 'clipalign-baselines[{method}]'"
        ) from None
