"""Linear maps of runs: reading them, checking what they belong to, and composing their powers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from clipalign.errors import ModelError, RunError, UsageError
from clipalign.models.linear_map import LinearMap
from clipalign.models.loaded import LoadedModel
from clipalign.models.spec import is_run
from clipalign.training.rundir import RunDirectory
from clipalign.transforms.context import FitContext
from clipalign.transforms.spectrum import EPS

__all__ = ["MapOfRun", "check_fits", "check_head_run", "compose", "compose_runs", "read_map"]


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
        if is_run(parent):
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
        RunError: it was changed after it was written.
        ModelError: it is damaged, or does not say which model it belongs to.
    """
    run.check(run.linear_map)
    linear, metadata = LinearMap.load(run.linear_map)
    if "model_sha256" not in metadata:
        raise ModelError(
            f"{run.linear_map} does not say which model it belongs to (model_sha256). Train again."
        )
    return linear, metadata["model_sha256"]


def compose_runs(parts: Sequence[tuple[Path, float]]) -> tuple[LinearMap, tuple[MapOfRun, ...]]:
    """The maps of several runs, each with its own t; the first is applied first."""
    read = [(path, t, *read_map(_opened(path))) for path, t in parts]
    linear = compose([(linear, t) for _, t, linear, _ in read])
    return linear, tuple(MapOfRun(str(path), t, sha256) for path, t, _, sha256 in read)


def _opened(path: Path) -> RunDirectory:
    return check_head_run(FitContext.open(path))
