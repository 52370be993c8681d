"""Transform `power`: W_t = U Σᵗ Vᵀ of a trained head, folded into both projections.

arXiv 2411.08923, §3.3. t = 0 is the model that the run started from, t = 1 the trained one, t < 0
inverts the edit, t > 1 extrapolates, and between 0 and 1 lies the neutral t* that `t="auto"` finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator
from torch import Tensor

from clipalign.models.linear_map import LinearMap
from clipalign.models.loaded import LoadedModel
from clipalign.transforms.base import Transform, TransformOptions
from clipalign.transforms.context import FitContext
from clipalign.transforms.maps import (
    MapOfRun,
    check_fits,
    check_head_run,
    compose_runs,
    read_map,
)
from clipalign.transforms.neutral import Neutral, find_neutral
from clipalign.transforms.spectrum import Powers

__all__ = ["Power", "PowerTransform", "powers_of"]

_STEEP = 1e6
"""Largest stretch of a map over its smallest, beyond which float32 keeps little of the latter."""


@dataclass(frozen=True, eq=False)
class PowerTransform(Transform):
    """W_t, of one map or of several after one another.

    Attributes:
        linear: the product of all, [d, d] float64.
        maps: what it is the product of; the first is applied first.
        neutral: how t was found, where it was.
    """

    name: ClassVar[str] = "power"
    starts_from: ClassVar[Literal["reference", "trained"]] = "reference"

    linear: LinearMap
    maps: tuple[MapOfRun, ...]
    neutral: Neutral | None = None

    def check(self, model: LoadedModel) -> None:
        """Refuse a model that the maps do not belong to.

        Raises:
            ModelError: naming both.
        """
        check_fits(self.linear, self.maps, model)

    def apply(self, model: LoadedModel) -> LoadedModel:
        """The model with W_t in both projections.

        Raises:
            ModelError: the maps belong to another model, or W cannot be folded into this one.
        """
        self.check(model)
        return self.linear.fold(model)

    def describe(self) -> dict[str, Any]:
        """The maps in their order, and how t was found."""
        maps = [asdict(part) for part in self.maps]
        return {"maps": maps, "neutral": self.neutral and self.neutral.document()}

    @property
    def label(self) -> str:
        """The word neutral, or t and its value."""
        return "neutral" if self.neutral else f"t{self.maps[-1].t:g}"

    def statement(self) -> str:
        """How t was found."""
        return self.neutral.statement() if self.neutral else ""

    def unfolded(self, path: Path) -> str:
        """Three lines that apply W_t to features of both towers."""
        return (
            "from clipalign.models.linear_map import LinearMap\n"
            f"linear, _ = LinearMap.load({str(path)!r})\n"
            "image, text = linear(image.double()), linear(text.double())"
        )

    def tensors(self) -> dict[str, Tensor]:
        """W, [d, d] float64."""
        return {"W": self.linear.weight}

    @classmethod
    def rebuild(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The transform that was described."""
        maps = tuple(MapOfRun(**part) for part in description["maps"])
        found = description["neutral"]
        return cls(LinearMap(tensors["W"]), maps, found and Neutral.rebuild(found))


class Power:
    """Turns what a trained head has learnt up, down, or to neutral."""

    frozen: ClassVar[type[Transform]] = PowerTransform

    class Options(TransformOptions):
        """Options of the transform."""

        t: float | Literal["auto"] = Field(
            description="Power: 0 the model the run started from, 1 the trained one; auto finds "
            "the neutral one."
        )
        epsilon: float = Field(
            0.03, ge=0, le=1, description="With auto: largest drop of the activity accuracy."
        )
        range: tuple[float, float] = Field(
            (0.0, 1.0), description="With auto: where to look for the neutral t."
        )
        after: dict[str, float] = Field(
            default_factory=dict,
            description="Maps of other runs to apply before this run's, each with its own t, in "
            "this order.",
        )
        resamples: int = Field(
            1000, ge=100, le=100_000, description="With auto: of the bootstrap interval."
        )
        seed: int = Field(0, ge=0, lt=2**32, description="With auto: of the bootstrap.")

        @field_validator("range")
        @classmethod
        def _ascending(cls, ends: tuple[float, float]) -> tuple[float, float]:
            if not ends[0] < ends[1]:
                raise ValueError(f"must be a low and a high end, and not {ends[0]:g}:{ends[1]:g}")
            return ends

    options: Options

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)

    def fit(self, context: FitContext) -> PowerTransform:
        """W_t of the run, t found where it is "auto".

        Raises:
            UsageError: it is not a run with a trained head, or has no concept to be neutral about.
            ModelError: a map belongs to another model.
        """
        options = self.options
        run = check_head_run(context)
        before = [(Path(path), t) for path, t in options.after.items()]
        neutral: Neutral | None = None
        if options.t == "auto":
            powers = powers_of(context, before)
            low, high = options.range
            neutral = find_neutral(
                powers,
                low=low,
                high=high,
                epsilon=options.epsilon,
                resamples=options.resamples,
                seed=options.seed,
            )
            t = neutral.t
        else:
            t = options.t
        linear, maps = compose_runs([*before, (run.path, t)])
        if (ratio := linear.condition) > _STEEP:
            context.reporter.note(
                f"Warning: at t={t:g} the map stretches one direction {ratio:.1e} times as much as "
                "another. It is folded into float32 weights, which keep some seven digits, so what "
                "lies along the weaker ones is lost in rounding. Choose a t nearer to 0."
            )
        return PowerTransform(linear, maps, neutral)


def powers_of(context: FitContext, before: Sequence[tuple[Path, float]] = ()) -> Powers:
    """The run's map at every t, with features of the labelled images; other maps go before it.

    Raises:
        UsageError: it is not a run with a trained head, or its task has no concept.
        ModelError: a map belongs to another model.
    """
    run = check_head_run(context)
    context.labelled  # noqa: B018  refuses what has no concept before a model is loaded
    linear, sha256 = read_map(run)
    check_fits(linear, [MapOfRun(str(run.path), 1.0, sha256)], context.reference)
    features = context.features(context.reference)
    if before:
        earlier, maps = compose_runs(before)
        check_fits(earlier, maps, context.reference)
        features = features.mapped(earlier.weight.numpy())
    return Powers(features, linear)
