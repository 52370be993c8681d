"""Image features for an evaluation: each image decoded once, each model's features computed once.

Features lie in the cache by content, so a second evaluation of the same model and data encodes
nothing, whatever else is measured on it; what an interrupted evaluation had encoded is kept too.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import PIL
import torch
from PIL import Image
from torch import Tensor

from clipalign.errors import DataError, ModelError, StorageError
from clipalign.models.feature_cache import feature_path, read_features, write_features
from clipalign.models.loaded import LoadedModel
from clipalign.models.preprocess import Preprocess
from clipalign.progress import Reporter

__all__ = ["Encoded", "ImageSet", "encode_images"]

_Read: TypeAlias = tuple[int, dict[str, Tensor] | str]
"""An item, and its pixels [V, 3, H, W] by preprocessing or the reason why there are none."""
_DECODERS = 2  # threads: Pillow lets go of the interpreter's lock while it decodes and resizes


@dataclass(frozen=True)
class ImageSet:
    """Images to encode, not yet read.

    Attributes:
        identity: JSON-able; all that decides the pixels, such as the dataset's fingerprint, the
            split and the seed of what is drawn on them.
        names: of the N items, for messages.
        views: V, how many images each item gives: itself, and itself with a word on it.
        read: reads item i and gives its V images, RGB. DataError when it cannot be read.
    """

    identity: Mapping[str, Any]
    names: Sequence[str]
    views: int
    read: Callable[[int], Sequence[Image.Image]]


@dataclass(frozen=True)
class Encoded:
    """What came of an image set.

    Attributes:
        features: [N, V, d] float32, unit norm, on the CPU, for each model asked for; NaN where the
            item could not be read.
        unreadable: item → why it could not be read.
    """

    features: list[Tensor]
    unreadable: dict[int, str] = field(default_factory=dict)


@dataclass
class _Entry:
    """One model's features of the set: what the cache had, then everything."""

    model: LoadedModel
    path: Path
    features: Tensor
    changed: bool = False

    @property
    def preprocessing(self) -> str:
        """Models of equal preprocessing share pixels."""
        return str(self.model.config["preprocess_cfg"])

    @property
    def missing(self) -> Tensor:
        """[N] bool: items without features."""
        return self.features.isnan().any(dim=2).any(dim=1)


def encode_images(
    models: Sequence[LoadedModel],
    images: ImageSet,
    reporter: Reporter,
    *,
    batch_size: int = 256,
    use_cache: bool = True,
) -> Encoded:
    """Encode an image set with one model or several, from the cache where it can.

    The first item is always read: its pixels are part of the cache's key, so that a change of the
    code that draws them is noticed. Items that could not be read before are tried again.

    Args:
        models: M; models that resize alike share the pixels.
        images: what to encode.
        reporter: hears the progress, and of a cache that cannot be written.
        batch_size: images that go through a tower at once.
        use_cache: False neither reads nor writes the cache.

    Raises:
        ModelError: a model gives features that are not finite.
    """
    content = {**images.identity, "probe": _probe(images), "pillow": PIL.__version__}
    shape = (len(images.names), images.views)
    paths = [feature_path(model, "images", content) for model in models]
    entries = {
        path: _Entry(model, path, _cached(path if use_cache else None, (*shape, model.embed_dim)))
        for path, model in zip(paths, models, strict=True)
    }
    try:
        unreadable = _fill(list(entries.values()), images, reporter, batch_size)
    finally:  # also what was encoded before Ctrl-C
        for entry in entries.values() if use_cache else ():
            _keep(entry, reporter)
    return Encoded([entries[path].features for path in paths], unreadable)


def _probe(images: ImageSet) -> str:
    """Hash of the first item's pixels; empty where there is none."""
    try:
        first = images.read(0) if images.names else ()
    except DataError:
        return ""
    digest = hashlib.sha256()
    for image in first:
        digest.update(f"{image.mode}{image.size}".encode() + image.tobytes())
    return digest.hexdigest()


def _cached(path: Path | None, shape: tuple[int, int, int]) -> Tensor:
    """[N, V, d]: the cache's features, or NaN."""
    features = read_features(path, shape[0] * shape[1], shape[2]) if path else None
    return torch.full(shape, torch.nan) if features is None else features.view(shape)


def _keep(entry: _Entry, reporter: Reporter) -> None:
    if not entry.changed:
        return
    try:
        write_features(entry.path, entry.features.flatten(0, 1))
    except StorageError as error:  # the numbers are there all the same
        reporter.note(f"Warning: the features are not kept for next time. {error}")


def _fill(
    entries: list[_Entry], images: ImageSet, reporter: Reporter, batch_size: int
) -> dict[int, str]:
    """Encode every item that an entry lacks; returns those that cannot be read."""
    lacking = {entry.path: entry.missing for entry in entries}
    items = torch.stack(list(lacking.values())).any(dim=0).nonzero().flatten().tolist()
    if not items:
        return {}
    unreadable: dict[int, str] = {}
    resizers = {entry.preprocessing: entry.model.preprocess for entry in entries}
    batches = _decoded(images, resizers, items, max(1, batch_size // images.views))
    with (
        closing(batches),
        reporter.progress("Encoding images", len(items) * images.views) as bar,
    ):
        for batch in batches:
            good = {item: pixels for item, pixels in batch if not isinstance(pixels, str)}
            unreadable |= {item: why for item, why in batch if isinstance(why, str)}
            for entry in entries:
                _encode(entry, {i: p for i, p in good.items() if lacking[entry.path][i]})
            bar.advance(len(batch) * images.views)
    return unreadable


def _decoded(
    images: ImageSet, resizers: Mapping[str, Preprocess], items: Sequence[int], size: int
) -> Generator[list[_Read], None, None]:
    """Batches of items with their pixels by preprocessing, or the reason why there are none.

    One batch is decoded ahead while the towers work on the one before.
    """

    def decode(item: int) -> _Read:
        try:
            views = images.read(item)
        except DataError as error:
            return item, str(error)
        return item, {
            key: torch.stack([preprocess.resize_to_uint8(view) for view in views])
            for key, preprocess in resizers.items()
        }

    pool = ThreadPoolExecutor(_DECODERS)
    try:
        ahead: deque[list[Future[_Read]]] = deque()
        for start in range(0, len(items), size):
            ahead.append([pool.submit(decode, item) for item in items[start : start + size]])
            if len(ahead) > 1:
                yield [future.result() for future in ahead.popleft()]
        for last in ahead:
            yield [future.result() for future in last]
    finally:  # after Ctrl-C no further image is read
        pool.shutdown(cancel_futures=True)


@torch.no_grad()
def _encode(entry: _Entry, batch: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Put the features of a batch of items, pixels [V, 3, H, W] by preprocessing, into an entry."""
    if not batch:
        return
    model = entry.model
    pixels = torch.stack([views[entry.preprocessing] for views in batch.values()])
    features = model.encode_image(pixels.flatten(0, 1).to(model.device)).cpu()
    if not features.isfinite().all():
        raise ModelError(
            f"The image tower of {model.name} gives features that are not finite. Its weights are "
            "damaged, or the precision is too low for it: use fp32."
        )
    entry.features[list(batch)] = features.view(*pixels.shape[:2], -1)
    entry.changed = True
