"""Registers SimPO with clipalign. The objective itself is imported only when it is built."""

from __future__ import annotations

from typing import Any

from clipalign import hookimpl

CLIPALIGN_API = 1


@hookimpl
def register_objectives(register: Any) -> None:
    """Offer the objective "simpo"."""
    register(
        "simpo",
        "clipalign_simpo.objective:SimPO",
        summary="Reference-free, with a target margin (Meng et al. 2024).",
    )
