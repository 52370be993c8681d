"""The two data streams: D_pref, images with preferences, and D_reg, images that must not move.

Images are decoded and resized once, to the uint8 pixels that the model's own preprocessing gives;
normalising them is left to the step. Which images a step takes depends on the seed and the step
alone, so that a resumed run sees what an undisturbed one would.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from clipalign.cache import size_text
from clipalign.errors import DataError
from clipalign.files import reserve
from clipalign.models.preprocess import Preprocess
from clipalign.tasks.base import COUNTERPART, SHOWS, Scope
from clipalign.tasks.preference_set import PreferenceRow, PreferenceSet
from clipalign.training.distributed import ALONE, World
from clipalign.training.rewards import rewards_of

MEMORY_LIMIT = 4 * 2**30  # bytes of pixels kept in memory; beyond it they lie in a temporary file
DISK_LIMIT = 256 * 2**30  # bytes of that file; beyond it images are decoded at every use


@dataclass(frozen=True)
class Step:
    """What one optimiser step looks at.

    Attributes:
        rows: [B] preference rows.
        regularised: [R] images of D_reg, as indices into the split's images.
        held_to: [R] images, likewise: the policy is held to what the reference says of these. The
            same as `regularised`, but for rows that have a counterpart.
        texts: [K] the texts that the rows speak of, as indices into the candidates, ascending; None
            where all candidates are meant. Of the whole step, also when it is cut into parts.
    """

    rows: Tensor
    regularised: Tensor
    held_to: Tensor
    texts: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows) + len(self.regularised)

    def pieces(self, count: int, rank: int = 0, size: int = 1) -> list[Step]:
        """The neighbouring ones of `count` pieces that fall to one of `size` processes, in order.

        The pieces of all processes in the order of ranks are the step; some may be empty. Each
        keeps the texts of the whole step. `count` is a multiple of `size`.
        """
        rows, regularised = self.rows.tensor_split(count), self.regularised.tensor_split(count)
        held_to = self.held_to.tensor_split(count)
        each = count // size
        own = range(rank * each, (rank + 1) * each)
        return [Step(rows[i], regularised[i], held_to[i], self.texts) for i in own]


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
        counterpart: [P] of each row, which of `groups` its clean image is held to, −1 for itself;
            None where all are held to themselves.
        groups: of images, indices into N: all that show one thing.
        reward: [P, 2] what each row's chosen and rejected text are worth, 0 for a missing one; None
            where the rows do not say.
    """

    paths: tuple[Path, ...]
    image: Tensor
    chosen: Tensor
    rejected: Tensor
    clean: Tensor
    spare: Tensor
    scope: Scope = "all"
    counterpart: Tensor | None = None
    groups: tuple[Tensor, ...] = ()
    reward: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Steps that see every preference row once; the last batch may be smaller."""
        return -(-len(self) // batch_size)

    def step(self, number: int, batch_size: int, seed: int) -> Step:
        """The rows of optimiser step `number` (from 0).

        D_reg takes the clean partners of the rows; rows without one are made up for by spare
        images, in an order of their own. A partner is held to what the reference says of itself,
        or of an image that is drawn anew from its row's counterparts.
        """
        epoch, place = divmod(number, self.steps_per_epoch(batch_size))
        rows = _order(len(self), seed, epoch, 0)[place * batch_size : (place + 1) * batch_size]
        with_partner = rows[self.clean[rows] >= 0]
        partners = self.clean[with_partner]
        held_to = self._held_to(with_partner, partners, seed, number)
        missing = len(rows) - len(partners)
        if missing and len(self.spare):
            turns = range(number * batch_size, number * batch_size + missing)
            spare = torch.stack([self._spare(t, seed) for t in turns])
            partners, held_to = torch.cat([partners, spare]), torch.cat([held_to, spare])
        return Step(rows, partners, held_to, None if self.scope == "all" else self._texts(rows))

    def _held_to(self, rows: Tensor, partners: Tensor, seed: int, number: int) -> Tensor:
        """[R] the partners themselves, or one drawn from the group that the row is held to."""
        if self.counterpart is None:
            return partners
        generator = torch.Generator().manual_seed((seed * 1_000_003 + number) * 2 + 1)
        at = torch.rand(len(rows), generator=generator).tolist()
        group: list[int] = self.counterpart[rows].tolist()
        drawn = [
            partner if g < 0 else int(self.groups[g][int(u * len(self.groups[g]))])
            for g, u, partner in zip(group, at, partners.tolist(), strict=True)
        ]
        return torch.tensor(drawn, dtype=torch.int64)

    def _texts(self, rows: Tensor) -> Tensor:
        texts = torch.cat([self.chosen[rows], self.rejected[rows]])
        found: Tensor = torch.unique(texts[texts >= 0])
        return found

    def images(self, step: Step) -> Tensor:
        """The images of a step, [B + R] as indices into N: the preferences', then D_reg's."""
        return torch.cat([self.image[step.rows], step.regularised])

    def _spare(self, turn: int, seed: int) -> Tensor:
        lap, place = divmod(turn, len(self.spare))
        return self.spare[_order(len(self.spare), seed, lap, 1)[place]]


@functools.lru_cache(maxsize=8)
def _order(n: int, seed: int, epoch: int, stream: int) -> Tensor:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) * 2 + stream)
    return torch.randperm(n, generator=generator)


def build_stream(preferences: PreferenceSet, split: str, *, takes_rewards: bool = True) -> Stream:
    """Index one split of a preference set.

    Args:
        preferences: the set.
        split: its name.
        takes_rewards: whether the objective reads what texts are worth.

    Raises:
        DataError: the split has no preference, or a row has no pair to choose between, or no reward
            where others have one and the objective reads it.
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
    if preferences.scope == "row":
        _check_pairs(judged)
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
    counterpart, groups = _counterparts(judged, clean.tolist())
    return Stream(
        tuple(number),
        image,
        chosen,
        rejected,
        clean,
        unseen,
        preferences.scope,
        counterpart,
        groups,
        rewards_of(judged, needed=takes_rewards),
    )


