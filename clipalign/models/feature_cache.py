"""Features of frozen towers on the disk, by content: what was encoded once is never encoded again.

An entry is named by the hash of all that decides its numbers (weights, preprocessing, precision,
what is encoded), carries the hash of its own content, and appears whole or not at all, so that two
processes that fill the same cache at once do no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from clipalign.cache import cache_dir
from clipalign.errors import StorageError
from clipalign.files import atomic_write_bytes, canonical_json
from clipalign.models.loaded import LoadedModel

__all__ = ["feature_path", "read_features", "text_features", "write_features"]

_FORMAT = 1  # of what is stored; a change makes old entries misses


def feature_path(model: LoadedModel, kind: str, content: Any) -> Path:
    """Where the features of some content lie.

    Args:
        model: its weights, preprocessing, precision and kind of device are part of the name.
        kind: "images" or "texts".
        content: JSON-able; all that decides the content: hashes and options, or the texts.
    """
    key = {
        "format": _FORMAT,
        "weights": model.sha256,
        "preprocess": {k: str(v) for k, v in model.config["preprocess_cfg"].items()},
        "precision": model.precision,
        "device": model.device.type,
        "torch": torch.__version__,
        "kind": kind,
        "content": content,
    }
    name = hashlib.sha256(canonical_json(key)).hexdigest()
    return cache_dir("features") / f"{kind}-{name}.safetensors"


def read_features(path: Path, rows: int, width: int) -> Tensor | None:
    """Features [rows, width] of an entry, memory-mapped; None when it is absent or damaged.

    Pages that the caller writes to are the caller's own: the file stays as it is.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError):
        return None
    features, digest = tensors.get("features"), tensors.get("sha256")
    if features is None or digest is None or features.shape != (rows, width):
        return None
    return features if bytes(digest.tolist()) == _digest(features) else None


def write_features(path: Path, features: Tensor) -> None:
    """Put features [N, d] float32 into the cache, all or nothing.

    Raises:
        StorageError: it cannot be written.
    """
    features = features.cpu().contiguous()
    digest = torch.tensor(list(_digest(features)), dtype=torch.uint8)
    atomic_write_bytes(path, save({"features": features, "sha256": digest}))


def text_features(model: LoadedModel, texts: Sequence[str], *, use_cache: bool = True) -> Tensor:
    """T of texts, [C, d] float32 on the model's device, from the cache where it can.

    A cache that cannot be written is done without.

    Raises:
        ModelError: a text is too long for the text tower.
    """
    if not use_cache:
        return model.encode_text(texts)
    path = feature_path(model, "texts", list(texts))
    features = read_features(path, len(texts), model.embed_dim)
    if features is None:
        features = model.encode_text(texts)
        with contextlib.suppress(StorageError):
            write_features(path, features)
    return features.to(model.device)


def _digest(features: Tensor) -> bytes:
    return hashlib.sha256(features.numpy()).digest()  # type: ignore[arg-type]
