"""What the options of a step gain and cost on this machine, as ratios measured side by side.

    python -m pytest -m benchmark tests/benchmarks/test_options.py -s

Random weights, fp32, image-encoder, the whole step. Rounds alternate as in test_speed.py. What a
transformer's options cost is printed; required is of each option what it is for: checkpointing
must save most of what a step keeps for the way back, compiling must make a step faster, and so
must channels last for a tower of convolutions, which gets it by default.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch

from clipalign.build import objective, regulariser
from clipalign.config import TrainConfig
from clipalign.models.acceleration import accelerate
from clipalign.models.load import load_model
from clipalign.models.trainable import apply_trainable
from clipalign.training.averaging import build_average
from clipalign.training.engine import Trainer
from clipalign.training.losses import Data, Problem
from clipalign.training.streams import Stream

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

BATCH, ROUNDS = 4, 3


class Quiet:
    """Callbacks that do nothing."""

    def logged(self, step: int, metrics: dict[str, float]) -> None: ...
    def checkpoint(self, checkpoint: object) -> None: ...
    def advanced(self, step: int, loss: float) -> None: ...
    def warn(self, message: str) -> None: ...
    def stop_requested(self) -> bool:
        return False


def trainer(architecture: str, **options: bool | float) -> Trainer:
    """The step of `clipalign train` on random pixels, with some options."""
    model = load_model(f"random:{architecture}")
    texts = model.encode_text([f"a photo of a thing {i}." for i in range(8)])
    pixels = torch.randint(0, 256, (2 * BATCH, 3, *model.image_size), dtype=torch.uint8)
    with torch.no_grad():
        reference = model.encode_image(pixels)
    index = torch.arange(BATCH)
    stream = Stream((), index, index % 8, (index + 1) % 8, index + BATCH, index[:0])
    part = apply_trainable(model, "image-encoder")
    how = {k: v for k, v in options.items() if k != "layer_decay"}
    accelerate(model, **how)  # type: ignore[arg-type]
    problem = Problem(part, objective("kto"), regulariser("forward-kl"), 1.0, 0.0, texts, texts)
    config = TrainConfig(batch_size=BATCH, **options)  # type: ignore[arg-type]
    average = build_average("none", {}, part.named_parameters(), 1000)
    data = Data(stream, reference, pixels)
    return Trainer(problem, data, None, config, 1e-5, 1000, 0, average, Quiet())


def one_step(t: Trainer) -> Callable[[], None]:
    def step() -> None:
        t._step()
        t.step += 1

    return step


def ratios(steps: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Median over rounds of each contender's seconds as a multiple of those of "plain"."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(ROUNDS + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_:  # the first compiles, and fills caches
                seconds[name].append(time.perf_counter() - start)
    return {
        name: statistics.median(a / b for a, b in zip(took, seconds["plain"], strict=True))
        for name, took in seconds.items()
    }


def kept_bytes(t: Trainer) -> int:
    """Bytes of distinct tensors that a step keeps for the way back, weights left out."""
    own = {p.untyped_storage().data_ptr() for p in t.problem.part.model.clip.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    part = t.problem.part
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        part.image_features(t.data.inputs)
    return sum(storage.nbytes() for storage in kept.values())


def test_what_the_options_cost_a_transformer() -> None:
    steps = {
        "plain": trainer("ViT-B-32"),
        "layer_decay": trainer("ViT-B-32", layer_decay=0.75),
        "channels_last": trainer("ViT-B-32", channels_last=True),
        "gradient_checkpointing": trainer("ViT-B-32", gradient_checkpointing=True),
    }
    kept = kept_bytes(steps["gradient_checkpointing"]) / kept_bytes(steps["plain"])
    found = ratios({name: one_step(t) for name, t in steps.items()})
    for name in ("layer_decay", "channels_last", "gradient_checkpointing"):
        print(f"\nViT-B-32, step with {name} / plain: {found[name]:.2f}", end="")
    print(f"\nViT-B-32, kept for the way back with checkpointing / plain: {kept:.2f} (at most 0.3)")
    assert kept <= 0.3


def test_what_channels_last_gains_a_tower_of_convolutions() -> None:
    steps = {
        "plain": trainer("RN50", channels_last=False),
        "channels_last": trainer("RN50", channels_last=True),
    }
    found = ratios({name: one_step(t) for name, t in steps.items()})
    print(f"\nRN50, step in channels last / contiguous: {found['channels_last']:.2f} (below 1)")
    assert found["channels_last"] < 1


def test_what_compiling_gains() -> None:
    steps = {"plain": trainer("ViT-S-32-alt"), "compile": trainer("ViT-S-32-alt", compile=True)}
    found = ratios({name: one_step(t) for name, t in steps.items()})
    print(f"\nViT-S-32-alt, step compiled / plain: {found['compile']:.2f} (below 1)")
    assert found["compile"] < 1