def _check_pairs(rows: Sequence[PreferenceRow]) -> None:
    """Refuse a row that chooses between its own two texts and has one."""
    for row in rows:
        if row.chosen is None or row.rejected is None:
            lacking = "chosen" if row.chosen is None else "rejected"
            raise DataError(
                f"Each row of this preference set chooses between its own two texts (scope row), "
                f"and {row.image} has no {lacking} text. Prepare a set whose rows are pairs, or "
                "one with another scope."
            )


def _counterparts(
    rows: Sequence[PreferenceRow], clean: Sequence[int]
) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    """Of each row the group that it is held to, and the groups; a group without images is none."""
    members: dict[str, list[int]] = {}
    for row, image in zip(rows, clean, strict=True):
        if image >= 0 and (shown := row.columns.get(SHOWS)):
            members.setdefault(shown, []).append(image)
    place = {shown: i for i, shown in enumerate(members)}
    held = torch.tensor([place.get(row.columns.get(COUNTERPART, ""), -1) for row in rows])
    if not bool((held >= 0).any()):
        return None, ()
    return held, tuple(torch.tensor(images) for images in members.values())


class StreamedPixels:
    """Pixels of N images that are decoded when they are asked for; indexed as a tensor is.

    Args:
        decode: image i → [3, H, W] uint8.
        shape: N, 3, H and W.
        threads: that decode.
    """

    def __init__(
        self, decode: Callable[[int], Tensor], shape: tuple[int, ...], threads: int
    ) -> None:
        self._decode, self._shape = decode, shape
        self._pool = ThreadPoolExecutor(threads)
        self._ahead: list[tuple[list[int], list[Future[Tensor]]]] = []

    def __len__(self) -> int:
        return self._shape[0]

    def expect(self, rows: Tensor) -> None:
        """Begin to decode rows [B], which must be asked for: until then they are kept."""
        if wanted := rows.tolist():
            self._ahead.append((wanted, [self._pool.submit(self._decode, i) for i in wanted]))

    def __getitem__(self, rows: Tensor) -> Tensor:
        """[B, 3, H, W] uint8 of rows [B]."""
        wanted: list[int] = rows.tolist()
        if not wanted:  # the piece of a process that has no rows
            return torch.empty(0, *self._shape[1:], dtype=torch.uint8)
        for entry in self._ahead:
            if entry[0] == wanted:
                self._ahead.remove(entry)
                return torch.stack([future.result() for future in entry[1]])
        return torch.stack(list(self._pool.map(self._decode, wanted)))


