"""Many processes that train or measure as one.

`torchrun` starts the processes and says to each who it is (RANK, WORLD_SIZE, LOCAL_RANK); `join`
makes a `World` of them. Every process holds all trained weights and takes its share of each batch.

Sums do not depend on who computes them. A step's batch is cut into a fixed number of pieces; their
gradients are added along one binary tree whose leaves are the pieces in order. A process that holds
2^k neighbouring pieces computes a whole branch of it, so 1, 2, 4 or 8 processes give the same bits.
An ordinary all-reduce adds in an order of its own and would not.

The pieces decide the bits, so a run records them: `config.yaml` of a run of two processes has
accumulate=2, and gives the same weights on one. Other pieces are other roundings. Losses and
features then agree to about 1e-6; single weights may differ by more, up to the learning rate, where
the true gradient is 0 (a bias of keys changes no attention), or nearly so in one of the first
steps: Adam divides what is left of it by its own size, and steps by rounding alone.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from clipalign.errors import ClipAlignError, TrainingError

__all__ = [
    "ALONE",
    "GradientSum",
    "World",
    "exact_elsewhere",
    "join",
    "pieces_for",
    "tree_sum",
]

T = TypeVar("T")
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # its newer name
_PATIENCE = datetime.timedelta(hours=24)  # while one process prepares, exports or writes for all
_BUCKET = 1 << 25  # gradient elements that travel at once: what bounds the extra memory


@dataclass(frozen=True)
class World:
    """The processes of one training or evaluation, as one of them sees it.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
        local_rank, local_size: the same among those of this machine.
        timeout: seconds within which all must take part in a step.
        group: of steps; None where there is one process.
        patient: the same processes, for what one does while the others wait.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    timeout: float = 60.0
    group: Any = None
    patient: Any = None

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all processes, in the order of ranks.

        Args:
            rows: [n, …]; n may differ between processes, the rest may not.

        Returns:
            [Σ n, …] on the CPU, without gradient.
        """
        rows = rows.detach().cpu()
        return rows if self.size == 1 else self._gather(rows, self.group)

    def gather_patiently(self, rows: Tensor) -> Tensor:
        """As `gather`, however long the others take to come to it."""
        rows = rows.detach().cpu()
        return rows if self.size == 1 else self._gather(rows, self.patient)

    def gather_with_gradient(self, rows: Tensor) -> tuple[Tensor, slice]:
        """Rows of all processes [Σ n, …], and which are this one's; gradient reaches those.

        If every process takes the same loss of what this returns, its gradient is the sum over
        processes of the gradients that they compute.
        """
        if self.size == 1:
            return rows, slice(0, len(rows))
        every = self._gather(rows.detach(), self._device_group(rows))
        start = sum(self._sizes(len(rows), self.group)[: self.rank])
        own = slice(start, start + len(rows))
        return torch.cat([every[:start], rows, every[own.stop :]]), own

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag: whether it is up in any process."""
        if self.size == 1:
            return flags
        up = torch.tensor(flags, dtype=torch.uint8)
        with self.heard():
            dist.all_reduce(up, dist.ReduceOp.MAX, group=self.group)
        return tuple(bool(flag) for flag in up.tolist())

    def wait(self) -> None:
        """Until all are here, however long that takes."""
        if self.size > 1:
            with self.heard():
                dist.barrier(group=self.patient)

    def from_first(self, make: Callable[[], T]) -> T:
        """What process 0 makes; where it fails, all fail in its words.

        Raises:
            ClipAlignError: whatever process 0 raised.
        """
        if self.size == 1:
            return make()
        told: list[Any] = [None, None]
        if self.first:
            try:
                told[0] = make()
            except ClipAlignError as error:
                told[1] = error
        with self.heard():
            dist.broadcast_object_list(told, group=self.patient)
        if told[1] is not None:
            raise cast(ClipAlignError, told[1])
        return cast(T, told[0])

    def gather_objects(self, value: T) -> list[T]:
        """A picklable value of each process, by rank."""
        if self.size == 1:
            return [value]
        every: list[Any] = [None] * self.size
        with self.heard():
            dist.all_gather_object(every, value, group=self.patient)
        return every

    def expect_same(self, what: str, value: str) -> None:
        """Refuse to go on where processes differ.

        Raises:
            TrainingError: naming a process that differs from process 0.
        """
        every = self.gather_objects(value)
        for rank, other in enumerate(every):
            if other != every[0]:
                raise TrainingError(
                    f"Process {rank} has another {what} than process 0: {other} and {every[0]}. "
                    "All must see the same files."
                )

    def sum_over_processes(self, flat: Tensor) -> Tensor:
        """Σ over processes of [n], along the tree: the same bits in each of them.

        Every process sums one part for all and passes the sums on, so that as much travels as in
        an ordinary all-reduce.
        """
        n, chunk = len(flat), -(-len(flat) // self.size)
        group = self._device_group(flat)
        sent = torch.zeros(self.size * chunk, dtype=flat.dtype, device=flat.device)
        sent[:n] = flat
        parts = torch.empty_like(sent)
        with self.heard():
            dist.all_to_all_single(parts, sent, group=group)
            total = tree_sum(list(parts.view(self.size, chunk)))
            _all_gather(sent, total.contiguous(), group=group)
        return sent[:n]

    def _gather(self, rows: Tensor, group: Any) -> Tensor:
        sizes = self._sizes(len(rows), self.group if group is None else group)
        most = max(sizes)
        if not most:
            return rows
        padded = rows.new_zeros((most, *rows.shape[1:]))
        padded[: len(rows)] = rows
        every = rows.new_empty((self.size * most, *rows.shape[1:]))
        with self.heard():
            _all_gather(every, padded, group=group)
        return torch.cat([part[:n] for part, n in zip(every.split(most), sizes, strict=True)])

    def _sizes(self, own: int, group: Any) -> list[int]:
        every = torch.empty(self.size, dtype=torch.int64)
        with self.heard():
            _all_gather(every, torch.tensor([own]), group=group)
        return every.tolist()

    def _device_group(self, tensor: Tensor) -> Any:
        """The default group carries what lies on a GPU, by NCCL."""
        return self.group if tensor.device.type == "cpu" else None

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Say in words that another process is gone.

        Raises:
            TrainingError: it stopped, or took no part in time.
        """
        try:
            yield
        except RuntimeError as error:  # gloo and NCCL raise subclasses of it
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).strip().splitlines()[0].split("] ", 1)[-1][:200]
            raise TrainingError(
                f"Process {self.rank} of {self.size} no longer hears another one: it was stopped, "
                f"or did not answer within {self.timeout:g} s ({reason}). Look for what it said. "
                "What was saved is whole; `clipalign train --resume RUN` under torchrun goes on "
                "from the last checkpoint. A slow machine may need a larger train.peer_timeout."
            ) from error


ALONE = World()
_joined: World | None = None


def join(timeout: float = 60.0) -> World:
    """The world of this process: what torchrun says, or this one alone.

    Joins when first called, and gives the same world afterwards.

    Args:
        timeout: seconds within which all must take part in a step.

    Raises:
        TrainingError: the others cannot be reached.
    """
    global _joined
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ or "LOCAL_RANK" not in os.environ:
        return ALONE
    if _joined is None:
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=_PATIENCE)
            group = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout))
            patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"The other processes cannot be reached: {error}") from error
        atexit.register(_leave)
        _joined = World(
            rank=int(os.environ["RANK"]),
            size=size,
            local_rank=int(os.environ["LOCAL_RANK"]),
            local_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
            timeout=timeout,
            group=group,
            patient=patient,
        )
    return _joined


def _leave() -> None:
    with contextlib.suppress(Exception):
        dist.destroy_process_group()


# --- The sum of the gradients of pieces ---------------------------------------------------------


def pieces_for(accumulate: int, world: World) -> int:
    """Into how many pieces a batch is cut: at least as many as asked for, as many each."""
    return math.lcm(accumulate, world.size)


def tree_sum(parts: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape, neighbours first: ((a + b) + (c + d)) + e."""
    parts = list(parts)
    while len(parts) > 1:
        pairs = [parts[i] + parts[i + 1] for i in range(0, len(parts) - 1, 2)]
        parts = pairs + parts[2 * len(pairs) :]
    return parts[0]


def exact_elsewhere(pieces: int, processes: int) -> list[int]:
    """On which numbers of processes a run of so many pieces and processes gives the same bits."""
    if processes > 1 and not _power_of_two(pieces // processes):
        return [processes]
    # one process adds along the whole tree, whatever its shape
    shares = [n for n in range(1, pieces + 1) if not pieces % n]
    return [n for n in shares if n == 1 or _power_of_two(pieces // n)]


def _power_of_two(n: int) -> bool:
    return n > 0 and not n & (n - 1)


class GradientSum:
    """Adds the gradients of pieces along the tree.

        for piece in pieces:
            loss(piece).backward()
            total.add()
        total.finish()          # .grad of every parameter is the whole batch's

    Args:
        parameters: what trains.
        world: across whose processes they are added.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], world: World = ALONE) -> None:
        self._parameters, self._world = list(parameters), world
        self._branches: list[tuple[int, list[Tensor | None]]] = []  # (pieces below, gradients)

    def add(self) -> None:
        """Take the gradients of one more piece off the parameters; a piece may have left none."""
        grads = [p.grad for p in self._parameters]
        for p in self._parameters:
            p.grad = None
        below = 1
        while self._branches and self._branches[-1][0] == below:
            grads = _added(self._branches.pop()[1], grads)
            below *= 2
        self._branches.append((below, grads))

    def finish(self) -> None:
        """Put the sums back. A parameter that no piece of any process reached keeps None."""
        _, grads = self._branches.pop()
        while self._branches:
            grads = _added(self._branches.pop()[1], grads)
        if self._world.size > 1:
            grads = self._across(grads)
        for p, grad in zip(self._parameters, grads, strict=True):
            p.grad = grad

    def _across(self, grads: list[Tensor | None]) -> list[Tensor | None]:
        reached = self._world.any(*(g is not None for g in grads))
        whole: list[Tensor | None] = [None] * len(grads)
        for bucket in self._buckets([i for i, there in enumerate(reached) if there]):
            full = [_or_zeros(grads[i], self._parameters[i]) for i in bucket]
            total = self._world.sum_over_processes(torch.cat([g.reshape(-1) for g in full]))
            for i, part, like in zip(
                bucket, total.split([g.numel() for g in full]), full, strict=True
            ):
                # as the parameter lies in memory (channels last), which fused optimisers need
                whole[i] = torch.empty_like(like).copy_(part.view(like.shape))
        return whole

    def _buckets(self, indices: Sequence[int]) -> Iterator[list[int]]:
        bucket, size = [], 0
        for i in indices:
            bucket.append(i)
            size += self._parameters[i].numel()
            if size >= _BUCKET:
                yield bucket
                bucket, size = [], 0
        if bucket:
            yield bucket


def _added(left: list[Tensor | None], right: list[Tensor | None]) -> list[Tensor | None]:
    return [
        b if a is None else a if b is None else a.add_(b) for a, b in zip(left, right, strict=True)
    ]


def _or_zeros(grad: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if grad is None else grad
