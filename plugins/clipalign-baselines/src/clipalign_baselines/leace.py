"""Transform `leace`: closed-form least-squares erasure of a concept from embeddings.

Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form" (arXiv 2306.03819),
through the package `concept-erasure`. Of all affine maps r(f) = P f + b after which no linear
classifier tells the concept better than a constant does, the one that changes f least.

Where it goes: with `affine` (the default) r is fitted to features as the tower gives them, before
they are normalised, and folds into the tower's last layer where that has a place for b: the
attention pool of a ResNet, a timm projection, any text projection of open_clip. A ViT's image
projection is a matrix without one: there the fit ends with the unfolded map, and affine=false folds
P alone, fitted to normalised features. P alone erases as well; it moves the mean.

The theorem is about r(f). Similarities are taken after features are normalised, which is not
linear, so what the suites measure may be a little off chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from clipalign import DataError
from clipalign.models.linear_map import TowerMap, fold_towers
from clipalign.models.loaded import LoadedModel
from clipalign.transforms.base import FittedTransform, Transform, TransformOptions
from clipalign.transforms.context import FitContext
from clipalign_baselines.extras import extra

__all__ = ["Erasure", "Leace", "erase"]

_BATCH = 256
_TOLERANCE = 1e-9  # of singular values: what is this small in float64 is no correlation


@dataclass(frozen=True, eq=False)
class Erasure(FittedTransform):
    """An affine map of each side that is erased.

    Attributes:
        concept: what was erased.
        maps: "image" and "text", those erased, each P [d, d] and b [d] or None, float64.
        labelled: how many features each map was fitted to.
        model_sha256: the model that it was fitted to.
    """

    name: ClassVar[str] = "leace"
    what: ClassVar[str] = "erasure"

    concept: str
    maps: Mapping[str, TowerMap]
    labelled: Mapping[str, int]
    model_sha256: str

    def apply(self, model: LoadedModel) -> LoadedModel:
        """The model with the maps in its projections.

        Raises:
            ModelError: it is another model, or a tower has no place for a map.
        """
        self.check(model)
        return fold_towers(model, image=self.maps.get("image"), text=self.maps.get("text"))

    @property
    def label(self) -> str:
        """The word erased, and the sides where it is not the image's alone."""
        return "erased" if list(self.maps) == ["image"] else f"erased-{'-'.join(self.maps)}"

    def statement(self) -> str:
        """What was erased, from what."""
        sides = " and ".join(f"{n} {side} features" for side, n in self.labelled.items())
        return f"Erased {self.concept}, fitted to {sides} of both values."

    def unfolded(self, path: Path) -> str:
        """Lines that apply the maps to features."""
        space = (
            "features as the towers give them, before they are normalised"
            if any(map_.bias is not None for map_ in self.maps.values())
            else "features"
        )
        lines = [
            f"# {space}; --set affine=false makes a map that folds into any tower",
            "from clipalign.transforms.base import load_transform",
            f"maps = load_transform({str(path)!r}).maps",
        ]
        for side, map_ in self.maps.items():
            constant = f" + maps[{side!r}].bias" if map_.bias is not None else ""
            lines.append(f"{side} = {side}.double() @ maps[{side!r}].matrix.T{constant}")
        return "\n".join(lines)

    def describe(self) -> dict[str, Any]:
        """The concept, the sides, numbers of features and the model."""
        return {
            "concept": self.concept,
            "labelled": dict(self.labelled),
            "affine": all(map_.bias is not None for map_ in self.maps.values()),
            "model_sha256": self.model_sha256,
        }

    def tensors(self) -> dict[str, Tensor]:
        """P and b of each side, float64."""
        found = {f"{side}.P": map_.matrix for side, map_ in self.maps.items()}
        return found | {
            f"{side}.b": map_.bias for side, map_ in self.maps.items() if map_.bias is not None
        }

    @classmethod
    def rebuild(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The transform that was described."""
        labelled = {side: int(n) for side, n in description["labelled"].items()}
        maps = {side: TowerMap(tensors[f"{side}.P"], tensors.get(f"{side}.b")) for side in labelled}
        return cls(description["concept"], maps, labelled, str(description["model_sha256"]))


class Leace:
    """Erases a concept from image features, and by choice text features, in closed form."""

    frozen: ClassVar[type[Transform]] = Erasure

    class Options(TransformOptions):
        """Options of the transform."""

        sides: Literal["image", "text", "both"] = Field(
            "image", description="Whose features: image, text (of the captions), or both."
        )
        affine: bool = Field(
            True,
            description="With the constant that keeps the mean; false for a matrix, which folds "
            "into any tower.",
        )

    options: Options

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)

    def fit(self, context: FitContext) -> Erasure:
        """The maps, of labelled images and of the captions with either value.

        Raises:
            UsageError: the task has no concept, or concept-erasure is not installed.
            DataError: the images do not show the concept, or cannot be read.
        """
        options = self.options
        extra("concept_erasure", "leace", "concept-erasure")
        probe, model = context.probe, context.trained
        maps, labelled = {}, {}
        if options.sides != "text":
            x, z = _images(context, model, raw=options.affine)
            maps["image"], labelled["image"] = erase(x, z, affine=options.affine), len(z)
        if options.sides != "image":
            pairs = [*probe.value_prompts, (probe.spurious_prompts[0], probe.spurious_prompts[1])]
            x = _texts(model, [text for pair in pairs for text in pair], raw=options.affine)
            z = torch.tensor([0, 1]).repeat(len(pairs))
            maps["text"], labelled["text"] = erase(x, z, affine=options.affine), len(z)
        return Erasure(probe.name, maps, labelled, model.sha256)


def erase(x: Tensor, z: Tensor, *, affine: bool) -> TowerMap:
    """LEACE of a concept of two values.

    Args:
        x: [N, d] features.
        z: [N] 0 or 1.
        affine: with the constant that keeps the mean of x.

    Returns:
        P [d, d], and b [d] where `affine`, float64: after it both values have the same mean.
    """
    package = extra("concept_erasure", "leace", "concept-erasure")
    eraser = package.LeaceFitter.fit(
        x.double().cpu(),
        z.double().cpu().unsqueeze(1),
        affine=affine,
        svd_tol=_TOLERANCE,
        constrain_cov_trace=False,  # it cannot grow here, and mixing would undo the erasure
    ).eraser
    matrix: Tensor = eraser.P
    bias = None if eraser.bias is None else eraser.bias - matrix @ eraser.bias
    return TowerMap(matrix, bias)


@torch.no_grad()
def _images(context: FitContext, model: LoadedModel, *, raw: bool) -> tuple[Tensor, Tensor]:
    """Features [N, d] and values [N] of the labelled images; raw ones are not normalised."""
    if not raw:
        features = context.features(model)
        return torch.from_numpy(features.images), torch.from_numpy(features.value)
    labelled = context.labelled
    rows, values = [], []
    total = len(labelled.images.names)
    with context.reporter.progress("Encoding images", total) as bar:
        for part in torch.arange(total).split(_BATCH):
            pixels = []
            for i in part.tolist():
                try:
                    (image,) = labelled.images.read(i)
                except DataError as error:
                    name = labelled.images.names[i]
                    context.reporter.note(
                        f"Warning: {name} cannot be read and is left out: {error}"
                    )
                    continue
                pixels.append(model.preprocess.resize_to_uint8(image))
                values.append(labelled.probe.value[i])
            if pixels:
                batch = model.preprocess.normalise(torch.stack(pixels).to(model.device))
                rows.append(model.clip.encode_image(batch).float().cpu())
            bar.advance(len(part))
    if len(set(values)) < 2:
        raise DataError(
            f"No image of both values of {labelled.probe.name} can be read, so there is nothing to "
            "erase it by."
        )
    return torch.cat(rows), torch.tensor(values)


@torch.no_grad()
def _texts(model: LoadedModel, texts: list[str], *, raw: bool) -> Tensor:
    """[n, d] features of texts; raw ones are not normalised."""
    if not raw:
        return model.encode_text(texts).cpu()
    tokens = model.tokenize(texts).to(model.device)
    return torch.cat([model.clip.encode_text(p).float().cpu() for p in tokens.split(_BATCH)])