Pixels: TypeAlias = Tensor | StreamedPixels


def decode_pixels(
    preferences: PreferenceSet,
    paths: Sequence[Path],
    preprocess: Preprocess,
    image_size: tuple[int, int],
    *,
    workers: int = 0,
    advance: Callable[[int], None] | None = None,
    note: Callable[[str], None] | None = None,
    world: World = ALONE,
) -> Pixels:
    """Decode and resize each image once; the processes of a machine share the work and the pixels.

    Args:
        preferences: the set that the images belong to.
        paths: N image files of the set.
        preprocess: of the model.
        image_size: H and W of the model's input.
        workers: threads that decode (Pillow releases the interpreter's lock); 0 for two.
        advance: told how many more are done.
        note: told why images will be decoded only when needed.
        world: the processes that train together.

    Returns:
        [N, 3, H, W] uint8; in a temporary memory-mapped file where it would not fit into memory,
        and decoded only when needed where it would not fit on that disk either.
    """
    shape = (len(paths), 3, *image_size)
    size = torch.Size(shape).numel()

    def decoded(i: int) -> Tensor:
        return preprocess.resize_to_uint8(preferences.read_image(paths[i]))

    memory = _memory(size, world)
    if isinstance(memory, str):
        if note:
            note(
                f"Images are decoded whenever they are needed: their pixels would take "
                f"{size_text(size)}, and {memory}."
            )
        return StreamedPixels(decoded, shape, workers or 2)
    pixels = memory.view(shape)

    def decode(i: int) -> None:
        pixels[i] = decoded(i)

    with ThreadPoolExecutor(workers or 2) as pool:
        own = range(world.local_rank, len(paths), world.local_size)
        for i, _ in zip(own, pool.map(decode, own), strict=True):
            if advance:
                advance(min(world.local_size, len(paths) - i))
    world.wait()
    return pixels


def _memory(size: int, world: World) -> Tensor | str:
    """[size] uint8 that the processes of this machine share; or why no machine is to have it.

    It lies in memory, or in a file without a name.
    """
    if size > DISK_LIMIT:
        return f"a temporary file of at most {size_text(DISK_LIMIT)} is made for them"
    if world.local_size == 1 and size <= MEMORY_LIMIT:
        return torch.empty(size, dtype=torch.uint8)
    folder, first = Path(tempfile.gettempdir()), world.local_rank == 0
    path = folder / f"clipalign-pixels-{world.from_first(lambda: os.urandom(8).hex())}"
    try:
        refused = _refused(path, size) if first else None
        if refusal := next((r for r in world.gather_objects(refused) if r), None):
            return f"{folder} has no room for that ({refusal}; TMPDIR names another place)"
        memory = torch.from_file(str(path), True, size, dtype=torch.uint8)
        world.wait()
    finally:
        # the mapping outlives the name, so nothing is left behind whatever happens
        if first:
            path.unlink(missing_ok=True)
    return memory


def _refused(path: Path, size: int) -> str | None:
    """Make a file of a size, all of its room reserved; or say why the disk refuses it."""
    try:
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            reserve(file, size)
    except OSError as error:
        return error.strerror
    return None
