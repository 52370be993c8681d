"""A linear map W on both embeddings, its power t, and folding it into the projections.

arXiv 2411.08923, §3.3: W acts on image and text features alike, s = τ (W T)·(W I). With the
singular value decomposition W = U Σ Vᵀ, W_t = U Σᵗ Vᵀ turns what was learnt up and down: t = 0 is
the pretrained model, t = 1 the trained one, t < 0 inverts the edit.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from clipalign.errors import ModelError
from clipalign.files import atomic_write_bytes, parse_json

if TYPE_CHECKING:
    from clipalign.models.loaded import LoadedModel

__all__ = ["LinearMap", "TowerMap", "fold_towers", "folded_state", "orthogonality_penalty"]


def orthogonality_penalty(weight: Tensor) -> Tensor:
    """‖WᵀW − I‖²_F, which keeps W near orthogonal while it trains (arXiv 2411.08923, §3.3).

    Args:
        weight: [d, d].

    Returns:
        A scalar ≥ 0, with gradient.
    """
    identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    return (weight.T @ weight - identity).square().sum()


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A square map W of the embedding space, applied to image and text features alike.

    Attributes:
        weight: W, [d, d].

    Raises:
        ModelError: W is not square or not finite.
    """

    weight: Tensor

    def __post_init__(self) -> None:
        """Refuse a W that has no power t."""
        shape = list(self.weight.shape)
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ModelError(f"A linear map must be square, or t = 0 is no CLIP; this is {shape}.")
        if not self.weight.isfinite().all():
            raise ModelError("The linear map holds values that are not finite.")

    def __call__(self, features: Tensor) -> Tensor:
        """W applied to features and normalised: [N, d] → [N, d] unit norm."""
        return F.normalize(features @ self.weight.T, dim=-1)

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U [d, d], Σ [d] descending and Vᵀ [d, d] with W = U Σ Vᵀ, in float64."""
        u, s, vt = torch.linalg.svd(self.weight.detach().double())
        return u, s, vt

    @property
    def condition(self) -> float:
        """The largest singular value over the smallest; infinite where that is 0."""
        sigma = self.svd[1]
        return float(sigma[0] / sigma[-1])

    def power(self, t: float, eps: float = 1e-6) -> LinearMap:
        """W_t = U Σᵗ Vᵀ with Σ ≥ eps (arXiv 2411.08923, §3.3).

        Args:
            t: 0 gives an orthogonal map, so the similarities of the pretrained model; 1 gives W.
            eps: singular values below it are raised to it, so that t < 0 stays finite.

        Returns:
            The map W_t in the dtype of W.
        """
        u, s, vt = self.svd
        weight = (u * s.clamp(min=eps).pow(t)) @ vt
        return LinearMap(weight.to(self.weight.dtype))

    def save(self, path: Path, **metadata: str) -> None:
        """Write W as safetensors, with metadata such as the model that it belongs to."""
        # one entry: safetensors writes several in an order that differs from run to run
        about = {"clipalign": json.dumps(metadata, sort_keys=True)}
        data = save({"W": self.weight.detach().cpu().contiguous()}, about)
        atomic_write_bytes(path, data)

    @classmethod
    def load(cls, path: Path) -> tuple[LinearMap, dict[str, str]]:
        """Read what `save` wrote: the map and its metadata.

        Raises:
            ModelError: the file is not a sound linear map.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about = parse_json((file.metadata() or {}).get("clipalign", "{}"))
                return cls(file.get_tensor("W")), about
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"{path} is not a linear map: {error}") from None

    def fold(self, model: LoadedModel) -> LoadedModel:
        """The model with W multiplied into its two projections: an ordinary open_clip model.

        Features are normalised after W, so their length before W does not matter and the fold is
        exact: normalise(W · normalise(f)) = normalise(W f). A tower that ends without a projection
        (SigLIP's do) gets one.

        Args:
            model: the model that W was trained on; it is left as it is.

        Raises:
            ModelError: W has another size than the features, or a tower ends in something that W
                cannot be multiplied into.
        """
        both = TowerMap(self.weight)
        return fold_towers(model, image=both, text=both)


