"""What is said of a device that cannot be used."""

from __future__ import annotations

import torch

__all__ = ["devices_here", "refused_device"]


def devices_here() -> list[str]:
    """The devices of this machine, as they are named: cpu, cuda:0, cuda:1, mps."""
    found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def refused_device(device: str | torch.device, error: BaseException) -> str:
    """Which names there are, and which devices this machine has.

    Args:
        device: as it was named.
        error: that torch raised.
    """
    said = str(error).splitlines()[0].rstrip(".")
    # torch lists every backend that was ever written for it
    reason = "there is no such kind" if "Expected one of" in said else said
    return (
        f"The device {str(device)!r} cannot be used: {reason}. A device is named as cpu, cuda, "
        f"cuda:1 or mps, and this machine has {', '.join(devices_here())}."
    )
