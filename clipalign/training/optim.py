"""Optimiser and learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from clipalign.config import TrainConfig


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainConfig, lr: float
) -> torch.optim.Optimizer:
    """The optimiser over fp32 master weights.

    Weight decay reaches matrices and convolutions only: gains and biases decay to nothing useful.
    Every parameter starts at `lr`; the engine sets the rate of each step.
    """
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9)
    if config.optimizer == "adamax":  # the paper's
        return torch.optim.Adamax(groups, lr=lr)
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)


def rate_at(step: int, total: int, config: TrainConfig) -> float:
    """Share of the learning rate at optimiser step `step` (from 0) of `total`, 0 to 1."""
    warmup = min(config.warmup_steps, total)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
