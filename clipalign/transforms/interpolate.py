"""Transform `interpolate`: θ = (1 − α) θ_0 + α θ_1, between two checkpoints of one architecture.

PAINT (Ilharco et al. 2022) and WiSE-FT (Wortsman et al. 2022). θ_0 is the model that the run
started from, θ_1 the trained one; α is given, or chosen on validation data.

Of a head W this is the map (1 − α) I + α W on both embeddings, also where a tower had no projection
and got W for one: a tower without one ends in the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from clipalign.errors import ModelError
from clipalign.models.linear_map import LinearMap
from clipalign.models.load import load_model
from clipalign.models.loaded import LoadedModel
from clipalign.transforms.base import Transform, TransformOptions
from clipalign.transforms.context import FitContext
from clipalign.transforms.validation import preference_metric

__all__ = ["Interpolate", "Interpolation", "interpolate"]

Metric = Callable[[LoadedModel], float]


@dataclass(frozen=True, eq=False)
class Interpolation(Transform):
    """A place on the line between two models.

    Attributes:
        alpha: 0 is the other model, 1 the one it is applied to.
        against: spec of the other model.
        against_sha256: of its weights.
        tried: α → metric, where α was chosen.
        other: the other model, where it is loaded already.
    """

    name: ClassVar[str] = "interpolate"

    alpha: float
    against: str
    against_sha256: str
    tried: Mapping[float, float] | None = None
    other: LoadedModel | None = None

    def check(self, model: LoadedModel) -> None:
        """Refuse a model of another architecture. See `apply`."""
        alike(self._other(model), model)

    def apply(self, model: LoadedModel) -> LoadedModel:
        """The model between the other one and `model`.

        Raises:
            ModelError: the other model cannot be loaded, is not the one that it was, or is of
                another architecture.
        """
        return interpolate(self._other(model), model, self.alpha)

    @property
    def label(self) -> str:
        """The letter a, and α."""
        return f"a{self.alpha:g}"

    def statement(self) -> str:
        """How α was chosen."""
        if self.tried is None:
            return ""
        tried = self.tried
        return (
            f"α = {self.alpha:g} is the best of {len(tried)} on the validation split: "
            f"{tried[self.alpha]:.4f} ({tried[0.0]:.4f} at α = 0, {tried[1.0]:.4f} at α = 1)."
        )

    def describe(self) -> dict[str, Any]:
        """α, the other model, and what was tried."""
        tried = None
        if self.tried is not None:
            tried = [{"alpha": alpha, "metric": metric} for alpha, metric in self.tried.items()]
        return {
            "alpha": self.alpha,
            "against": self.against,
            "against_sha256": self.against_sha256,
            "tried": tried,
        }

    @classmethod
    def rebuild(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The transform that was described; the other model is loaded when it is applied."""
        d = description
        tried = None
        if d["tried"] is not None:
            tried = {float(row["alpha"]): float(row["metric"]) for row in d["tried"]}
        return cls(float(d["alpha"]), d["against"], d["against_sha256"], tried)

    def _other(self, model: LoadedModel) -> LoadedModel:
        other = self.other or load_model(self.against, model.device)
        if other.sha256 != self.against_sha256:
            raise ModelError(
                f"{self.against} was {self.against_sha256[:12]}… when this was fitted, and is "
                f"{other.sha256[:12]}… now. Fit again, or put that model back."
            )
        return other


