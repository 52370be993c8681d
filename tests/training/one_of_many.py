"""What each of the processes in test_distributed.py runs: `python one_of_many.py FOLDER SCENE…`.

Process 0 writes FOLDER/SCENE-N.pt, N the number of processes. The test runs the same alone.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from clipalign.errors import ClipAlignError, DataError
from clipalign.evals.features import ImageSet, encode_images
from clipalign.models.load import load_model
from clipalign.objectives.base import Objective
from clipalign.progress import Silent
from clipalign.training.checkpoint import load_checkpoint, save_checkpoint
from clipalign.training.distributed import World, join
from clipalign.training.reference import Output, compute
from clipalign.training.sharding import gathered

spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)


class Ranked(Objective):
    """Sorts the margins of the whole batch, as losses on distributions of rewards do."""

    per_image = False

    def forward(self, batch: Any) -> torch.Tensor:
        h = batch.log_ratio(batch.chosen) - batch.log_ratio(batch.rejected)
        ranks = torch.linspace(0.1, 1.0, len(h))
        return torch.nn.functional.softplus(ranks - h.sort().values)


class Remembering(Objective):
    """Keeps a running mean of the reward of the batch, in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, batch: Any) -> torch.Tensor:
        r = batch.log_ratio(batch.chosen)
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * r.detach().mean())
        return torch.nn.functional.softplus(self.mean - r)


SCENES: dict[str, dict[str, Any]] = {
    "dpo": {"method": "dpo", "optimizer": "sgd"},
    "kto": {"method": "kto", "optimizer": "sgd", "validation": True, "validate_every": 2},
    "last": {"method": "rlhf", "trainable": "last:1", "optimizer": "sgd"},
    "head": {"method": "ipo", "trainable": "head", "optimizer": "sgd"},
    "small-last-batch": {"method": "dpo", "rows": 9, "optimizer": "sgd"},  # 4, 4, and 1 alone
    "ranked": {"method": Ranked, "optimizer": "sgd"},
    "remembering": {
        "method": Remembering,
        "optimizer": "sgd",
        "validation": True,
        "validate_every": 2,
    },
    "batch-scope": {"method": "kto", "scope": "batch", "accumulate": 2, "optimizer": "sgd"},
    "sharded": {
        "method": "kto",
        "optimizer": "sgd",
        "weight_decay": 0.1,
        "fsdp": True,
        "accumulate": 2,
        "rows": 9,
        "validation": True,
        "validate_every": 2,
        "averaging": "bma",
    },
    "sharded-adamw": {"method": "dpo", "fsdp": True, "averaging": "ema"},
    "adamw": {"method": "kto", "accumulate": 4, "averaging": "bma", "rows": 10},
}


def trained(
    folder: Path, world: World, name: str, *, stop: bool = False, resume: bool = False
) -> dict[str, Any]:
    """Weights, averaged weights, rows of metrics, state of the objective."""
    options = dict(SCENES[name])
    if world.size == 1:
        options.pop("fsdp", None)
    method = options.pop("method")
    options["method"] = method if isinstance(method, str) else method()
    recorder = shared.Recorder(3 if stop else None)
    model = load_model(f"local-dir:{folder / 'model'}")
    trainer = shared.build_trainer(model, recorder=recorder, world=world, lr=1e-3, **options)
    if stop:
        trainer.total = 6
    saved = folder / f"checkpoint-of-{name}"
    if resume:
        trainer.restore(load_checkpoint(saved / "step-00000003"))
    try:
        trainer.run()
    except ClipAlignError as error:
        if not stop:
            return {"error": f"{type(error).__name__}: {error}"}
        if world.first:
            save_checkpoint(saved, recorder.checkpoints[-1])
        world.wait()
    return {
        "weights": {k: v.detach().clone() for k, v in gathered(trainer.parameters).items()},
        "final": {k: v.clone() for k, v in gathered(trainer.final_weights()).items()},
        "held": sum(len(getattr(p, "_local_tensor", p)) for p in trainer.parameters.values()),
        "rows": recorder.rows,
        "objective": trainer.problem.objective.state_dict(),
    }


def encoded(folder: Path, world: World) -> dict[str, Any]:
    """Features of ten images of which two are broken, through the evaluation and the trainer."""
    model = load_model(f"local-dir:{folder / 'model'}")

    def read(i: int) -> list[Image.Image]:
        if i in (3, 8):
            raise DataError(f"image {i} is broken")
        return [Image.new("RGB", (40, 32), (25 * i, j * 90, 7)) for j in range(2)]

    images = ImageSet({"dataset": "made", "split": "test"}, [str(i) for i in range(10)], 2, read)
    found = encode_images([model], images, Silent(), batch_size=4)
    pixels = torch.arange(7 * 3 * 32 * 32).remainder(251).to(torch.uint8).view(7, 3, 32, 32)
    place = torch.zeros(7, model.embed_dim) if world.first else None
    output = Output((model.embed_dim,), torch.float32, place)
    compute(lambda p: [model.encode_image(p)], [output], pixels, model.device, 2, None, world)
    return {"features": found.features[0], "unreadable": found.unreadable, "reference": place}


def abandoned(world: World, how: str) -> dict[str, Any]:
    """What process 0 says when another one dies or hangs between two steps."""
    world.any(False)
    begun = time.monotonic()
    if not world.first:
        if how == "hang":
            time.sleep(12)
        os._exit(1)
    try:
        world.any(False)
    except ClipAlignError as error:
        return {"error": str(error), "seconds": time.monotonic() - begun}
    return {}


def scene(folder: Path, world: World, name: str) -> dict[str, Any]:
    """The result of one scene."""
    if name == "encode":
        return encoded(folder, world)
    if name in ("die", "hang"):
        return abandoned(world, name)
    if name in ("stop", "resume"):
        return trained(folder, world, "adamw", **{name: True})
    if name in ("sharded-stop", "sharded-resume"):
        return trained(folder, world, "sharded-adamw", **{name.removeprefix("sharded-"): True})
    return trained(folder, world, name)


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    world = join(timeout=4 if "hang" in names else 240)  # a busy machine is no dead one
    for name in names:
        result = scene(folder, world, name)
        if world.first:
            torch.save(result, folder / f"{name}-{world.size}.pt")
            if name in ("die", "hang"):
                os._exit(0)


if __name__ == "__main__":
    main()
