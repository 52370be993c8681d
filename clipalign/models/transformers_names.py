"""A CLIP's configuration and weights in the words of open_clip, and in those of transformers.

Both are the same arithmetic for a ViT image tower and a causal text tower: tensors differ in name
only, except that transformers keeps queries, keys and values apart and turns its projections over.
Nothing here imports transformers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from clipalign.errors import ModelError
from clipalign.models.library import open_clip_module

__all__ = [
    "VOCABULARY",
    "from_transformers",
    "obstacles",
    "open_clip_model_cfg",
    "to_transformers",
    "transformers_config",
]

VOCABULARY = 49408
"""Tokens of CLIP's own tokeniser; the last one ends a text, and its place is pooled."""
_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 512, "intermediate_size": 2048,
    "num_hidden_layers": 12, "num_attention_heads": 8, "max_position_embeddings": 77,
    "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "eos_token_id": VOCABULARY - 1,
}  # fmt: skip
_VISION: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_channels": 3, "image_size": 224, "patch_size": 32,
    "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
_TURNED = {"visual.proj", "text_projection"}
_TOP = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
}
_BLOCKS = {
    "visual.transformer.resblocks": "vision_model.encoder.layers",
    "transformer.resblocks": "text_model.encoder.layers",
}
_BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
_QKV = ("q_proj", "k_proj", "v_proj")


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of open_clip's CLIP (or a CustomTextCLIP of the same arithmetic), renamed."""
    own = {name.removeprefix("text."): tensor for name, tensor in state.items()}
    out: dict[str, Tensor] = {}
    for name, others in _names(own):
        value = own[name].T if name in _TURNED else own[name]
        parts = value.chunk(len(others)) if len(others) > 1 else (value,)
        out |= {other: part.contiguous() for other, part in zip(others, parts, strict=True)}
    out["logit_scale"] = out["logit_scale"].reshape(())
    return out


def from_transformers(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights of transformers' CLIPModel, renamed.

    Args:
        tensors: by transformers' names.
        wanted: open_clip's state: which names there are.

    Returns:
        By open_clip's names, those that are there; and what has no place, under its own name.
    """
    left = {n: t for n, t in tensors.items() if not n.endswith(".position_ids")}  # a constant
    out = {}
    for name, others in _names(wanted):
        if all(other in left for other in others):
            value = torch.cat([left.pop(other) for other in others]) if len(others) > 1 else None
            value = left.pop(others[0]) if value is None else value
            out[name] = value.T.contiguous() if name in _TURNED else value
    return out | left


def _names(state: Mapping[str, Tensor]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each name of open_clip's with the one or three of transformers'."""
    for name in state:
        if name in _TOP:
            yield name, (_TOP[name],)
        for blocks, theirs in _BLOCKS.items():
            if name.startswith(f"{blocks}."):
                number, _, rest = name.removeprefix(f"{blocks}.").partition(".")
                where = f"{theirs}.{number}"
                if rest.startswith("attn.in_proj_"):
                    kind = rest.removeprefix("attn.in_proj_")
                    yield name, tuple(f"{where}.self_attn.{part}.{kind}" for part in _QKV)
                else:
                    layer, _, kind = rest.rpartition(".")
                    yield name, (f"{where}.{_BLOCK[layer]}.{kind}",)


def open_clip_model_cfg(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """open_clip's `model_cfg` of a CLIPModel's config.json.

    Args:
        config: the whole of config.json.
        where: names it in errors.

    Raises:
        ModelError: it is no CLIP, asks for code of its own, or for arithmetic that open_clip's
            CLIP has not.
    """
    if str(config.get("model_type")).startswith("siglip"):
        raise ModelError(
            f"{where} describes a {config['model_type']} model of transformers. open_clip takes "
            "SigLIP's image tower from timm, in timm's own sizes and names, and its weights are "
            "not translated. Name open_clip's copy of the model, such as ViT-B-16-SigLIP/webli."
        )
    if config.get("model_type") != "clip":
        raise ModelError(
            f"{where} describes a {config.get('model_type')!r} model; of transformers' models only "
            "'clip' is read."
        )
    if "auto_map" in config:
        raise ModelError(
            f"{where} asks for code of its own (auto_map), which is never run. Only CLIP as "
            "transformers itself has it is read."
        )
    try:
        text, vision = dict(_TEXT), dict(_VISION)
        for suffix in ("", "_dict"):  # what early files call it goes first, as in transformers
            text |= config.get(f"text_config{suffix}") or {}
            vision |= config.get(f"vision_config{suffix}") or {}
        acts = {text["hidden_act"], vision["hidden_act"]}
        problems = []
        if len(acts) > 1 or not acts <= {"quick_gelu", "gelu"}:
            problems.append(f"the activation {' and '.join(sorted(map(str, acts)))}")
        if {text["layer_norm_eps"], vision["layer_norm_eps"]} != {1e-5}:
            problems.append("layer_norm_eps other than 1e-05")
        if vision["num_channels"] != 3:
            problems.append(f"{vision['num_channels']} channels")
        if text["eos_token_id"] not in (2, VOCABULARY - 1):  # 2: what early files wrote for it
            problems.append(f"texts that end with token {text['eos_token_id']}")
        if problems:
            raise ModelError(f"{where} asks for {', '.join(problems)}, which open_clip has not.")
        return {
            "embed_dim": config.get("projection_dim", 512),
            "vision_cfg": {
                "image_size": vision["image_size"],
                "layers": vision["num_hidden_layers"],
                "width": vision["hidden_size"],
                "head_width": vision["hidden_size"] // vision["num_attention_heads"],
                "patch_size": vision["patch_size"],
                "mlp_ratio": vision["intermediate_size"] / vision["hidden_size"],
            },
            "text_cfg": {
                "context_length": text["max_position_embeddings"],
                "vocab_size": text["vocab_size"],
                "width": text["hidden_size"],
                "heads": text["num_attention_heads"],
                "layers": text["num_hidden_layers"],
                "mlp_ratio": text["intermediate_size"] / text["hidden_size"],
            },
            "quick_gelu": acts == {"quick_gelu"},
        }
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"{where} is damaged: {type(error).__name__}: {error}") from error


def transformers_config(model_cfg: Mapping[str, Any], log_scale: float) -> dict[str, Any]:
    """The keyword arguments of transformers' CLIPConfig; `obstacles` must be empty."""
    vision, text = _filled(model_cfg)
    shared = {
        "hidden_act": "quick_gelu" if model_cfg.get("quick_gelu") else "gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": model_cfg["embed_dim"],
    }
    size = vision["image_size"]
    return {
        "projection_dim": model_cfg["embed_dim"],
        "logit_scale_init_value": log_scale,
        "vision_config": {
            **shared,
            "image_size": size if isinstance(size, int) else size[0],
            "patch_size": vision["patch_size"],
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision["mlp_ratio"]),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision["head_width"],
        },
        "text_config": {
            **shared,
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["context_length"],
            "hidden_size": text["width"],
            "intermediate_size": int(text["width"] * text["mlp_ratio"]),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "bos_token_id": VOCABULARY - 2,
            "eos_token_id": VOCABULARY - 1,
            "pad_token_id": VOCABULARY - 1,
        },
    }


