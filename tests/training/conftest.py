"""A tiny randomly initialised model, and a trainer on random pixels."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {
            "layers": 2, "width": 32, "head_width": 16, "image_size": 32, "patch_size": 8
        },
        "text_cfg": {
            "context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1
        },
    },
    "preprocess_cfg": {"size": 32},
}  # fmt: skip
WORDS = ("cat", "dog", "cow", "pig", "hen", "ant")


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip directory of a tiny ViT CLIP with random weights."""
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    clip = open_clip.CLIP(**CONFIG["model_cfg"])
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    return folder


class Recorder:
    """Callbacks that remember."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.rows: list[dict[str, float]] = []
        self.checkpoints: list[Any] = []
        self.warnings: list[str] = []
        self.steps, self.stop_after = 0, stop_after

    def logged(self, step: int, metrics: dict[str, float]) -> None:
        self.rows.append({"step": step, **metrics})

    def checkpoint(self, checkpoint: Any) -> None:
        copied = {
            group: {k: v.clone() for k, v in tensors.items()}
            for group, tensors in checkpoint.tensors.items()
        }
        self.checkpoints.append(type(checkpoint)(checkpoint.step, copied, checkpoint.plain))

    def advanced(self, step: int, loss: float) -> None:
        self.steps = step

    def stop_requested(self) -> bool:
        return self.stop_after is not None and self.steps >= self.stop_after

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture(scope="session")
def tiny_model(tiny_model_dir: Path) -> Any:
    """The tiny model, loaded once; tests train copies."""
    from clipalign.models.load import load_model

    return load_model(f"local-dir:{tiny_model_dir}")


def build_trainer(
    tiny_model: Any,
    method: Any = "dpo",
    trainable: str = "image-encoder",
    steps: int = 6,
    weight: float = 1.0,
    recorder: Recorder | None = None,
    validation: bool = False,
    rows: int = 12,
    world: Any = None,
    lr: float = 1e-2,
    scope: Any = "all",
    **config: Any,
) -> Any:
    """A trainer of a copy of the tiny model on random attacked and clean images and 6 texts."""
    from clipalign.build import objective, regulariser
    from clipalign.config import TrainConfig
    from clipalign.models.acceleration import accelerate
    from clipalign.models.trainable import apply_trainable
    from clipalign.training.averaging import build_average
    from clipalign.training.distributed import ALONE
    from clipalign.training.engine import Trainer
    from clipalign.training.losses import Data, Problem
    from clipalign.training.sharding import shard
    from clipalign.training.streams import Stream

    model = tiny_model.rebuilt(tiny_model.clip.state_dict())
    model.precision = config.get("precision", "fp32")
    texts = model.encode_text([f"a photo of a {w}." for w in WORDS])
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2 * rows, 3, 32, 32), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        reference = model.encode_image(pixels)
    index = torch.arange(rows)
    stream = Stream((), index, index % 6, (index + 1) % 6, index + rows, index[:0], scope)
    part = apply_trainable(model, trainable)
    options = ("gradient_checkpointing", "compile", "channels_last")
    accelerate(model, **{name: config[name] for name in options if name in config})
    data = Data(stream, reference, reference if trainable == "head" else pixels)
    loss = objective(method) if isinstance(method, str) else method
    problem = Problem(
        part, loss, regulariser("forward-kl"), weight, 0.01, texts,
        texts if scope == "all" else None,
    )  # fmt: skip
    if config.get("fsdp"):
        shard(part, world)
    settings = TrainConfig(**{"batch_size": 4, "averaging": "none", "log_every": 1} | config)
    average = build_average(settings.averaging, {}, part.named_parameters(), steps)
    return Trainer(
        problem, data, data if validation else None, settings, lr, steps, 0, average,
        recorder or Recorder(), world or ALONE,
    )  # fmt: skip


@pytest.fixture
def make_trainer(tiny_model: Any) -> Callable[..., Any]:
    """`build_trainer` of the tiny model."""
    return functools.partial(build_trainer, tiny_model)


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder
