"""`train.fsdp`: each process holds a slice of every weight of the image tower (torch's FSDP2).

Weights, gradients, the optimiser's state and the average are DTensors, cut along their first axis.
A block's weights are gathered while it computes and let go after. Gradients are summed by
reduce-scatter in an order of the backend's own: the trajectory is that of one process up to
rounding, and to the bit again on the same number of processes only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clipalign.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from clipalign.config import RunConfig
    from clipalign.models.trainable import TrainablePart
    from clipalign.training.distributed import World

__all__ = ["ShardedSum", "check_sharding", "gathered", "is_sharded", "shard", "sliced", "whole"]


class ShardedSum:
    """Stands where `GradientSum` does: the backward pass itself adds pieces and processes."""

    def add(self) -> None:
        """Leave the gradients where they are, for the next piece to be added."""

    def finish(self) -> None:
        """Nothing is left to do."""


def check_sharding(config: RunConfig, world: World) -> None:
    """Refuse what does not go with `train.fsdp`, before anything is loaded.

    Raises:
        ConfigError: naming all of it.
    """
    if not config.train.fsdp:
        return
    problems = []
    if world.size == 1:
        problems.append("it cuts weights among processes, and this is one: start it by torchrun")
    if config.trainable != "image-encoder":
        problems.append(
            f"trainable={config.trainable} trains too little to be worth cutting: leave it out"
        )
    if config.train.precision == "fp16":
        problems.append("train.precision=fp16 would need a scaler that knows of it: use bf16")
    if config.train.compile:
        problems.append("train.compile=true has not been made to work with it")
    if config.train.channels_last:
        problems.append("train.channels_last=true lays weights out as it cannot cut them")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"train.fsdp=true cannot be had here:\n{lines}")


def shard(part: TrainablePart, world: World) -> None:
    """Cut the image tower's weights among the processes, in place, block by block.

    Args:
        part: of kind image-encoder; its parameters are others afterwards.
        world: of several processes, all of which call this.

    Raises:
        UsageError: this torch has no FSDP2 that adds without averaging.
    """
    try:
        from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        add_up = FSDPModule.set_force_sum_reduction_for_comms
    except (ImportError, AttributeError) as error:
        raise UsageError(f"train.fsdp=true needs a newer torch ({error}).") from None
    part.model.set_memory_format(torch.contiguous_format)  # it cuts no other
    visual: Any = part.model.clip.visual
    if part.model.device.type == "cpu":  # gloo, with the timeout of a step
        mesh = DeviceMesh.from_group(world.group, "cpu")
    else:
        mesh = init_device_mesh(part.model.device.type, (world.size,))
    for block in _blocks(visual):
        fully_shard(block, mesh=mesh)
    # left gathered, the outermost weights would be stale where a validation has put the average in
    fully_shard(visual, mesh=mesh, reshard_after_forward=True)
    for module in visual.modules():
        if isinstance(module, FSDPModule):
            # losses are shares of the batch's already; and gloo can add, but neither average
            # nor multiply on the way
            module.set_gradient_divide_factor(1.0)
            add_up(module, True)
    part.refresh()


def is_sharded(parameters: Mapping[str, Tensor]) -> bool:
    """Whether these are slices."""
    return any(hasattr(parameter, "full_tensor") for parameter in parameters.values())


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or of slices the whole; all processes must ask for it."""
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor whole, on the CPU where it was cut."""
    if not is_sharded(tensors):
        return dict(tensors)
    # in the same order in every process: what was read from a file may lie in any
    return {n: whole(t).cpu() if is_sharded({n: t}) else t for n, t in sorted(tensors.items())}


def sliced(full: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor what this process holds of another such as it; itself where that is whole.

    Every process must have the same whole tensor; nothing travels.
    """
    if not is_sharded({"": like}):
        return full
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    if isinstance(full, DTensor):
        return full
    full = full.to(like.device)
    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Members of the outermost lists of modules, such as the blocks of a transformer."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from (block for block in child if any(True for _ in block.parameters()))
        else:
            yield from _blocks(child)
