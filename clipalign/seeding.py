"""Torch's global generators: seeded for a while, and then as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["seeded"]


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the generators of the CPU and of one GPU within a block, and put them back after it.

    `torch.manual_seed` would reseed those of all GPUs, where `fork_rng` puts back those it names.

    Args:
        seed: of both.
        device: "cuda", "cuda:1", …; with any other, or one that is not there, the CPU's alone.
    """
    gpus = _gpus(device)
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


def _gpus(device: torch.device | str) -> list[int]:
    """The number of the GPU that a device is; whoever uses a device says what is wrong with it."""
    try:
        found = torch.device(device)
    except RuntimeError:
        return []
    if found.type != "cuda" or not torch.cuda.device_count():
        return []
    index = torch.cuda.current_device() if found.index is None else found.index
    return [index] if index < torch.cuda.device_count() else []
