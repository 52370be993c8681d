"""Registers the rivals with clipalign. What they need is imported only when one is used."""

from __future__ import annotations

from typing import Any

from clipalign import hookimpl

CLIPALIGN_API = 1


@hookimpl
def register_transforms(register: Any) -> None:
    """Offer each rival as `clipalign transform MODEL --method NAME`."""
    register(
        "defense-prefix",
        "clipalign_baselines.defense_prefix:DefensePrefix",
        summary="One learned token before the class name (Azuma and Matsui 2023).",
    )
    register(
        "orthogonal-projection",
        "clipalign_baselines.orthogonal:OrthogonalProjection",
        summary="A learned projection to k dimensions (Materzyńska et al. 2022).",
    )
    register(
        "head-ablation",
        "clipalign_baselines.head_ablation:HeadAblation",
        summary="Zero the attention heads that read text, as Dyslexify does.",
    )
    register(
        "leace",
        "clipalign_baselines.leace:Leace",
        summary="Closed-form least-squares erasure of a concept (Belrose et al. 2023).",
    )
    register(
        "clip-clip",
        "clipalign_baselines.clip_clip:ClipClip",
        summary="Drop the dimensions that tell most of a concept (Wang et al. 2021).",
    )
