"""clipalign: preference optimisation for CLIP-like models.

    import clipalign

    clipalign.train(method="kto", task="typographic")
    loss = clipalign.objective("dpo", beta=0.5)

Everything is lazy: importing this package loads neither torch nor open_clip, so that the command
line answers at once and a plugin can import `hookimpl` at no cost.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clipalign._version import __version__

if TYPE_CHECKING:
    from clipalign.build import objective
    from clipalign.comparison.compare import compare
    from clipalign.datasets.memory import ImageList
    from clipalign.errors import (
        ClipAlignError,
        ConfigError,
        DataError,
        Interrupted,
        ModelError,
        PluginError,
        RunError,
        StorageError,
        TrainingError,
        UsageError,
    )
    from clipalign.evals.evaluate import evaluate
    from clipalign.evals.publish import export
    from clipalign.evals.retrieve import retrieve
    from clipalign.hookspecs import hookimpl
    from clipalign.models.load import load_model
    from clipalign.objectives.base import Objective, ObjectiveOptions, PolicyBatch
    from clipalign.plugins import register
    from clipalign.regularisers import Regulariser
    from clipalign.reports.report import report
    from clipalign.tasks.prepare import prepare, prepare_part
    from clipalign.trackers import Tracker, TrackerOptions
    from clipalign.training.train import train
    from clipalign.transforms.transform import scan, transform

__all__ = [
    "ClipAlignError",
    "ConfigError",
    "DataError",
    "ImageList",
    "Interrupted",
    "ModelError",
    "Objective",
    "ObjectiveOptions",
    "PluginError",
    "PolicyBatch",
    "Regulariser",
    "RunError",
    "StorageError",
    "Tracker",
    "TrackerOptions",
    "TrainingError",
    "UsageError",
    "__version__",
    "compare",
    "evaluate",
    "export",
    "hookimpl",
    "load_model",
    "objective",
    "prepare",
    "prepare_part",
    "register",
    "report",
    "retrieve",
    "scan",
    "train",
    "transform",
]

_HOME = {
    "compare": "clipalign.comparison.compare",
    "evaluate": "clipalign.evals.evaluate",
    "export": "clipalign.evals.publish",
    "hookimpl": "clipalign.hookspecs",
    "load_model": "clipalign.models.load",
    "objective": "clipalign.build",
    "prepare": "clipalign.tasks.prepare",
    "prepare_part": "clipalign.tasks.prepare",
    "register": "clipalign.plugins",
    "report": "clipalign.reports.report",
    "retrieve": "clipalign.evals.retrieve",
    "scan": "clipalign.transforms.transform",
    "train": "clipalign.training.train",
    "transform": "clipalign.transforms.transform",
    "ImageList": "clipalign.datasets.memory",
    "Objective": "clipalign.objectives.base",
    "ObjectiveOptions": "clipalign.objectives.base",
    "PolicyBatch": "clipalign.objectives.base",
    "Regulariser": "clipalign.regularisers",
    "Tracker": "clipalign.trackers",
    "TrackerOptions": "clipalign.trackers",
}
"""Where each public name lives; the exceptions, which are the rest, live in clipalign.errors."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'clipalign' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME.get(name, "clipalign.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
