"""Transform `orthogonal-projection`: a learned projection of both embeddings to k dimensions.

Materzyńska, Torralba and Bau 2022, "Disentangling visual and written concepts in CLIP" (arXiv
2206.07835). W ∈ R^{k×d} on both frozen embeddings, trained by

    loss = ½ (CE(images → texts) + CE(texts → images)) + γ ‖I − WWᵀ‖_F

over image–text pairs, by Adam. The pairs here are each attacked image with its chosen text, and
its clean partner with the same. W folds into both projections; the embedding is then k wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from clipalign import TrainingError, UsageError
from clipalign.models.linear_map import TowerMap, fold_towers
from clipalign.models.loaded import LoadedModel
from clipalign.transforms.base import FittedTransform, Transform, TransformOptions
from clipalign.transforms.context import FitContext
from clipalign_baselines.attacked import Attacked

__all__ = ["OrthogonalProjection", "ProjectionToK", "orthogonality", "symmetric_cross_entropy"]


@dataclass(frozen=True, eq=False)
class ProjectionToK(FittedTransform):
    """W on both embeddings.

    Attributes:
        matrix: W, [k, d] float32.
        losses: mean cross-entropy of the first and of the last epoch; empty without training.
        model_sha256: the model that it was fitted to.
    """

    name: ClassVar[str] = "orthogonal-projection"
    what: ClassVar[str] = "projection"

    matrix: Tensor
    losses: tuple[float, ...]
    model_sha256: str

    def apply(self, model: LoadedModel) -> LoadedModel:
        """The model with W in both projections, its embedding k wide.

        Raises:
            ModelError: it is another model, or W cannot be folded into it.
        """
        self.check(model)
        both = TowerMap(self.matrix)
        return fold_towers(model, image=both, text=both)

    @property
    def label(self) -> str:
        """The letter k, and k."""
        return f"k{len(self.matrix)}"

    def statement(self) -> str:
        """How many of d dimensions are kept, how the loss went and how far W is from orthogonal."""
        k, d = self.matrix.shape
        went = (
            f"; cross-entropy {self.losses[0]:.4f} → {self.losses[-1]:.4f}" if self.losses else ""
        )
        away = float(orthogonality(self.matrix.double()))
        return f"W keeps {k} of {d} dimensions, ‖I − WWᵀ‖ = {away:.4f}{went}."

    def unfolded(self, path: Path) -> str:
        """Lines that apply W to features of both towers."""
        return (
            "from clipalign.transforms.base import load_transform\n"
            f"matrix = load_transform({str(path)!r}).matrix\n"
            "image, text = (torch.nn.functional.normalize(f @ matrix.T, dim=-1) "
            "for f in (image, text))"
        )

    def describe(self) -> dict[str, Any]:
        """k, the losses and the model."""
        return {
            "k": len(self.matrix),
            "losses": list(self.losses),
            "model_sha256": self.model_sha256,
        }

    def tensors(self) -> dict[str, Tensor]:
        """W, [k, d]."""
        return {"W": self.matrix}

    @classmethod
    def rebuild(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The transform that was described."""
        losses = tuple(float(loss) for loss in description["losses"])
        return cls(tensors["W"], losses, str(description["model_sha256"]))


