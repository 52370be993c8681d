"""Libraries that one rival alone needs."""

from __future__ import annotations

import importlib
from types import ModuleType

from clipalign import UsageError

__all__ = ["extra"]


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
