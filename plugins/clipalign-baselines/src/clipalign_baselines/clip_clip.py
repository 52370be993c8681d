"""Transform `clip-clip`: drop the dimensions of the embedding that tell most of a concept.

Wang, Liu and Wang 2021, "Are gender-neutral queries really gender-neutral? Mitigating gender bias
in image search" (arXiv 2109.05433). Mutual information of each dimension of the image features and
the concept, by scikit-learn's nearest-neighbour estimate; the m of d dimensions with least of it
are kept, in both towers (400 of 512 in the paper). The embedding is then m wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from clipalign import UsageError
from clipalign.models.linear_map import TowerMap, fold_towers
from clipalign.models.loaded import LoadedModel
from clipalign.transforms.base import FittedTransform, Transform, TransformOptions
from clipalign.transforms.context import FitContext
from clipalign.transforms.probe import Floats, Ints
from clipalign_baselines.extras import extra

__all__ = ["ClipClip", "KeptDimensions", "mutual_information"]

_PAPER = 400 / 512


@dataclass(frozen=True, eq=False)
class KeptDimensions(FittedTransform):
    """The dimensions that are kept.

    Attributes:
        concept: what the others told of.
        information: [d] float64, mutual information of each dimension and the concept, in nats.
        kept: m dimensions, in their order.
        model_sha256: the model that it was fitted to.
    """

    name: ClassVar[str] = "clip-clip"
    what: ClassVar[str] = "choice of dimensions"

    concept: str
    information: Tensor
    kept: tuple[int, ...]
    model_sha256: str

    @property
    def matrix(self) -> Tensor:
        """[m, d] float32: the rows of the identity that are kept."""
        return torch.eye(len(self.information))[list(self.kept)]

    def apply(self, model: LoadedModel) -> LoadedModel:
        """The model with the kept dimensions of both towers, its embedding m wide.

        Raises:
            ModelError: it is another model, or its towers end in no projection.
        """
        self.check(model)
        both = TowerMap(self.matrix)
        return fold_towers(model, image=both, text=both)

    @property
    def label(self) -> str:
        """The word clip, and m."""
        return f"clip{len(self.kept)}"

    def statement(self) -> str:
        """How many of d are kept, and how much the dropped dimensions told."""
        dropped = np.setdiff1d(np.arange(len(self.information)), self.kept)
        said = f"Kept {len(self.kept)} of {len(self.information)} dimensions"
        if not len(dropped):
            return f"{said}."
        most, least = (
            self.information[list(dropped)].mean(),
            self.information[list(self.kept)].mean(),
        )
        return (
            f"{said}; those dropped tell {most:.4f} nats of {self.concept} each, those kept "
            f"{least:.4f}."
        )

    def unfolded(self, path: Path) -> str:
        """Lines that apply the choice to features of both towers."""
        return (
            "from clipalign.transforms.base import load_transform\n"
            f"kept = list(load_transform({str(path)!r}).kept)\n"
            "image, text = (torch.nn.functional.normalize(f[:, kept], dim=-1) "
            "for f in (image, text))"
        )

    def describe(self) -> dict[str, Any]:
        """The concept, the kept dimensions and the model."""
        return {
            "concept": self.concept,
            "kept": list(self.kept),
            "model_sha256": self.model_sha256,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The mutual information, [d]."""
        return {"information": self.information}

    @classmethod
    def rebuild(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The transform that was described."""
        d = description
        return cls(d["concept"], tensors["information"], tuple(d["kept"]), d["model_sha256"])


class ClipClip:
    """Drops the dimensions of highest mutual information with a concept."""

    frozen: ClassVar[type[Transform]] = KeptDimensions

    class Options(TransformOptions):
        """Options of the transform."""

        m: int | None = Field(
            None, ge=1, description="Dimensions to keep; null for the paper's share, 400 of 512."
        )
        neighbours: int = Field(3, ge=1, le=100, description="Of the estimate.")
        seed: int = Field(0, ge=0, lt=2**32, description="Of the noise that breaks ties in it.")

    options: Options

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)

    def fit(self, context: FitContext) -> KeptDimensions:
        """The dimensions, by the image features of the labelled images.

        Raises:
            UsageError: the task has no concept, m is more than d, or scikit-learn is missing.
            DataError: the images do not show the concept.
        """
        options = self.options
        extra("sklearn", "clip-clip", "scikit-learn")
        probe, model = context.probe, context.trained
        d = model.embed_dim
        m = max(1, round(d * _PAPER)) if options.m is None else options.m
        if m > d:
            raise UsageError(
                f"m = {m} is more than the {d} dimensions of {model.name}. Choose m up to {d}."
            )
        features = context.features(model)
        information = mutual_information(
            features.images, features.value, neighbours=options.neighbours, seed=options.seed
        )
        least = np.argsort(information, kind="stable")[:m]
        kept = tuple(sorted(int(i) for i in least))
        return KeptDimensions(probe.name, torch.from_numpy(information), kept, model.sha256)


def mutual_information(features: Floats, value: Ints, *, neighbours: int, seed: int) -> Floats:
    """Mutual information of each dimension and a concept.

    Args:
        features: [N, d].
        value: [N] 0 or 1.
        neighbours: of the estimate.
        seed: of the noise that breaks ties in it.

    Returns:
        [d] in nats.
    """
    selection = extra("sklearn.feature_selection", "clip-clip", "scikit-learn")
    found = selection.mutual_info_classif(
        features, value, n_neighbors=neighbours, random_state=seed
    )
    return np.asarray(found, dtype=np.float64)
