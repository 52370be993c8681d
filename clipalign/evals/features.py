"""Image features for an evaluation: each image decoded once, each model's features computed once.

Features lie in the cache by content, so a second evaluation of the same model and data encodes
nothing, whatever else is measured on it; what an interrupted evaluation had encoded is kept too.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from clipalign.cache import size_text
from clipalign.errors import DataError, ModelError, PluginError, StorageError
from clipalign.models.feature_cache import feature_path, only_one, read_features, write_features
from clipalign.models.loaded import LoadedModel
from clipalign.models.preprocess import Preprocess
from clipalign.progress import Reporter
from clipalign.training.distributed import World, join

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
    batch_size: int | None = None,
    use_cache: bool = True,
) -> Encoded:
    """Encode an image set with one model or several, from the cache where it can.

    The first item is always read: its pixels are part of the cache's key, so that a change of the
    code that draws them is noticed. Items that could not be read before are tried again.

    Args:
        models: M; models that resize alike share the pixels.
        images: what to encode.
        reporter: hears the progress, and of a cache that cannot be written.
        batch_size: images that go through a tower at once; None for 256 on a GPU and 64 else,
            where larger ones leave the processor's caches.
        use_cache: False neither reads nor writes the cache.

    Raises:
        ModelError: a model gives features that are not finite.
        PluginError: the first item is no image.
    """
    world = join()
    batch_size = batch_size or (256 if any(m.device.type != "cpu" for m in models) else 64)
    content = {**images.identity, "probe": _probe(images)}
    shape = (len(images.names), images.views)
    paths = [feature_path(model, "images", content) for model in models]

    def entries() -> dict[Path, _Entry]:
        return {
            path: _Entry(
                model, path, _cached(path if use_cache else None, (*shape, model.embed_dim))
            )
            for path, model in zip(paths, models, strict=True)
        }

    found = entries()
    if not use_cache:
        return Encoded(*_filled(found, paths, images, reporter, batch_size, world))
    if not any(world.gather_objects(any(bool(e.missing.any()) for e in found.values()))):
        return Encoded([found[path].features for path in paths])
    size = sum(entry.features.nbytes for entry in found.values())
    reporter.note(f"Image features will take {size_text(size)} in {paths[0].parent}.")
    with only_one(paths, reporter) if world.first else nullcontext():
        world.wait()
        found = entries()  # another process may have filled them meanwhile
        try:
            return Encoded(*_filled(found, paths, images, reporter, batch_size, world))
        finally:  # also what was encoded before Ctrl-C
            for entry in found.values() if world.first else ():
                _keep(entry, images, reporter)


def _filled(
    entries: Mapping[Path, _Entry],
    paths: Sequence[Path],
    images: ImageSet,
    reporter: Reporter,
    batch_size: int,
    world: World,
) -> tuple[list[Tensor], dict[int, str]]:
    """The features of each path, all of them encoded, and what cannot be read."""
    unreadable = _fill(list(entries.values()), images, reporter, batch_size, world)
    return [entries[path].features for path in paths], unreadable


def _probe(images: ImageSet) -> str:
    """Hash of the first item's pixels; empty where there is none."""
    try:
        first = images.read(0) if images.names else ()
    except DataError:
        return ""
    digest = hashlib.sha256()
    made: Sequence[Any] = first  # of a package, which may give anything
    for image in made:
        if not isinstance(image, Image.Image):
            made_by = images.identity.get("dataset", ["this suite"])
            raise PluginError(
                f"What reads the images of {made_by if isinstance(made_by, str) else made_by[0]} "
                f"gives {image!r:.60} where a PIL image is wanted."
            )
        digest.update(f"{image.mode}{image.size}".encode() + image.tobytes())
    return digest.hexdigest()


def _cached(path: Path | None, shape: tuple[int, int, int]) -> Tensor:
    """[N, V, d]: the cache's features, or NaN."""
    features = read_features(path, shape[0] * shape[1], shape[2]) if path else None
    return torch.full(shape, torch.nan) if features is None else features.view(shape)


def _keep(entry: _Entry, images: ImageSet, reporter: Reporter) -> None:
    if not entry.changed:
        return
    try:
        dataset = images.identity.get("dataset", [])
        named = [dataset] if isinstance(dataset, str) else [*dataset[::2]]  # name and split
        about = [f"{len(images.names):,} images", *map(str, named), entry.model.name]
        write_features(entry.path, entry.features.flatten(0, 1), ", ".join(about))
    except StorageError as error:  # the numbers are there all the same
        reporter.note(f"Warning: the features are not kept for next time. {error}")


def _fill(
    entries: list[_Entry], images: ImageSet, reporter: Reporter, batch_size: int, world: World
) -> dict[int, str]:
    """Encode every item that an entry lacks; returns those that cannot be read.

    Many processes take the batches of one process in turn, so that the numbers are the same.
    """
    masks = world.gather_objects({entry.path: entry.missing for entry in entries})
    lacking = {
        entry.path: torch.stack([mask[entry.path] for mask in masks]).any(dim=0)
        for entry in entries
    }
    items = torch.stack(list(lacking.values())).any(dim=0).nonzero().flatten().tolist()
    if not items:
        return {}
    unreadable: dict[int, str] = {}
    resizers = {entry.preprocessing: entry.model.preprocess for entry in entries}
    size = max(1, batch_size // images.views)
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    batches = _decoded(images, resizers, chunks[world.rank :: world.size])
    with (
        closing(batches),
        reporter.progress("Encoding images", len(items) * images.views) as bar,
    ):
        for number, batch in enumerate(batches):
            good = {item: pixels for item, pixels in batch if not isinstance(pixels, str)}
            unreadable |= {item: why for item, why in batch if isinstance(why, str)}
            for entry in entries:
                _encode(entry, {i: p for i, p in good.items() if lacking[entry.path][i]})
            turn = chunks[number * world.size : (number + 1) * world.size]
            bar.advance(sum(map(len, turn)) * images.views)
    if world.size > 1:
        _exchange(entries, [i for c in chunks[world.rank :: world.size] for i in c], world)
        parts = world.gather_objects(unreadable)
        unreadable = dict(sorted(item for part in parts for item in part.items()))
    return unreadable


def _exchange(entries: Sequence[_Entry], own: Sequence[int], world: World) -> None:
    """Give every process what the others encoded; `own` are this one's items."""
    mine = torch.tensor(own, dtype=torch.int64)
    every = world.gather_patiently(mine)
    for entry in entries:
        entry.features[every] = world.gather_patiently(entry.features[mine])
        entry.changed = True


def _decoded(
    images: ImageSet, resizers: Mapping[str, Preprocess], batches: Sequence[Sequence[int]]
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
        for batch in batches:
            ahead.append([pool.submit(decode, item) for item in batch])
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