class Interpolate:
    """Goes part of the way from one checkpoint to another."""

    frozen: ClassVar[type[Transform]] = Interpolation

    class Options(TransformOptions):
        """Options of the transform."""

        alpha: float | Literal["auto"] = Field(
            "auto",
            description="0 the other model, 1 the trained one; beyond them it extrapolates; auto "
            "takes the best of 0, 0.1, …, 1 on the validation split.",
        )
        against: str | None = Field(
            None, description="The other model's spec; null for what the run started from."
        )
        metric: Metric | None = Field(
            None,
            exclude=True,
            description="With auto, from Python: model → number, higher is better; null for the "
            "run's preferences and what they keep.",
        )

    options: Options

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)

    def fit(self, context: FitContext) -> Interpolation:
        """The place on the line, α found where it is "auto".

        Raises:
            UsageError: there is no other model, or nothing to choose α by.
            ModelError: the two models are of different architectures.
        """
        options = self.options
        if options.against is None:
            other = context.reference
            against = str(other.spec)
        else:
            against = options.against
            other = context.load(against)
        start = alike(other, context.trained)
        if options.alpha != "auto":
            if not 0 <= options.alpha <= 1:
                context.reporter.note(
                    f"α = {options.alpha:g} lies outside of 0 to 1: this extrapolates beyond the "
                    "two models."
                )
            return Interpolation(options.alpha, against, other.sha256, None, other)
        metric = options.metric or preference_metric(context, other)
        tried = {}
        with context.reporter.progress("Trying α", 11) as bar:
            for alpha in np.linspace(0, 1, 11).round(3).tolist():
                tried[alpha] = float(metric(interpolate(start, context.trained, alpha)))
                bar.advance(1, alpha=alpha, metric=tried[alpha])
        best = max(tried, key=lambda a: (-math.inf if math.isnan(tried[a]) else tried[a], -a))
        return Interpolation(best, against, other.sha256, tried, other)


def interpolate(start: LoadedModel, end: LoadedModel, alpha: float) -> LoadedModel:
    """θ = (1 − α) θ_0 + α θ_1 of every weight, computed in float64.

    α = 0 and α = 1 give the two models bit for bit. Counters, which are no weights, are those of
    the nearer model.

    Args:
        start: θ_0; a projection that only θ_1 has is the identity in it.
        end: θ_1; preprocessing and tokeniser, which are the same in both, are taken from it.
        alpha: any number.

    Raises:
        ModelError: the two are of different architectures.
    """
    start = alike(start, end)
    first, second = start.clip.state_dict(), end.clip.state_dict()
    if alpha in (0, 1):
        return end.rebuilt(second if alpha else first)
    mixed = {}
    for name, b in second.items():
        a = first[name].to(b.device)
        if b.is_floating_point():
            mixed[name] = ((1 - alpha) * a.double() + alpha * b.double()).to(b.dtype)
        else:
            mixed[name] = b if alpha > 0.5 else a
    return end.rebuilt(mixed)


def alike(start: LoadedModel, end: LoadedModel) -> LoadedModel:
    """A model in the architecture of another: as it is, or with the identity as a projection.

    Raises:
        ModelError: there is no line between the two; names what differs.
    """
    problems = _differences(start, end)
    if not problems:
        return start
    try:
        longer = LinearMap(torch.eye(start.embed_dim)).fold(start)
        if not _differences(longer, end):
            return longer
    except ModelError:  # a tower that takes no projection, so that is not how they differ
        pass
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    raise ModelError(
        f"There is nothing between {start.spec} and {end.spec}, which are built differently: "
        f"{'; '.join(problems[:3])}{more}. Interpolate between a model and what was trained from "
        "it."
    )


def _differences(start: LoadedModel, end: LoadedModel) -> list[str]:
    """How the architectures of two models differ, in words."""
    a, b = start.clip.state_dict(), end.clip.state_dict()
    problems = [
        f"{name} is {_shape(a, name)} in the one and {_shape(b, name)} in the other"
        for name in dict.fromkeys([*a, *b])
        if name not in a or name not in b or a[name].shape != b[name].shape
    ]
    for part in ("model_cfg", "preprocess_cfg"):
        left, right = start.config[part], end.config[part]
        problems += [
            f"{part}.{key} is {left.get(key)!r} in the one and {right.get(key)!r} in the other"
            for key in dict.fromkeys([*left, *right])
            if _plain(left.get(key)) != _plain(right.get(key))
        ]
    return problems


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return str(list(state[name].shape)) if name in state else "absent"


def _plain(value: Any) -> Any:
    """Lists and tuples are alike in a configuration."""
    return list(value) if isinstance(value, tuple) else value
