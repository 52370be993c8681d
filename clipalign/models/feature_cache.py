"""Features of frozen towers on the disk, by content: what was encoded once is never encoded again.

An entry is named by the hash of all that decides its numbers (weights, architecture, preprocessing,
precision, what is encoded), carries the hash of its own content, and appears whole or not at all.
Entries are safetensors files; they are read and written through memory maps, so that their size is
the disk's business alone. Two processes that want the same entry at once do no harm, and under
`only_one` the second waits for the first instead of computing it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from clipalign.cache import cache_dir, entry_header
from clipalign.errors import StorageError
from clipalign.files import atomic_writer, canonical_json, reserve, sha256_bytes
from clipalign.models.loaded import LoadedModel
from clipalign.progress import Reporter

__all__ = [
    "feature_path",
    "new_entry",
    "only_one",
    "open_entry",
    "read_features",
    "text_features",
    "write_features",
]

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_DIGEST = 32  # bytes of a sha256
_PROBED = 4096  # texts at most whose tokens are part of an entry's name
_FORMAT = 1  # of what is stored; a change makes old entries misses


def feature_path(model: LoadedModel, kind: str, content: Any) -> Path:
    """Where the features of some content lie.

    Args:
        model: its weights, architecture, preprocessing, precision and kind of device are part of
            the name. Equal weights give other features under another activation or pooling.
        kind: "images", "texts" or "trunk".
        content: JSON-able; all that decides the content: hashes and options, or the texts.
    """
    key = {
        "format": _FORMAT,
        "weights": model.sha256,
        "architecture": json.dumps(model.config.get("model_cfg"), sort_keys=True, default=str),
        "preprocess": {k: str(v) for k, v in model.config["preprocess_cfg"].items()},
        "precision": model.precision,
        "device": model.device.type,
        "torch": torch.__version__,
        "pillow": PIL.__version__,  # which decodes and resizes
        "kind": kind,
        "content": content,
    }
    name = hashlib.sha256(canonical_json(key)).hexdigest()
    return cache_dir("features") / f"{kind}-{name}.safetensors"


def read_features(path: Path, rows: int, width: int) -> Tensor | None:
    """Features [rows, width] of an entry, memory-mapped; None when it is absent or damaged.

    Pages that the caller writes to are the caller's own: the file stays as it is.
    """
    found = open_entry(path)
    fits = found is not None and found.shape == (rows, width) and found.dtype == torch.float32
    return found if fits else None


def open_entry(path: Path, *, check: bool = True) -> Tensor | None:
    """The tensor of an entry, memory-mapped; None when it is absent or damaged.

    Args:
        path: of the entry.
        check: read it through and compare its hash; False for what is too large for that.
    """
    header = entry_header(path)
    if header is None:
        return None
    facts, start = header
    try:
        described = facts["features"]
        dtype = {name: dtype for dtype, name in _DTYPES.items()}[described["dtype"]]
        shape = tuple(map(int, described["shape"]))
        n = math.prod(shape) * dtype.itemsize
        if described["data_offsets"] != [0, n] or path.stat().st_size != start + n + _DIGEST:
            return None
        whole = np.memmap(path, np.uint8, "c", offset=start)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if check and hashlib.sha256(cast(Any, whole[:n])).digest() != whole[n:].tobytes():
        return None
    return torch.from_numpy(whole[:n]).view(dtype).view(shape) if n else torch.empty(shape)


def write_features(path: Path, features: Tensor, about: str = "") -> None:
    """Put features [N, d] float32 into the cache, all or nothing.

    Args:
        path: of the entry.
        features: [N, d].
        about: what they are of, for people who look into the cache.

    Raises:
        StorageError: it cannot be written.
    """
    with new_entry(path, features.shape, torch.float32, about) as place:
        place.copy_(features)


@contextlib.contextmanager
def new_entry(
    path: Path, shape: Sequence[int], dtype: torch.dtype, about: str = ""
) -> Iterator[Tensor]:
    """A memory-mapped tensor to fill; it is the entry when the block ends without an exception.

    Args:
        path: of the entry.
        shape: of the tensor.
        dtype: of the tensor.
        about: what it is of, for people who look into the cache.

    Raises:
        StorageError: it cannot be written, or the disk has no room for it; found out before the
            block begins, since a full disk under a memory map kills a process.
    """
    n = math.prod(shape) * dtype.itemsize
    header = canonical_json(
        {
            "__metadata__": {"about": about},
            "features": {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [0, n]},
            "sha256": {"dtype": "U8", "shape": [_DIGEST], "data_offsets": [n, n + _DIGEST]},
        }
    )
    header += b" " * (-len(header) % 8)  # what follows is aligned
    with atomic_writer(path) as file:
        file.write(struct.pack("<Q", len(header)) + header)
        start = file.tell()
        reserve(file, start + n + _DIGEST)
        if n:
            mapped = np.memmap(file.name, np.uint8, "r+", offset=start, shape=(n,))
            yield torch.from_numpy(mapped).view(dtype).view(*shape)
            mapped.flush()
            digest = hashlib.sha256(cast(Any, mapped)).digest()
        else:
            yield torch.empty(*shape, dtype=dtype)
            digest = hashlib.sha256().digest()
        file.seek(start + n)
        file.write(digest)


@contextlib.contextmanager
def only_one(paths: Sequence[Path], say: Reporter) -> Iterator[None]:
    """Hold some entries while they are made: who wants the same waits, and then finds them there.

    A cache that cannot be locked is used without.
    """
    with contextlib.ExitStack() as held:
        for path in sorted(set(paths)):  # in one order, so that no two wait for each other
            with contextlib.suppress(OSError, NotImplementedError):
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(path.with_name(f".{path.name}.lock"))
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    say.note(f"Waiting for another process, which computes {path.name}.")
                    lock.acquire()
                held.callback(lock.release)
        yield


def text_features(model: LoadedModel, texts: Sequence[str], *, use_cache: bool = True) -> Tensor:
    """T of texts, [C, d] float32 on the model's device, from the cache where it can.

    A cache that cannot be written is done without.

    Raises:
        ModelError: a text is too long for the text tower.
    """
    if not use_cache or not texts:
        return model.encode_text(texts)
    # tokens too, for a tokeniser lies in files of its own
    tokens = model.tokenize(texts[:_PROBED], truncate=True)
    path = feature_path(model, "texts", [*texts, sha256_bytes(tokens.cpu().numpy().tobytes())])
    features = read_features(path, len(texts), model.embed_dim)
    if features is None:
        features = model.encode_text(texts)
        with contextlib.suppress(StorageError):
            write_features(path, features, f"{len(texts):,} texts of {model.name}")
    return features.to(model.device)
