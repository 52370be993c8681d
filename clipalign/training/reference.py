"""The reference, computed once: image features of every image, text features of every candidate.

Kept in the cache by content: weights, preprocessing, precision, pixels, prompts. A second training
on the same data reads them, and no second copy of the model is ever held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from clipalign.cache import cache_dir
from clipalign.files import atomic_write_bytes, canonical_json
from clipalign.models.loaded import LoadedModel

_FORMAT = 1  # of what is stored; a change makes old entries misses


def cache_path(model: LoadedModel, kind: str, content: Sequence[str]) -> Path:
    """Where the features of some content lie.

    Args:
        model: its weights, preprocessing and precision are part of the key.
        kind: "images" or "texts".
        content: what identifies the content: hashes of a set and its split, or the texts.
    """
    key = {
        "format": _FORMAT,
        "weights": model.sha256,
        "preprocess": {k: str(v) for k, v in sorted(model.config["preprocess_cfg"].items())},
        "precision": model.precision,
        "device": model.device.type,
        "torch": torch.__version__,
        "kind": kind,
        "content": list(content),
    }
    name = hashlib.sha256(canonical_json(key)).hexdigest()
    return cache_dir("reference") / f"{kind}-{name}.safetensors"


def read_features(path: Path, rows: int, width: int) -> Tensor | None:
    """Features [rows, width] from the cache; None when they are absent or damaged."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError):
        return None
    features = tensors.get("features")
    digest = tensors.get("sha256")
    if features is None or digest is None or features.shape != (rows, width):
        return None
    return features if bytes(digest.tolist()) == _digest(features) else None


def write_features(path: Path, features: Tensor) -> None:
    """Put features [N, d] into the cache, all or nothing."""
    features = features.cpu().contiguous()
    digest = torch.tensor(list(_digest(features)), dtype=torch.uint8)
    atomic_write_bytes(path, save({"features": features, "sha256": digest}))


def image_features(
    model: LoadedModel,
    pixels: Tensor,
    batch_size: int,
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """I_ref of every image.

    Args:
        model: the reference.
        pixels: [N, 3, H, W] uint8.
        batch_size: how many go through the tower at once.
        advance: told how many more are done.

    Returns:
        [N, d] float32 unit norm, on the CPU.
    """
    out = torch.empty(len(pixels), model.embed_dim)
    with torch.no_grad():
        for start in range(0, len(pixels), batch_size):
            part = pixels[start : start + batch_size].to(model.device)
            out[start : start + len(part)] = model.encode_image(part).cpu()
            if advance:
                advance(len(part))
    return out


def text_features(model: LoadedModel, texts: Sequence[str]) -> Tensor:
    """T of the candidates, [C, d] on the model's device; cached.

    Raises:
        ModelError: a text is too long for the text tower.
    """
    path = cache_path(model, "texts", texts)
    features = read_features(path, len(texts), model.embed_dim)
    if features is None:
        features = model.encode_text(texts)
        write_features(path, features)
    return features.to(model.device)


def _digest(features: Tensor) -> bytes:
    return hashlib.sha256(features.numpy().tobytes()).digest()