class OrthogonalProjection:
    """Learns a projection of both embeddings to k dimensions that forgets how to spell."""

    frozen: ClassVar[type[Transform]] = ProjectionToK

    class Options(TransformOptions):
        """Options of the transform."""

        k: int | None = Field(None, ge=1, description="Dimensions to keep; null for half of d.")
        epochs: int = Field(10, ge=0, le=10_000, description="Passes over the train pairs.")
        lr: float = Field(1e-4, gt=0, description="Learning rate of Adam.")
        batch_size: int = Field(128, ge=2, description="Pairs a step.")
        orthogonality: float = Field(1.0, ge=0, description="γ, weight of ‖I − WWᵀ‖.")
        clean: bool = Field(
            True, description="Pair the clean images with their texts too, not the attacked alone."
        )
        seed: int = Field(0, ge=0, lt=2**32, description="Of the data, the order and the start.")

    options: Options

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)

    def fit(self, context: FitContext) -> ProjectionToK:
        """W, learned on the train split.

        Raises:
            UsageError: k is more than the embedding has.
            DataError: the preferences have no chosen texts.
            TrainingError: the loss is not finite.
        """
        options, model = self.options, context.trained
        d = model.embed_dim
        k = max(1, d // 2) if options.k is None else options.k
        if k > d:
            raise UsageError(
                f"k = {k} is more than the {d} dimensions of {model.name}. Choose k up to {d}."
            )
        attacked = Attacked.of(context, "train", seed=options.seed, paired=False)
        images, label = attacked.stream.image, attacked.stream.chosen
        if options.clean:
            partner, index = attacked.stream.clean.unique(return_inverse=True)
            first = torch.full((len(partner),), len(label)).scatter_reduce(
                0, index, torch.arange(len(label)), "amin"
            )
            first = first[partner >= 0]  # one row of each clean image, however often attacked
            images = torch.cat([images, attacked.stream.clean[first]])
            label = torch.cat([label, label[first]])
        features = attacked.features(model, context.reporter)[images].to(model.device)
        texts, label = model.encode_text(attacked.candidates), label.to(model.device)
        generator = torch.Generator().manual_seed(options.seed)
        weight = nn.Parameter(_start(k, d, generator).to(model.device))
        optimizer = torch.optim.Adam([weight], lr=options.lr)
        losses = []
        with context.reporter.progress("Learning the projection", options.epochs) as bar:
            for _ in range(options.epochs):
                total = 0.0
                order = torch.randperm(len(label), generator=generator).to(model.device)
                for batch in order.split(options.batch_size):
                    loss = symmetric_cross_entropy(
                        F.normalize(features[batch] @ weight.T, dim=1),
                        F.normalize(texts[label[batch]] @ weight.T, dim=1),
                        label[batch],
                        model.logit_scale,
                    )
                    total += loss.item() * len(batch)
                    loss = loss + options.orthogonality * orthogonality(weight)
                    if not loss.isfinite():
                        raise TrainingError(
                            "The loss of the projection is not finite. Use a smaller lr."
                        )
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                losses.append(total / len(label))
                bar.advance(1, loss=losses[-1])
        ends = (losses[0], losses[-1]) if losses else ()
        return ProjectionToK(weight.detach().cpu(), ends, model.sha256)


def symmetric_cross_entropy(images: Tensor, texts: Tensor, label: Tensor, scale: Tensor) -> Tensor:
    """½ (CE(images → texts) + CE(texts → images)) of B pairs.

    Pairs that share a label share a text, so each counts as right for the other: the target is
    even over them. With B different labels it is CLIP's own loss.

    Args:
        images: [B, k] unit norm.
        texts: [B, k] unit norm.
        label: [B] which text.
        scale: τ.

    Returns:
        A scalar, with gradient.
    """
    logits = scale * images @ texts.T
    same = (label[:, None] == label[None, :]).to(logits.dtype)
    target = same / same.sum(dim=1, keepdim=True)
    loss: Tensor = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return loss


def orthogonality(weight: Tensor) -> Tensor:
    """‖I − WWᵀ‖_F of W [k, d], with a gradient of 0 where it is 0."""
    away = torch.eye(len(weight), dtype=weight.dtype, device=weight.device) - weight @ weight.T
    norm: Tensor = torch.linalg.matrix_norm(away)
    return norm


def _start(k: int, d: int, generator: torch.Generator) -> Tensor:
    """[k, d] with orthonormal rows, uniform among such."""
    q, r = torch.linalg.qr(torch.randn(d, k, generator=generator, dtype=torch.float64))
    rows: Tensor = (q * r.diagonal().sign()).T
    return rows.float().contiguous()