def obstacles(config: Mapping[str, Any]) -> list[str]:
    """What of an open_clip model transformers' CLIPModel cannot compute; empty where it can.

    Args:
        config: `model_cfg` and `preprocess_cfg`.
    """
    model_cfg, preprocess = config["model_cfg"], config["preprocess_cfg"]
    found = []
    if model_cfg.get("init_logit_bias") is not None:
        found.append("a logit bias (SigLIP)")
    if "multimodal_cfg" in model_cfg:
        found.append("a text decoder (CoCa)")
    vision, text = _filled(model_cfg)
    for tower, values, own, free in (
        ("image", vision, open_clip_module().CLIPVisionCfg, {"layers", "width", "head_width",
         "patch_size", "image_size", "mlp_ratio", "patch_dropout"}),
        ("text", text, open_clip_module().CLIPTextCfg, {"layers", "width", "heads", "mlp_ratio",
         "context_length"}),
    ):  # fmt: skip
        usual = dataclasses.asdict(own())
        if tower == "image" and vision["timm_model_name"]:
            found.append(f"the timm image tower {vision['timm_model_name']}")
        elif tower == "image" and not isinstance(vision["layers"], int):
            found.append("a ResNet image tower")
        elif tower == "text" and text["hf_model_name"]:
            found.append(f"the Hugging Face text tower {text['hf_model_name']}")
        else:
            odd = [k for k, v in values.items() if k not in free and v != usual.get(k)]
            found += [f"{key}={values[key]} in the {tower} tower" for key in odd]
    size = vision["image_size"]
    if not isinstance(size, int) and len(set(size)) > 1:
        found.append(f"images that are not square ({size[0]} × {size[1]})")
    if preprocess["resize_mode"] not in ("shortest", "squash"):
        found.append(f"the resize mode {preprocess['resize_mode']}")
    if preprocess["interpolation"] not in ("bicubic", "bilinear"):
        found.append(f"the interpolation {preprocess['interpolation']}")
    return found


def _filled(model_cfg: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """vision_cfg and text_cfg with open_clip's defaults for what they leave out."""
    module = open_clip_module()
    vision = dataclasses.asdict(module.CLIPVisionCfg()) | dict(model_cfg["vision_cfg"])
    text = dataclasses.asdict(module.CLIPTextCfg()) | dict(model_cfg["text_cfg"])
    return vision, text
