"""A checkpoint is whole or absent, and a changed byte is noticed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from clipalign.errors import RunError
from clipalign.training.checkpoint import (
    Checkpoint,
    flatten_optimizer,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    unflatten_optimizer,
)


def checkpoint(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    tensors = {"trainable": {"w": torch.randn(4, 3, generator=generator)}, "objective": {}}
    return Checkpoint(step, tensors, {"best": math.inf, "lr": 0.1 + step})


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    written = checkpoint(7)
    path = save_checkpoint(tmp_path, written)
    read = load_checkpoint(path)
    assert read.step == 7
    assert torch.equal(read.tensors["trainable"]["w"], written.tensors["trainable"]["w"])
    assert read.tensors["objective"] == {}
    assert read.plain == written.plain


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (3, 20, 100):
        save_checkpoint(tmp_path, checkpoint(step))
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-00000020", "step-00000100"]
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert load_checkpoint(newest).step == 100


def test_what_a_kill_left_half_written_is_never_found(tmp_path: Path) -> None:
    half = tmp_path / ".step-00000009.123"
    half.mkdir()
    (half / "trainable.safetensors").write_bytes(b"half")
    assert newest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("name", ["trainable.safetensors", "state.json"])
def test_any_flipped_byte_is_noticed_and_the_file_named(tmp_path: Path, name: str) -> None:
    path = save_checkpoint(tmp_path, checkpoint(1))
    data = bytearray((path / name).read_bytes())
    for position in range(0, len(data), max(1, len(data) // 40)):
        flipped = bytearray(data)
        flipped[position] ^= 0x04
        if data[position] in b" \n":  # white space of the JSON says nothing
            continue
        (path / name).write_bytes(flipped)
        with pytest.raises(RunError, match=re.escape(str(path))):
            load_checkpoint(path)


def test_an_optimiser_goes_through_files_unchanged() -> None:
    weights = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(3))]
    optimizer = torch.optim.AdamW(weights, lr=0.1)
    for _ in range(3):
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        optimizer.step()
    state = optimizer.state_dict()
    tensors, plain = flatten_optimizer(state)
    again = unflatten_optimizer(tensors, plain)
    assert again["param_groups"] == state["param_groups"]
    for index, values in state["state"].items():
        for key, value in values.items():
            assert torch.equal(torch.as_tensor(again["state"][index][key]), torch.as_tensor(value))