@dataclass(frozen=True, eq=False)
class TowerMap:
    """What is folded into the end of one tower: f → M f + b, before features are normalised.

    A map without b acts on normalised features just as well. One with b is for features as the
    tower gives them, whose length then matters.

    Attributes:
        matrix: M, [k, d]; k other than d changes the width of the embedding.
        bias: b, [k], or None.
    """

    matrix: Tensor
    bias: Tensor | None = None

    def times(self, matrix: Tensor | None = None) -> Tensor:
        """M times [d, n] or [d], or M itself, computed in float64."""
        own = self.matrix.detach().double().cpu()
        if matrix is None:
            return own.float()
        return (own @ matrix.detach().double().cpu()).to(matrix.dtype)

    def shifted(self, bias: Tensor | None = None) -> Tensor:
        """M times a bias [d] (or nothing), plus b: [k]."""
        own = 0.0 if self.bias is None else self.bias.detach().double().cpu()
        if bias is None:
            return torch.as_tensor(own).float()
        return (self.times(bias.detach().double()) + own).to(bias.dtype)


def fold_towers(
    model: LoadedModel, *, image: TowerMap | None = None, text: TowerMap | None = None
) -> LoadedModel:
    """The model with a map multiplied into the end of its image tower, its text tower, or both.

    A tower without a map keeps its weights bit for bit.

    Args:
        model: it is left as it is.
        image: of the image tower.
        text: of the text tower.

    Raises:
        ModelError: a map has another size than the features, the towers would end in different
            widths, or a tower ends in something that takes no such map.
    """
    return model.rebuilt(*folded_state(model, image=image, text=text))


