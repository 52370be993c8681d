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

from clipalign.errors import ModelError, RunError, UsageError
from clipalign.models.linear_map import LinearMap
from clipalign.models.loaded import LoadedModel
from clipalign.training.rundir import RunDirectory
from clipalign.transforms.base import Transform, TransformOptions
from clipalign.transforms.context import FitContext
from clipalign.transforms.neutral import Neutral, find_neutral
from clipalign.transforms.spectrum import EPS, Powers

__all__ = ["MapOfRun", "Power", "PowerTransform", "compose", "powers_of", "read_map"]


@dataclass(frozen=True)
class MapOfRun:
    """One map of a composition.

    Attributes:
        run: the run that it was trained in.
        t: its power.
        model_sha256: the model that it belongs to.
    """

    run: str
    t: float
    model_sha256: str


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
    neutral: Mapping[str, Any] | None = None

    def apply(self, model: LoadedModel) -> LoadedModel:
        """The model with W_t in both projections.

        Raises:
            ModelError: the maps belong to another model, or W cannot be folded into this one.
        """
        check_fits(self.linear, self.maps, model)
        return self.linear.fold(model)

    def describe(self) -> dict[str, Any]:
        """The maps in their order, and how t was found."""
        maps = [asdict(part) for part in self.maps]
        return {"maps": maps, "neutral": None if self.neutral is None else dict(self.neutral)}

    def tensors(self) -> dict[str, Tensor]:
        """W, [d, d] float64."""
        return {"W": self.linear.weight}

    @classmethod
    def rebuild(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The transform that was described."""
        maps = tuple(MapOfRun(**part) for part in description["maps"])
        return cls(LinearMap(tensors["W"]), maps, description["neutral"])


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
        linear, maps = _composed([*before, (run.path, t)])
        return PowerTransform(linear, maps, None if neutral is None else neutral.document())


def compose(maps: Sequence[tuple[LinearMap, float]], eps: float = EPS) -> LinearMap:
    """W = W_n(t_n) … W_1(t_1): several maps, each with its own t; the first is applied first.

    Args:
        maps: at least one, all [d, d].
        eps: singular values below it are raised to it.

    Returns:
        [d, d] float64.

    Raises:
        ModelError: the maps differ in width.
    """
    product: Tensor | None = None
    for linear, t in maps:
        power = LinearMap(linear.weight.detach().double().cpu()).power(t, eps).weight
        if product is not None and len(product) != len(power):
            raise ModelError(
                f"Maps of width {len(product)} and {len(power)} cannot follow one another: they "
                "belong to different models."
            )
        product = power if product is None else power @ product
    if product is None:
        raise UsageError("There is no map to compose.")
    return LinearMap(product)


def check_fits(linear: LinearMap, maps: Sequence[MapOfRun], model: LoadedModel) -> None:
    """Refuse maps of another width or of another model.

    Raises:
        ModelError: naming both.
    """
    if len(linear.weight) != model.embed_dim:
        raise ModelError(
            f"The map of {maps[-1].run} is of width {len(linear.weight)}, and {model.name} has "
            f"features of width {model.embed_dim}: it was trained on another model."
        )
    for part in maps:
        if part.model_sha256 != model.sha256:
            raise ModelError(
                f"The map of {part.run} was trained on the model {part.model_sha256[:12]}…, and "
                f"{model.spec} is {model.sha256[:12]}…. A map is of use for its own model alone: "
                "put that model back, or train again."
            )


def check_head_run(context: FitContext) -> RunDirectory:
    """The run of a context, where it has a linear map.

    Raises:
        UsageError: it is not a run, or something else than a head was trained.
        RunError: it has not finished.
    """
    run, config = context.run, context.config
    if run is None or config is None:
        parent = Path(context.path).parent
        advice = "Name the run that trained one."
        if (parent / "config.yaml").is_file():
            advice = f"W is folded into it already: name the run, {parent}."
        raise UsageError(f"{context.path} is not a run with a linear map to turn. {advice}")
    if config.trainable != "head":
        raise UsageError(
            f"{run.path} trained {config.trainable}, so it has no linear map to turn. Train one "
            "with `clipalign train --trainable head`, or go between the checkpoints with "
            "--method interpolate --alpha 0.5."
        )
    if not run.linear_map.is_file():
        raise RunError(
            f"{run.path} has no linear map yet: it did not finish. "
            f"Continue it with: clipalign train --resume {run.path}"
        )
    return run


def read_map(run: RunDirectory) -> tuple[LinearMap, str]:
    """W of a run, and the sha256 of the model that it belongs to.

    Raises:
        ModelError: it is damaged, or does not say which model it belongs to.
    """
    linear, metadata = LinearMap.load(run.linear_map)
    if "model_sha256" not in metadata:
        raise ModelError(f"{run.linear_map} does not say which model it belongs to.")
    return linear, metadata["model_sha256"]


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
        earlier, maps = _composed(before)
        check_fits(earlier, maps, context.reference)
        features = features.mapped(earlier.weight.numpy())
    return Powers(features, linear)


def _composed(parts: Sequence[tuple[Path, float]]) -> tuple[LinearMap, tuple[MapOfRun, ...]]:
    read = [(path, t, *read_map(_opened(path))) for path, t in parts]
    linear = compose([(linear, t) for _, t, linear, _ in read])
    return linear, tuple(MapOfRun(str(path), t, sha256) for path, t, _, sha256 in read)


def _opened(path: Path) -> RunDirectory:
    return check_head_run(FitContext.open(path))
