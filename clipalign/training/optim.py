"""Optimiser and learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from clipalign.config import TrainConfig
from clipalign.errors import UsageError
from clipalign.models.towers import group_of
from clipalign.models.trainable import TrainablePart

_DECAY = "decoupled_weight_decay"


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    config: TrainConfig,
    lr: float,
    scales: Sequence[float] | None = None,
) -> torch.optim.Optimizer:
    """The optimiser over fp32 master weights.

    Weight decay is decoupled, p ← (1 − lr·λ) p before the step, and reaches matrices and
    convolutions only: gains and biases decay to nothing useful.
    Every parameter starts at `lr`; the engine sets the rate of each step, times the group's
    "lr_scale".

    Args:
        parameters: what trains.
        config: which optimiser, and its weight decay.
        lr: learning rate.
        scales: factor of the rate of each parameter, in the same order; None for 1.
    """
    parameters = list(parameters)
    scales = [1.0] * len(parameters) if scales is None else scales
    found: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter, scale in zip(parameters, scales, strict=True):
        found.setdefault((parameter.ndim < 2, scale), []).append(parameter)
    # torch's weight decay is decoupled in AdamW alone; in the others it goes into the gradient
    name = "weight_decay" if config.optimizer == "adamw" else _DECAY
    groups: list[dict[str, Any]] = [
        {"params": members, name: 0.0 if flat else config.weight_decay, "lr_scale": scale}
        for (flat, scale), members in sorted(found.items(), key=lambda item: item[0])
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(groups, lr=lr, momentum=0.9)
        if config.optimizer == "sgd"
        else torch.optim.Adamax(groups, lr=lr)  # the paper's
    )
    optimizer.register_step_pre_hook(_decay)
    return optimizer


@torch.no_grad()
def _decay(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Shrink what is about to be stepped."""
    for group in optimizer.param_groups:
        if decay := group.get(_DECAY, 0.0):  # absent from an early checkpoint
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * decay)


def rate_scales(part: TrainablePart, config: TrainConfig) -> list[float]:
    """Factor of the learning rate of each parameter that trains, in the order of the part.

    With n blocks and a layer decay of γ, what follows the blocks has γ⁰, block k has γ^(n+1−k) and
    the stem γ^(n+1) (as in BEiT, arXiv 2106.08254); `lr_scales` multiplies stem, blocks and head.

    Raises:
        UsageError: there are no layers to tell apart: a head, or a tower of unknown anatomy.
    """
    names = list(part.named_parameters())
    if config.layer_decay == 1 and not config.lr_scales:
        return [1.0] * len(names)
    groups = group_of(part.model.clip) if part.weight is None else {}
    if part.weight is not None or any(groups[name][0] == "image tower" for name in names):
        raise UsageError(
            f"train.layer_decay and train.lr_scales need blocks, and {part.trainable} of "
            f"{part.model.name} has none that are known. Leave them out."
        )
    last = 1 + max(number for _, number in groups.values())
    factors: dict[str, float] = {f"image {key}": value for key, value in config.lr_scales.items()}
    scales = []
    for name in names:
        group, number = groups[name]
        depth = {"image stem": 0, "image head": last}.get(group, number)
        scales.append(config.layer_decay ** (last - depth) * factors.get(group, 1.0))
    return scales


def rate_at(step: int, total: int, config: TrainConfig) -> float:
    """Share of the learning rate at optimiser step `step` (from 0) of `total`, 0 to 1."""
    warmup = min(config.warmup_steps, total)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
