"""Averages of the weights along a training.

An average is fed the weights after every step; its own state is part of a checkpoint. All keep the
same small interface, `update` and `average`, so that the engine does not know which it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from clipalign.errors import ConfigError, near_matches
from clipalign.options import explain


class WeightAverage:
    """Base: a weighted running mean of the weights, θ̄ ← θ̄ + share · (θ − θ̄).

    Args:
        start: name → initial weights (k = 0); copied.
    """

    def __init__(self, start: Mapping[str, Tensor]) -> None:
        self.step = 0
        self.mean = {name: value.detach().clone() for name, value in start.items()}

    def share(self, step: int) -> float:
        """How much of the weights of this step goes into the mean, 0 to 1."""
        return 1.0

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Take in the weights after one more step, in the order of `start`."""
        self.step += 1
        torch._foreach_lerp_(
            list(self.mean.values()), [w.detach() for w in weights.values()], self.share(self.step)
        )

    def average(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return self.mean

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain numbers from which `restore` goes on exactly."""
        return self.mean, {"step": self.step}

    def restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        for name, value in self.mean.items():
            value.copy_(tensors[name])
        self.step = int(plain["step"])


class LastWeights(WeightAverage):
    """No averaging: the last weights."""


class EMAOptions(BaseModel):
    """Options of `ema`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    decay: float = Field(0.99, ge=0, lt=1, description="Weight of the past at each step.")


class ExponentialAverage(WeightAverage):
    """θ̄ ← decay · θ̄ + (1 − decay) · θ."""

    def __init__(self, start: Mapping[str, Tensor], options: EMAOptions) -> None:
        super().__init__(start)
        self.decay = options.decay

    def share(self, step: int) -> float:
        """1 − decay, whatever the step."""
        return 1 - self.decay


class BMAOptions(BaseModel):
    """Options of `bma`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    alpha: float = Field(0.7, gt=0, le=50, description="Both parameters of the Beta density.")


class BetaAverage(WeightAverage):
    """The paper's Beta moving average, over the true horizon of K steps.

    The mean of θ_0 … θ_K (θ_0 pretrained) with weights w_k = Beta(α, α).pdf((k + ½)/(K + 1)):
    U-shaped for α < 1, so that the pretrained and the last weights count most. Source: the released
    code of arXiv 2411.08923 (there the horizon missed its own last steps).
    """

    def __init__(self, start: Mapping[str, Tensor], options: BMAOptions, horizon: int) -> None:
        super().__init__(start)
        k = torch.arange(horizon + 1, dtype=torch.float64)
        x = (k + 0.5) / (horizon + 1)
        # the normaliser of the density cancels in the mean
        weights = ((x * (1 - x)).log() * (options.alpha - 1)).exp()
        self._shares = (weights / weights.cumsum(0)).tolist()

    def share(self, step: int) -> float:
        """w_k / Σ_{j≤k} w_j; 0 beyond the horizon."""
        return self._shares[step] if step < len(self._shares) else 0.0


def build_average(
    name: str, options: Mapping[str, Any], start: Mapping[str, Tensor], horizon: int
) -> WeightAverage:
    """The average named `bma`, `ema` or `none`.

    Args:
        name: which.
        options: bma: alpha; ema: decay.
        start: initial weights by name.
        horizon: optimiser steps in all.

    Raises:
        ConfigError: an unknown name or option.
    """
    parsed = averaging_options(name, options)
    if isinstance(parsed, BMAOptions):
        return BetaAverage(start, parsed, horizon)
    return LastWeights(start) if parsed is None else ExponentialAverage(start, parsed)


def averaging_options(name: str, options: Mapping[str, Any]) -> BMAOptions | EMAOptions | None:
    """The options of an average with its defaults; None for `none`, which has no options.

    Raises:
        ConfigError: an unknown name or option.
    """
    if name == "none":
        if options:
            raise ConfigError(
                "train.averaging_options: train.averaging=none has no options: leave out "
                f"{', '.join(sorted(options))}."
            )
        return None
    models: dict[str, type[BMAOptions | EMAOptions]] = {"bma": BMAOptions, "ema": EMAOptions}
    if name not in models:
        raise ConfigError(
            f"No averaging is called {name!r}.{near_matches(name, [*models, 'none'])}"
        )
    try:
        return models[name].model_validate(dict(options))
    except ValidationError as error:
        lines = "\n".join(f"  train.averaging_options.{p}" for p in explain(error, models[name]))
        raise ConfigError(f"The averaging {name!r} cannot use these options:\n{lines}") from None
