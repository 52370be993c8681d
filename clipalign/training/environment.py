"""What a run records of the machine and the versions that train it."""

from __future__ import annotations

import platform
from typing import Any

import torch

from clipalign._version import __version__
from clipalign.models.load import open_clip_module
from clipalign.models.loaded import LoadedModel
from clipalign.training.distributed import World

__all__ = ["environment_of"]


def environment_of(model: LoadedModel, world: World) -> dict[str, Any]:
    """Versions and machine: what a reader needs to reproduce, and nothing of the environment."""
    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "clipalign": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "open_clip": str(getattr(open_clip_module(), "__version__", "?")),
        "platform": platform.platform(),
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "processes": world.size,
        "model_sha256": model.sha256,
    }
