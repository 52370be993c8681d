"""Transform `project`: takes a concept out of the text features, in closed form.

Biased-prompt projection (Chuang et al. 2023, arXiv 2302.00070). With A [d, k] the text features of
prompts that say nothing but the concept, P_0 = I − A (AᵀA)⁻¹ Aᵀ is orthogonal to all of them; the
calibrated P = P_0 (I + λM)⁻¹ also brings together pairs that should agree, M the mean of
(z_i − z_j)(z_i − z_j)ᵀ over the captions of one activity with either value. Image features stay.

P is linear in the text features, which are normalised after it, so it folds into the projection
that the text tower ends in and the result is an ordinary model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from clipalign.errors import DataError
from clipalign.models.linear_map import TowerMap, fold_towers
from clipalign.models.loaded import LoadedModel
from clipalign.transforms.base import FittedTransform, Transform, TransformOptions
from clipalign.transforms.context import FitContext

__all__ = ["Project", "Projection", "calibrated", "orthogonal_projection"]


@dataclass(frozen=True, eq=False)
class Projection(FittedTransform):
    """A matrix on the text features.

    Attributes:
        matrix: P, [d, d] float64.
        prompts: what was taken out.
        calibration: λ.
        model_sha256: the model that it was fitted to.
    """

    name: ClassVar[str] = "project"
    what: ClassVar[str] = "projection"

    matrix: Tensor
    prompts: tuple[str, ...]
    calibration: float
    model_sha256: str

    def apply(self, model: LoadedModel) -> LoadedModel:
        """The model with P in its text projection; its image tower is the same bit for bit.

        Raises:
            ModelError: it is not the model that P was fitted to, or P cannot be folded into it.
        """
        self.check(model)
        return fold_towers(model, text=TowerMap(self.matrix))

    @property
    def label(self) -> str:
        """The word projected, or projected-plain."""
        return "projected" if self.calibration else "projected-plain"

    def statement(self) -> str:
        """What nobody should ask of the plain projection; nothing for the calibrated one."""
        if self.calibration:
            return ""
        named = ", ".join(repr(prompt) for prompt in self.prompts[:3])
        more = f" and {len(self.prompts) - 3} more" if len(self.prompts) > 3 else ""
        return (
            f"Nothing is left of the very texts that were taken out ({named}{more}): asked with "
            "them, the model answers by rounding errors. Ask with other words."
        )

    def unfolded(self, path: Path) -> str:
        """Three lines that apply P to text features."""
        return (
            "from clipalign.transforms.base import load_transform\n"
            f"matrix = load_transform({str(path)!r}).matrix\n"
            "text = torch.nn.functional.normalize(text.double() @ matrix.T, dim=-1)"
        )

    def describe(self) -> dict[str, Any]:
        """The prompts, λ and the model."""
        return {
            "prompts": list(self.prompts),
            "calibration": self.calibration,
            "model_sha256": self.model_sha256,
        }

    def tensors(self) -> dict[str, Tensor]:
        """P, [d, d] float64."""
        return {"P": self.matrix}

    @classmethod
    def rebuild(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The transform that was described."""
        d = description
        return cls(
            tensors["P"], tuple(d["prompts"]), float(d["calibration"]), str(d["model_sha256"])
        )


class Project:
    """Biased-prompt projection: takes a concept out of the text side."""

    frozen: ClassVar[type[Transform]] = Projection

    class Options(TransformOptions):
        """Options of the transform."""

        calibration: float = Field(
            1000.0, ge=0, description="λ of the calibrated projection; 0 for the plain one."
        )
        prompts: tuple[str, ...] | None = Field(
            None,
            min_length=1,
            description="What to take out; null for the captions of the concept's values alone.",
        )

    options: Options

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)

    def fit(self, context: FitContext) -> Projection:
        """P of the trained model's text features.

        Raises:
            UsageError: the task has no concept.
            DataError: nothing would be left, or there are no pairs to calibrate with.
        """
        options, probe, model = self.options, context.probe, context.trained
        prompts = options.prompts or probe.spurious_prompts
        p0 = orthogonal_projection(_texts(model, prompts).T)
        matrix = p0
        if options.calibration:
            first, second = zip(*probe.value_prompts, strict=True)
            pairs = _texts(model, first) - _texts(model, second)
            matrix = calibrated(p0, pairs, options.calibration)
        return Projection(matrix, tuple(prompts), options.calibration, model.sha256)


def orthogonal_projection(a: Tensor) -> Tensor:
    """P_0 = I − A (AᵀA)⁻¹ Aᵀ, through an orthonormal basis, so that A may have dependent columns.

    Args:
        a: A, [d, k] float64.

    Returns:
        [d, d]: symmetric, idempotent, and P_0 A = 0.

    Raises:
        DataError: A spans everything, so that nothing would be left.
    """
    u, sigma, _ = torch.linalg.svd(a, full_matrices=False)
    tolerance = max(a.shape) * torch.finfo(a.dtype).eps * sigma.max()
    basis = u[:, sigma > tolerance]
    if basis.shape[1] >= len(a):
        raise DataError(
            f"The {a.shape[1]} prompts to take out span all {len(a)} dimensions of the text "
            "features: nothing would be left. Name fewer prompts."
        )
    projection: Tensor = torch.eye(len(a), dtype=a.dtype, device=a.device) - basis @ basis.T
    return projection


def calibrated(p0: Tensor, differences: Tensor, calibration: float) -> Tensor:
    """P = P_0 (I + λM)⁻¹ with M = (1/n) Σ δδᵀ over n differences δ.

    Args:
        p0: [d, d] float64, symmetric.
        differences: [n, d], z_i − z_j of the pairs that should agree.
        calibration: λ ≥ 0.

    Returns:
        [d, d].
    """
    moment = differences.T @ differences / len(differences)
    identity = torch.eye(len(p0), dtype=p0.dtype, device=p0.device)
    solved: Tensor = torch.linalg.solve(identity + calibration * moment, p0)
    return solved.T  # both factors are symmetric


def _texts(model: LoadedModel, texts: tuple[str, ...]) -> Tensor:
    """[n, d] float64 on the CPU."""
    return model.encode_text(texts).cpu().double()
