"""What a package that extends clipalign tests itself with.

    from clipalign.testing import ObjectiveContract

    class TestMyLoss(ObjectiveContract):
        cases = ["my-loss", ("my-loss", {"beta": 2.0})]

or, without a line of Python, `pytest --clipalign-objective my-loss`. Needs pytest, which clipalign
itself does not; nothing here is imported outside of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipalign.testing.batches import judged_batch, rows, with_policy
    from clipalign.testing.contract import ObjectiveContract

__all__ = ["ObjectiveContract", "judged_batch", "rows", "with_policy"]


# pytest imports this package in every run, for its plugin: torch has to wait until it is wanted.
def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'clipalign.testing' has no attribute {name!r}")
    home = "contract" if name == "ObjectiveContract" else "batches"
    return getattr(importlib.import_module(f"clipalign.testing.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
