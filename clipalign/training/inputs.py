"""What a trainer reads of every image: the reference's features, and what the policy starts from.

The policy starts from pixels; for a head from the reference's features; under last:K from the
activations before its first trained block. Whatever is frozen is computed once and lies in the
cache, memory-mapped, so that all processes of a machine share its pages.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clipalign.cache import size_text
from clipalign.errors import StorageError
from clipalign.models.feature_cache import (
    feature_path,
    new_entry,
    only_one,
    open_entry,
    read_features,
)
from clipalign.models.trainable import TrainablePart
from clipalign.models.trunk import Trunk, find_trunk
from clipalign.progress import Reporter
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.training.distributed import World
from clipalign.training.losses import Data
from clipalign.training.reference import Output, compute
from clipalign.training.streams import Pixels, Stream, build_stream, decode_pixels

__all__ = ["InputLoader"]

BATCH = 64
"""Images that go through a frozen tower at once, whatever is trained on in a step: the last bits of
a feature may depend on it, and an entry of the cache serves runs of any batch size."""


@dataclass
class InputLoader:
    """Gives the data of each split.

    Args:
        part: what trains; its model is still the reference.
        preferences: the set.
        workers: threads that decode; 0 for two.
        cache_trunk: whether last:K starts from cached activations.
        takes_rewards: whether the objective reads what texts are worth.
        say: hears what is being done.
        world: the processes that share the work.
    """

    part: TrainablePart
    preferences: PreferenceSet
    workers: int
    cache_trunk: bool
    takes_rewards: bool
    say: Reporter
    world: World

    def load(self, splits: Sequence[str]) -> list[Data]:
        """The data of some splits; all start from activations, or none does.

        Raises:
            DataError: an image is damaged, or a split has no preference.
            StorageError: under many processes, the cache cannot be written.
        """
        trunk = self._trunk()
        if trunk is not None:
            with contextlib.suppress(_NoTrunk):
                found = [self._split(split, trunk) for split in splits]
                self.part.trunk = trunk
                return found
        return [self._split(split, None) for split in splits]

    def _trunk(self) -> Trunk | None:
        if self.part.trainable.kind != "last":
            return None
        if not self.cache_trunk:
            self.say.note("The frozen blocks are computed at every step (train.cache_trunk).")
            return None
        trunk = find_trunk(self.part.model)
        if trunk is None:
            self._uncached("no frozen block of this tower can be cut off")
        return trunk

    def _uncached(self, why: str) -> None:
        self.say.note(
            f"The frozen blocks are computed at every step: {why}. The result is equal, but for "
            "rounding."
        )

    def _split(self, split: str, trunk: Trunk | None) -> Data:
        model = self.part.model
        stream = build_stream(self.preferences, split, takes_rewards=self.takes_rewards)
        n, content = len(stream.paths), [self.preferences.content_sha256, split]
        path = feature_path(model, "images", content)
        wanted = [path]
        if trunk is not None:
            wanted.append(feature_path(model, "trunk", [*content, trunk.blocks]))
        with self._held(wanted):
            reference = read_features(path, n, model.embed_dim)
            # one process of a machine reads through what the others map
            check = self.world.local_rank == 0
            activations = None if trunk is None else open_entry(wanted[1], check=check)
            whole = reference is not None and (trunk is None or activations is not None)
            if not all(self.world.gather_objects(whole)):
                reference = activations = None
            if (not self.part.uses_cached_features and activations is None) or reference is None:
                pixels = self._pixels(stream, split)
            if reference is None:
                if trunk is not None:
                    self._check(trunk, pixels)
                reference, activations = self._computed(split, pixels, wanted, trunk)
        inputs: Pixels = reference
        if not self.part.uses_cached_features:
            inputs = pixels if activations is None else activations
        return Data(stream, reference, inputs)

    @contextlib.contextmanager
    def _held(self, paths: Sequence[Path]) -> Iterator[None]:
        """Of two runs that want the same entries, one waits; its own processes wait with it."""
        with only_one(paths, self.say) if self.world.first else contextlib.nullcontext():
            self.world.wait()
            yield

    def _pixels(self, stream: Stream, split: str) -> Pixels:
        model = self.part.model
        with self.say.progress(f"Decoding {split} images", len(stream.paths)) as bar:
            return decode_pixels(
                self.preferences, stream.paths, model.preprocess, model.image_size,
                workers=self.workers, advance=bar.advance, note=self.say.note,
                world=self.world,
            )  # fmt: skip

    def _check(self, trunk: Trunk, pixels: Pixels) -> None:
        few = pixels[torch.arange(min(2, len(pixels)))].to(self.part.model.device)
        if not trunk.fits(few):
            self._uncached("this tower does more than its blocks one after another")
            raise _NoTrunk

    def _computed(
        self, split: str, pixels: Pixels, paths: Sequence[Path], trunk: Trunk | None
    ) -> tuple[Tensor, Tensor | None]:
        """Reference features and activations, computed and put into the cache."""
        model, n = self.part.model, len(pixels)
        outputs = [Output((model.embed_dim,), torch.float32, None)]
        if trunk is not None:
            one = trunk.frozen(pixels[torch.arange(1)].to(model.device))
            outputs.append(Output(tuple(one.shape[1:]), one.dtype, None))
        shapes = [(n, *o.shape) for o in outputs]
        sizes = [n * math.prod(o.shape) * o.dtype.itemsize for o in outputs]
        self._say_size(split, n, sizes, paths[0].parent)
        if trunk is not None:
            self._check_room(sizes, paths[0].parent)

        def tower(part: Tensor) -> list[Tensor]:
            if trunk is None:
                return [model.encode_image(part)]
            activations = trunk.frozen(part)
            return [trunk.rest(activations), activations]

        with contextlib.ExitStack() as open_entries:
            places = self._places(open_entries, paths, shapes, outputs, split)
            filled = [Output(o.shape, o.dtype, p) for o, p in zip(outputs, places, strict=True)]
            with self.say.progress(f"Reference features of {split} images", n) as bar:
                compute(tower, filled, pixels, model.device, BATCH, bar.advance, self.world)
        self.world.wait()
        found = [open_entry(path, check=False) for path in paths]
        # where the cache could not be written, one process alone has them in memory
        kept = [p if entry is None else entry for entry, p in zip(found, places, strict=True)]
        if any(k is None for k in kept):
            raise StorageError(
                f"The features in {paths[0].parent} cannot be read by process {self.world.rank}. "
                "Set CLIPALIGN_CACHE to a folder that every process can write."
            )
        return kept[0], (kept[1] if trunk is not None else None)  # type: ignore[return-value]

    def _places(
        self,
        entries: contextlib.ExitStack,
        paths: Sequence[Path],
        shapes: Sequence[tuple[int, ...]],
        outputs: Sequence[Output],
        split: str,
    ) -> list[Tensor | None]:
        """Where this process puts what is computed: into new entries, or nowhere.

        Raises:
            _NoTrunk: there is no room for activations.
            StorageError: under many processes, the cache cannot be written.
        """
        if not self._writes(paths[0].parent):
            return [None] * len(paths)
        made = self.preferences.manifest
        about = f"{split} of {made.task} on {made.dataset}, {self.part.model.name}"
        places: list[Tensor | None] = []
        for path, shape, output in zip(paths, shapes, outputs, strict=True):
            try:
                places.append(entries.enter_context(new_entry(path, shape, output.dtype, about)))
            except StorageError as error:
                if self.world.size > 1:
                    raise
                if places or len(paths) > 1:
                    self._uncached(str(error))
                    raise _NoTrunk from None
                places.append(torch.empty(*shape, dtype=output.dtype))  # done without a cache
        return places

    def _writes(self, folder: Path) -> bool:
        """Whether this process fills the cache: one for every folder that there is."""
        if self.world.local_size == self.world.size:
            return self.world.first
        probe = folder / f".probe-{self.world.from_first(lambda: os.urandom(8).hex())}"
        if self.world.first:
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                probe.touch()
        self.world.wait()
        shared = probe.exists()
        self.world.wait()
        if self.world.first:
            probe.unlink(missing_ok=True)
        return self.world.first or (self.world.local_rank == 0 and not shared)

    def _say_size(self, split: str, n: int, sizes: Sequence[int], folder: Path) -> None:
        text = f"Features of {n:,} {split} images take {size_text(sizes[0])}"
        if len(sizes) > 1:
            text += f", and activations of the frozen blocks {size_text(sizes[1])}"
        self.say.note(f"{text}, in {folder}.")

    def _check_room(self, sizes: Sequence[int], folder: Path) -> None:
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(existing).free
        if any(self.world.gather_objects(sum(sizes) > 0.9 * free)):
            self._uncached(
                f"their activations would take {size_text(sizes[1])}, and {existing} has "
                f"{size_text(free)} left"
            )
            raise _NoTrunk


class _NoTrunk(Exception):
    """Activations cannot be cached, which has been said."""
