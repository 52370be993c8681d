"""Tiny models of every kind that open_clip builds, written as open_clip directories."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clipalign.models.library import build_clip
from clipalign.models.load import load_model
from clipalign.models.loaded import LoadedModel

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
TIMM = {"timm_model_name": "test_convnext", "timm_pool": "avg", "image_size": 64}
SIGLIP = {
    "timm_model_name": "test_vit",
    "timm_pool": "token",
    "timm_proj": "none",
    "image_size": 160,
}

MODELS: dict[str, dict[str, Any]] = {
    "vit": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT},
    "quickgelu": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "wide": {"embed_dim": 24, "vision_cfg": {**VIT, "image_size": [32, 48]}, "text_cfg": TEXT},
    "resnet": {"embed_dim": 24, "vision_cfg": RESNET, "text_cfg": TEXT},
    "timm": {"embed_dim": 24, "vision_cfg": TIMM, "text_cfg": TEXT},
    # As SigLIP: no projection after the image tower, one with a bias after the text tower.
    "siglip": {
        "embed_dim": 64,
        "init_logit_scale": 2.3,
        "init_logit_bias": -10.0,
        "custom_text": True,
        "vision_cfg": SIGLIP,
        "text_cfg": {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
    "custom-text": {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": {**VIT, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": {**TEXT, "proj_type": "none"},
    },
    "coca": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {
            **VIT, "attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 8,
            "output_tokens": True,
        },
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
    },
}  # fmt: skip
PREPROCESS = {
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.3, 0.2],
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a tiny model by its key in MODELS; its weights are random, but all used."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def make(name: str) -> Path:
        directory = folder / name
        directory.mkdir()
        config = {"model_cfg": MODELS[name], "preprocess_cfg": PREPROCESS}
        (directory / "open_clip_config.json").write_text(json.dumps(config))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            clip = build_clip(config)
            state = clip.state_dict()
            for key, tensor in state.items():
                # Biases, norms and running statistics that start as 0 or 1 would hide mistakes.
                if tensor.is_floating_point() and tensor.ndim == 1:
                    tensor += 0.2 * torch.rand_like(tensor)
                    if key.endswith("bn3.weight"):
                        tensor += 0.3
        save_file(state, directory / "open_clip_model.safetensors")
        return directory

    return make


@pytest.fixture(scope="session")
def tiny(model_directory: Callable[[str], Path]) -> Callable[..., LoadedModel]:
    """A tiny model that the test may change: `tiny("vit")`, `tiny("vit", precision="bf16")`."""

    @cache
    def loaded(name: str, **options: str) -> LoadedModel:
        return load_model(f"local-dir:{model_directory(name)}", **options)

    def copied(name: str, **options: str) -> LoadedModel:
        model = loaded(name, **options)
        return deepcopy(model, {id(model.tokenizer): model.tokenizer})

    return copied


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """An RGB image that is neither square nor smooth, 90 × 70."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def pixels_for() -> Callable[..., torch.Tensor]:
    """Normalised random pixels of the right size: `pixels_for(model, 4)`."""

    def make(model: LoadedModel, count: int = 3) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(count, 3, *model.image_size, generator=generator)

    return make
