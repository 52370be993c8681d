"""Registers the zoo with clipalign. An objective is imported only when it is built."""

from __future__ import annotations

from typing import Any

from clipalign import hookimpl

CLIPALIGN_API = 1

OBJECTIVES = {
    "robust": ("robust:Robust", "DPO, unbiased under flipped judgements."),
    "hinge": ("hinge:Hinge", "SLiC: a hinge on the margin of log-ratios."),
    "exo": ("exo:EXO", "Reverse KL to the judgement's own distribution."),
    "nca": ("nca:NCA", "Noise contrast: the chosen text's own probability must rise."),
    "bco": ("bco:BCO", "Binary classifier with a running threshold; unpaired judgements."),
    "sppo": ("sppo:SPPO", "Self-play: each log-ratio to its own target."),
    "aot": ("aot:AOT", "Optimal transport: margins over the batch, sorted."),
    "apo-zero": ("apo_zero:APOZero", "Anchored: chosen up, rejected down; unpaired judgements."),
    "discopop": ("discopop:DiscoPOP", "A discovered blend of logistic and exponential loss."),
    "cpo": ("cpo:CPO", "Reference-free, with likelihood of the chosen text."),
    "orpo": ("orpo:ORPO", "Reference-free odds ratio, with likelihood of the chosen text."),
    "f-dpo": ("f_dpo:FDPO", "DPO under forward KL, Jensen-Shannon or an alpha-divergence."),
    "listwise": ("listwise:Listwise", "One chosen text against K rejected (Plackett-Luce)."),
    "soft-dpo": ("soft_dpo:SoftDPO", "Judgements held with a probability."),
    "ppo-clip": ("ppo_clip:PPOClip", "Clipped surrogate in closed form; rlhf without the clip."),
}
"""Name → module and class, and one line."""


@hookimpl
def register_objectives(register: Any) -> None:
    """Offer them all. SimPO comes from the package clipalign-simpo."""
    for name, (target, summary) in OBJECTIVES.items():
        register(name, f"clipalign_preference_zoo.{target}", summary=summary)
