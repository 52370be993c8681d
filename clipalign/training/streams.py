"""The two data streams: D_pref, images with preferences, and D_reg, images that must not move.

Images are decoded and resized once, to the uint8 pixels that the model's own preprocessing gives;
normalising them is left to the step. Which images a step takes depends on the seed and the step
alone, so that a resumed run sees what an undisturbed one would.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clipalign.errors import DataError
from clipalign.models.preprocess import Preprocess
from clipalign.tasks.base import Scope
from clipalign.tasks.preference_set import PreferenceRow, PreferenceSet

MEMORY_LIMIT = 4 * 2**30  # bytes of pixels kept in memory; beyond it they lie in a temporary file


@dataclass(frozen=True)
class Step:
    """What one optimiser step looks at.

    Attributes:
        rows: [B] preference rows.
        regularised: [R] images of D_reg, as indices into the split's images.
        texts: [K] the texts that the rows speak of, as indices into the candidates, ascending; None
            where all candidates are meant. Of the whole step, also when it is cut into parts.
    """

    rows: Tensor
    regularised: Tensor
    texts: Tensor | None = None


@dataclass(frozen=True)
class Stream:
    """One split of a preference set, as indices.

    Attributes:
        paths: the N distinct images.
        image: [P] image of each preference row, index into N.
        chosen: [P] int64 index into the candidates, −1 where there is none.
        rejected: [P] likewise.
        clean: [P] the row's clean image, index into N, −1 where there is none.
        spare: [S] images that only the regulariser sees, indices into N.
        scope: which of the candidates an image chooses among.
    """

    paths: tuple[Path, ...]
    image: Tensor
    chosen: Tensor
    rejected: Tensor
    clean: Tensor
    spare: Tensor
    scope: Scope = "all"

    def __len__(self) -> int:
        return len(self.image)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Steps that see every preference row once; the last batch may be smaller."""
        return -(-len(self) // batch_size)

    def step(self, number: int, batch_size: int, seed: int) -> Step:
        """The rows of optimiser step `number` (from 0).

        D_reg takes the clean partners of the rows; rows without one are made up for by spare
        images, in an order of their own.
        """
        epoch, place = divmod(number, self.steps_per_epoch(batch_size))
        rows = _order(len(self), seed, epoch, 0)[place * batch_size : (place + 1) * batch_size]
        partners = self.clean[rows]
        partners = partners[partners >= 0]
        missing = len(rows) - len(partners)
        if missing and len(self.spare):
            turns = range(number * batch_size, number * batch_size + missing)
            partners = torch.cat([partners, torch.stack([self._spare(t, seed) for t in turns])])
        return Step(rows, partners, None if self.scope == "all" else self._texts(rows))

    def _texts(self, rows: Tensor) -> Tensor:
        texts = torch.cat([self.chosen[rows], self.rejected[rows]])
        found: Tensor = torch.unique(texts[texts >= 0])
        return found

    def _spare(self, turn: int, seed: int) -> Tensor:
        lap, place = divmod(turn, len(self.spare))
        return self.spare[_order(len(self.spare), seed, lap, 1)[place]]


@functools.lru_cache(maxsize=8)
def _order(n: int, seed: int, epoch: int, stream: int) -> Tensor:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) * 2 + stream)
    return torch.randperm(n, generator=generator)


def build_stream(preferences: PreferenceSet, split: str) -> Stream:
    """Index one split of a preference set.

    Raises:
        DataError: the split has no preference.
    """
    rows: Sequence[PreferenceRow] = preferences.rows(split)
    number: dict[Path, int] = {}
    candidates = {text: i for i, text in enumerate(preferences.candidates)}

    def index(path: Path) -> int:
        return number.setdefault(path, len(number))

    def choice(text: str | None) -> int:
        return -1 if text is None else candidates[text]

    judged = [r for r in rows if r.chosen is not None or r.rejected is not None]
    if not judged:
        raise DataError(
            f"{preferences.root}: the split {split!r} has no row with a chosen or a rejected text."
        )
    columns = [
        (
            index(r.image),
            choice(r.chosen),
            choice(r.rejected),
            -1 if r.clean_image is None else index(r.clean_image),
        )
        for r in judged
    ]
    spare = [index(r.image) for r in rows if r.chosen is None and r.rejected is None]
    image, chosen, rejected, clean = torch.tensor(columns, dtype=torch.int64).unbind(1)
    unseen = torch.tensor(spare, dtype=torch.int64)
    return Stream(tuple(number), image, chosen, rejected, clean, unseen, preferences.scope)


def decode_pixels(
    preferences: PreferenceSet,
    paths: Sequence[Path],
    preprocess: Preprocess,
    image_size: tuple[int, int],
    *,
    workers: int = 0,
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """Decode and resize each image once.

    Args:
        preferences: the set that the images belong to.
        paths: N image files of the set.
        preprocess: of the model.
        image_size: H and W of the model's input.
        workers: threads that decode (Pillow releases the interpreter's lock); 0 for two.
        advance: told how many more are done.

    Returns:
        [N, 3, H, W] uint8; in a temporary memory-mapped file where it would not fit into memory.
    """
    shape = (len(paths), 3, *image_size)
    size = torch.Size(shape).numel()
    if size <= MEMORY_LIMIT:
        pixels = torch.empty(shape, dtype=torch.uint8)
    else:
        with tempfile.NamedTemporaryFile(prefix="clipalign-pixels-") as file:
            # the mapping outlives the name, so nothing is left behind whatever happens
            pixels = torch.from_file(file.name, True, size, dtype=torch.uint8).view(shape)

    def decode(i: int) -> None:
        pixels[i] = preprocess.resize_to_uint8(preferences.read_image(paths[i]))

    with ThreadPoolExecutor(workers or 2) as pool:
        for _ in pool.map(decode, range(len(paths))):
            if advance:
                advance(1)
    return pixels
