"""How the image tower computes while it trains: what is kept, in which order, by which kernels.

None of it changes what is computed beyond rounding. Whether it gains anything depends on the tower
and the machine, so each is an option that is measured (tests/benchmarks/test_options.py).
"""

from __future__ import annotations

import importlib
import os
import shutil
from typing import TYPE_CHECKING, Any

import torch

from clipalign.errors import UsageError

if TYPE_CHECKING:
    from clipalign.models.loaded import LoadedModel

__all__ = ["accelerate"]


def accelerate(
    model: LoadedModel,
    *,
    gradient_checkpointing: bool = False,
    compile: bool = False,
    channels_last: bool | None = None,
) -> None:
    """Set how the image tower computes, in place.

    Args:
        model: after `apply_trainable`, and after its reference features were computed.
        gradient_checkpointing: keep the input of each block only, and compute the rest again on
            the way back: less memory, a forward more.
        compile: by torch.compile, for each batch size by itself. One graph for many sizes would be
            met in another order after a resume, and so round otherwise.
        channels_last: memory order of images and convolutions; None leaves what the model chose.

    Raises:
        UsageError: the tower cannot be checkpointed, or there is no compiler.
    """
    visual = model.clip.visual
    if channels_last is not None:
        model.set_memory_format(torch.channels_last if channels_last else torch.contiguous_format)
    if gradient_checkpointing:
        _checkpoint_blocks(visual, model.name)
    if compile:
        _check_compiler(model.device)
        visual.compile(dynamic=False)


def _checkpoint_blocks(visual: Any, name: str) -> None:
    trunk = getattr(visual, "trunk", None)
    try:
        if trunk is not None:
            # The older way of torch gives no gradient to a block whose input has none (last:K).
            importlib.import_module("timm.layers").set_reentrant_ckpt(False)
            trunk.set_grad_checkpointing(True)
            return
        if hasattr(visual, "transformer"):
            visual.set_grad_checkpointing(True)
            return
    except (AttributeError, AssertionError, NotImplementedError):
        pass
    raise UsageError(
        f"The image tower of {name} has no gradient checkpointing ({type(visual).__name__}). Set "
        "train.gradient_checkpointing=false; train.accumulate saves memory too."
    )


def _check_compiler(device: torch.device) -> None:
    wanted = [os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl"]
    if device.type == "cpu" and not any(shutil.which(name) for name in wanted if name):
        raise UsageError(
            "train.compile=true needs a C++ compiler on a CPU, and none was found. Install g++, or "
            "set train.compile=false."
        )
