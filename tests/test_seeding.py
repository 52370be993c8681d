"""Generators are seeded within a block, and are outside it as if nothing had been drawn."""

from __future__ import annotations

import pytest
import torch

from clipalign.seeding import seeded


@pytest.mark.parametrize("device", ["cpu", "cuda:99", "nonsense"])
def test_the_block_is_seeded_and_what_is_around_it_is_not_moved(device: str) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    drawn = [torch.rand(1)]
    with seeded(5, device):
        inside = torch.rand(4)
    drawn.append(torch.rand(1))
    assert torch.equal(torch.cat(drawn), expected)
    assert torch.equal(inside, torch.rand(4, generator=torch.Generator().manual_seed(5)))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_one_gpu_is_seeded_and_the_other_is_left_alone() -> None:
    states = [torch.cuda.get_rng_state(i) for i in (0, 1)]
    with seeded(5, "cuda:1"):
        inside = [torch.cuda.get_rng_state(i) for i in (0, 1)]
    assert torch.equal(inside[0], states[0])
    assert not torch.equal(inside[1], states[1])
    assert torch.equal(torch.cuda.get_rng_state(1), states[1])