def folded_state(
    model: LoadedModel, *, image: TowerMap | None = None, text: TowerMap | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and configuration of what `fold_towers` gives; it is not built.

    Raises:
        ModelError: as `fold_towers`.
    """
    width = model.embed_dim
    for map_ in (image, text):
        if map_ is not None and map_.matrix.shape[1] != width:
            raise ModelError(
                f"The linear map is for features of size {map_.matrix.shape[1]}, and {model.name} "
                f"has {width}: it was trained on another model."
            )
    widths = {width if map_ is None else len(map_.matrix) for map_ in (image, text)}
    if len(widths) > 1:
        raise ModelError(
            f"Image and text features would have different widths, {sorted(widths)}: fold a map of "
            "the same width into both towers."
        )
    config = deepcopy(model.config)
    config["model_cfg"]["embed_dim"] = widths.pop()
    state = dict(model.clip.state_dict())
    if image is not None:
        _fold_image(model.clip.visual, config["model_cfg"], state, image)
    if text is not None:
        _fold_text(model.clip, config["model_cfg"], state, text)
    return state, config


_State = dict[str, Tensor]


def _fold_image(visual: Any, model_cfg: dict[str, Any], state: _State, map_: TowerMap) -> None:
    vision_cfg = model_cfg["vision_cfg"]
    if hasattr(visual, "attnpool"):  # ModifiedResNet
        _fold_linear(state, "visual.attnpool.c_proj", map_)
    elif isinstance(getattr(visual, "proj", None), nn.Parameter):  # VisionTransformer, [width, d]
        if map_.bias is not None:
            raise _no_bias("image", "visual.proj, a matrix")
        state["visual.proj"] = map_.times(state["visual.proj"].T).T.contiguous()
    elif hasattr(visual, "trunk"):  # TimmModel
        name = _timm_projection(visual)
        if name is not None:
            where = (vision_cfg, "timm_proj_bias") if name == "head.proj" else None
            _fold_linear(state, f"visual.{name}", map_, where)
        else:  # the pooled features are the embedding: timm_proj "none"
            vision_cfg.update(timm_proj="linear", timm_proj_bias=map_.bias is not None)
            state["visual.head.proj.weight"] = map_.times()
            if map_.bias is not None:
                state["visual.head.proj.bias"] = map_.shifted()
    else:
        raise _unfoldable("image", visual)


def _fold_text(clip: Any, model_cfg: dict[str, Any], state: _State, map_: TowerMap) -> None:
    prefix, text = ("text.", clip.text) if hasattr(clip, "text") else ("", clip)
    text_cfg = model_cfg["text_cfg"]
    if hasattr(text, "text_projection"):  # TextTransformer, or CLIP's own
        key = f"{prefix}text_projection"
        if isinstance(text.text_projection, nn.Linear):
            _fold_linear(state, key, map_, (text_cfg, "proj_bias"))
            return
        new = map_.times(None if text.text_projection is None else state.pop(key).T)  # [k, width]
        if text.text_projection is None:
            text_cfg.update(proj_type="linear", proj_bias=False)
        if map_.bias is None:  # open_clip then holds a plain matrix, [width, k]
            state[key] = new.T.contiguous()
        else:
            text_cfg.update(proj_bias=True)
            state[f"{key}.weight"], state[f"{key}.bias"] = new, map_.shifted()
    elif isinstance(getattr(text, "proj", None), nn.Linear):  # HFTextEncoder
        _fold_linear(state, f"{prefix}proj", map_)
    elif isinstance(getattr(text, "proj", None), nn.Sequential):  # its hf_proj_type "mlp"
        _fold_linear(state, f"{prefix}proj.{len(text.proj) - 1}", map_)
    elif isinstance(getattr(text, "proj", None), nn.Identity):
        if map_.bias is not None:
            raise _no_bias("text", "nothing, and gets a projection without a bias")
        text_cfg.update(hf_proj_type="linear")
        state[f"{prefix}proj.weight"] = map_.times()
    else:
        raise _unfoldable("text", text)


def _fold_linear(
    state: _State, name: str, map_: TowerMap, switch: tuple[dict[str, Any], str] | None = None
) -> None:
    """Fold into a linear layer.

    Args:
        state: changed in place.
        name: of the layer.
        map_: to fold.
        switch: the part of the configuration and the key in it that gives the layer a bias.
    """
    state[f"{name}.weight"] = map_.times(state[f"{name}.weight"])
    if f"{name}.bias" in state:
        state[f"{name}.bias"] = map_.shifted(state[f"{name}.bias"])
    elif map_.bias is not None:
        if switch is None:
            raise _no_bias(name.split(".")[0], f"{name}, which has no bias")
        part, key = switch
        part[key] = True
        state[f"{name}.bias"] = map_.shifted()


def _timm_projection(visual: Any) -> str | None:
    """The name of the linear layer that a timm tower ends in, or None where it has none."""
    layers: dict[str, nn.Module] = dict(visual.named_modules())
    for name in ("head.proj", "head.mlp.fc2", "head.pool.proj"):
        if isinstance(layers.get(name), nn.Linear):
            return name
    classifier = visual.trunk.get_classifier()
    if isinstance(classifier, nn.Linear):
        return next(name for name, layer in layers.items() if layer is classifier)
    if len(visual.head) or not isinstance(classifier, nn.Identity | None):
        raise _unfoldable("image", visual.head if len(visual.head) else classifier)
    return None


def _unfoldable(tower: str, layer: object) -> ModelError:
    return ModelError(
        f"W cannot be folded into this model: its {tower} tower ends in {type(layer).__name__}, "
        "which is no linear projection. Train image-encoder or last:K instead of head."
    )


def _no_bias(tower: str, end: str) -> ModelError:
    return ModelError(
        f"A map with a constant term cannot be folded into this model: its {tower} tower ends in "
        f"{end}, so there is no place for the constant."
    )
