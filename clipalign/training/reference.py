"""What frozen parts make of every image, computed once; no second copy of the model is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipalign.models.loaded import LoadedModel
from clipalign.training.distributed import ALONE, World
from clipalign.training.streams import Pixels

__all__ = ["Output", "compute", "image_features"]


@dataclass(frozen=True)
class Output:
    """One thing that is computed of every image.

    Attributes:
        shape: of one image's.
        dtype: likewise.
        place: [N, *shape] that this process fills; None where another one does.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    place: Tensor | None


@torch.no_grad()
def compute(
    tower: Callable[[Tensor], Sequence[Tensor]],
    outputs: Sequence[Output],
    pixels: Pixels,
    device: torch.device,
    batch_size: int,
    advance: Callable[[int], None] | None = None,
    world: World = ALONE,
) -> None:
    """Fill the outputs. Processes take batches in turn; the batches are those of one process.

    Args:
        tower: [B, 3, H, W] uint8 on `device` → a value [B, *shape] for each output.
        outputs: what is computed.
        pixels: N images.
        device: that the tower runs on.
        batch_size: B.
        advance: told how many more images are done.
        world: the processes that share the work.
    """
    starts = list(range(0, len(pixels), batch_size))
    for first in range(0, len(starts), world.size):
        turn = first + world.rank
        values: Sequence[Tensor] = [torch.empty(0, *o.shape, dtype=o.dtype) for o in outputs]
        if turn < len(starts):
            values = tower(pixels[_rows(starts, turn, batch_size, len(pixels))].to(device))
            if (later := turn + world.size) < len(starts):
                pixels_expect(pixels, _rows(starts, later, batch_size, len(pixels)))
        for output, value in zip(outputs, values, strict=True):
            every = world.gather_patiently(value.to(output.dtype))
            if output.place is not None:
                output.place[starts[first] : starts[first] + len(every)] = every
        if advance:
            advance(min(starts[first] + world.size * batch_size, len(pixels)) - starts[first])


def pixels_expect(pixels: Pixels, rows: Tensor) -> None:
    """Say which images come next, to pixels that are decoded when they are needed."""
    if not isinstance(pixels, Tensor):
        pixels.expect(rows)


def _rows(starts: Sequence[int], turn: int, size: int, n: int) -> Tensor:
    return torch.arange(starts[turn], min(starts[turn] + size, n))


def image_features(
    model: LoadedModel,
    pixels: Pixels,
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
    output = Output((model.embed_dim,), torch.float32, out)
    compute(
        lambda part: [model.encode_image(part)], [output], pixels, model.device, batch_size, advance
    )
    return out
