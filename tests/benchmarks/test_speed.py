"""What a training step costs, as ratios measured side by side in one run.

    python -m pytest -m benchmark tests/benchmarks/test_speed.py -s

ViT-B-32 with random weights, 224 px, 16 clean and 16 attacked images, 100 candidate texts, fp32.
Rounds of all contenders alternate, so that a machine whose speed drifts drifts for all; the median
over rounds of the ratio within a round is what counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from clipalign.build import objective, regulariser
from clipalign.config import TrainConfig
from clipalign.models.load import load_model
from clipalign.models.trainable import apply_trainable
from clipalign.training.averaging import build_average
from clipalign.training.engine import Trainer
from clipalign.training.losses import Data, Problem
from clipalign.training.streams import Stream

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

BATCH, TEXTS, ROUNDS = 16, 100, 5


class Quiet:
    """Callbacks that do nothing."""

    def logged(self, step: int, metrics: dict[str, float]) -> None: ...
    def checkpoint(self, checkpoint: object) -> None: ...
    def advanced(self, step: int, loss: float) -> None: ...
    def warn(self, message: str) -> None: ...
    def stop_requested(self) -> bool:
        return False


def trainer(trainable: str, batch: int) -> Trainer:
    """Our step on random pixels: everything that `clipalign train` does in one."""
    model = load_model("random:ViT-B-32")
    texts = model.encode_text([f"a photo of a thing {i}." for i in range(TEXTS)])
    n = 2 * batch
    pixels = torch.randint(0, 256, (n, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        reference = torch.cat([model.encode_image(part) for part in pixels.split(32)])
    index = torch.arange(batch)
    stream = Stream(
        paths=(),
        image=index,
        chosen=index % TEXTS,
        rejected=(index + 1) % TEXTS,
        clean=index + batch,
        spare=torch.empty(0, dtype=torch.int64),
    )
    part = apply_trainable(model, trainable)
    data = Data(stream, reference, reference if trainable == "head" else pixels)
    problem = Problem(part, objective("kto"), regulariser("forward-kl"), 1.0, 0.01, texts, texts)
    config = TrainConfig(batch_size=batch, averaging="bma")
    average = build_average("bma", {}, part.named_parameters(), 1000)
    return Trainer(problem, data, None, config, 1e-5, 1000, 0, average, Quiet())


def one_step(t: Trainer) -> Callable[[], None]:
    def step() -> None:
        t._step()
        t.step += 1
        t.average.update(t.parameters)

    return step


def bare(t: Trainer) -> Callable[[], None]:
    """Forward and backward of the image tower alone, on the same 32 images."""
    visual = t.problem.part.model.clip.visual
    pixels = t.problem.part.model.preprocess.normalise(t.data.inputs)

    def step() -> None:
        visual.zero_grad(set_to_none=True)
        F.normalize(visual(pixels), dim=-1).sum().backward()

    return step


def as_released() -> Callable[[], None]:
    """A step as the released code takes it: prompts and reference through both towers each time,
    every parameter trained, three passes of the loss."""
    policy, reference = (load_model("random:ViT-B-32").clip for _ in range(2))
    tokens = load_model("random:ViT-B-32").tokenize(
        [f"a photo of a thing {i}." for i in range(TEXTS)]
    )
    pixels = torch.randn(2 * BATCH, 3, 224, 224)
    optimizer = torch.optim.Adamax(policy.parameters(), lr=2e-5)
    chosen, rejected = torch.arange(BATCH) % TEXTS, (torch.arange(BATCH) + 1) % TEXTS

    def log_probs(clip: torch.nn.Module) -> torch.Tensor:
        image = F.normalize(clip.encode_image(pixels), dim=-1)
        text = F.normalize(clip.encode_text(tokens), dim=-1)
        return (clip.logit_scale.exp() * image @ text.T).log_softmax(1)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        policy_logp = log_probs(policy)
        with torch.no_grad():
            reference_logp = log_probs(reference)
        ratio = (policy_logp - reference_logp)[:BATCH]
        rows = torch.arange(BATCH)
        h = ratio[rows, chosen] - ratio[rows, rejected]
        kl = F.kl_div(
            policy_logp[BATCH:], reference_logp[BATCH:], log_target=True, reduction="batchmean"
        )
        (-F.logsigmoid(h).mean() + kl).backward()
        optimizer.step()

    return step


def ratios(steps: dict[str, Callable[[], None]], against: str) -> dict[str, float]:
    """Median over alternating rounds of each contender's time as a multiple of `against`'s."""
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {
        name: statistics.median(a / b for a, b in zip(took, seconds[against], strict=True))
        for name, took in seconds.items()
    }


def test_a_step_costs_little_more_than_the_image_tower_and_much_less_than_the_released_one() -> (
    None
):
    full = trainer("image-encoder", BATCH)
    found = ratios({"bare": bare(full), "ours": one_step(full), "released": as_released()}, "bare")
    to_released = found["ours"] / found["released"]
    print(f"\nour step / bare image tower: {found['ours']:.3f} (at most 1.10)")
    print(f"our step / step as released: {to_released:.3f} (at most 0.7)")
    assert found["ours"] <= 1.10
    assert to_released <= 0.7


def test_a_head_trains_a_hundred_times_the_pairs_a_second() -> None:
    full, head = trainer("image-encoder", BATCH), trainer("head", 256)
    found = ratios({"full": one_step(full), "head": one_step(head)}, "full")
    speed = (256 / found["head"]) / BATCH
    print(f"\npairs/s of head training / full fine-tuning: {speed:.0f} (at least 100)")
    assert speed >= 100
