"""Runs and results of small models on small images, made by the real suites."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clipalign.config import RunConfig
from clipalign.config_text import dump_config
from clipalign.evals.base import EvalContext
from clipalign.evals.evaluate import result_path
from clipalign.evals.results import write_result
from clipalign.models.spec import ModelSpec
from clipalign.options import component

EVIL = ("<img src=x onerror=boom()>", "<script>boom()", '"><b>bold')
CLASSES = ("apple", "bridge", "cactus", *EVIL)
JOBS = ("judge", "pilot", "singer", "teacher")


class Guess:
    """A model: a fixed random function of pixels and of texts; another seed, another model."""

    embed_dim = 12
    precision = "fp32"
    device = torch.device("cpu")

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed
        self.spec = ModelSpec(name, "random", name)
        self.sha256 = hashlib.sha256(name.encode()).hexdigest()
        self.config: dict[str, Any] = {"model_cfg": {}, "preprocess_cfg": {"size": 16}}
        self.preprocess = SimpleNamespace(
            resize_to_uint8=lambda image: torch.from_numpy(
                np.array(image.resize((16, 16)))
            ).permute(2, 0, 1)
        )
        self.logit_scale = torch.tensor(20.0)

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        weights = self._random("pixels", 3 * 16 * 16 * self.embed_dim).view(-1, self.embed_dim)
        centred = pixels.float().flatten(1) - 128
        return torch.nn.functional.normalize(centred @ weights, dim=1)

    def tokenize(self, texts: Sequence[str], *, truncate: bool = False) -> torch.Tensor:
        return torch.tensor([len(text) for text in texts])

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        rows = torch.stack([self._random(text, self.embed_dim) for text in texts])
        return torch.nn.functional.normalize(rows, dim=1)

    def _random(self, what: str, n: int) -> torch.Tensor:
        digest = hashlib.sha256(f"{self.seed}/{what}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
        return torch.randn(n, generator=generator)


def make_photos(folder: Path) -> Path:
    """Three photographs of each class; some classes are named so that a page could break."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        for i in range(3):
            path = folder / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            base = rng.integers(0, 255, 3) * 0.5 + 15 * number
            pixels = np.clip(base + rng.normal(size=(72, 72, 3)) * 20, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path)
    return folder


def make_people(folder: Path) -> Path:
    """A table of women and men of four occupations, for validation and test."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    lines = ["image,split,gender,activity,kind"]
    for split in ("validation", "test"):
        for job in JOBS:
            for gender in ("woman", "man"):
                for i in range(3):
                    pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
                    pixels[:8] = 40 * JOBS.index(job) + 90 * (gender == "man")
                    name = f"{split}-{job}-{gender}-{i}.png"
                    Image.fromarray(pixels).save(folder / name)
                    lines.append(f"{name},{split},{gender},{job},occupation")
    table = folder / "index.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def make_run(folder: Path, steps: int = 30, **config: Any) -> Path:
    """A finished run, but for its weights."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "open_clip_config.json").write_text("{}")
    (folder / "config.yaml").write_text(dump_config(RunConfig(**config)))
    (folder / "environment.json").write_text(json.dumps({"python": "3.11", "torch": "2.4"}))
    rows = [
        {
            "step": step, "loss": 1 / (1 + step), "margin": step / 10, "lr": 0.01 * (1 - step / 40),
            "reward_accuracy": step / (step + 3), "regulariser": 0.01 * step, "grad_norm": 0.5,
        }
        for step in range(1, steps + 1)
    ]  # fmt: skip
    lines = [json.dumps(row) for row in rows]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 31, "lo']))
    return folder


def measure(
    suite: str,
    models: Sequence[Any],
    dataset: str,
    options: dict[str, Any],
    split: str,
    folder: Path,
    **suite_options: Any,
) -> Path:
    """Evaluate for real, and write the result as `clipalign eval` does."""
    context = EvalContext(
        models[0],
        models[1] if len(models) > 1 else None,
        component("datasets", dataset, **options),
        split,
        use_cache=False,
        dataset_options=options,
    )
    result, rows = component("suites", suite, resamples=100, **suite_options).run(context)
    path = result_path(folder, result)
    write_result(path, result, rows)
    return path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two typographic runs, one gender run, and where everything is.

    Attributes: root, photos, table; first, second, people: runs; measure: makes a result.
    """
    root = tmp_path_factory.mktemp("report")
    photos, table = make_photos(root / "photos"), make_people(root / "people")
    before = Guess("reference", 0)
    runs = {}
    for name, seed in (("first", 1), ("second", 2)):
        runs[name] = make_run(root / name, seed=seed)
        measure(
            "typographic", [Guess(name, seed), before], "folder", {"root": str(photos)}, "train",
            runs[name] / "results",
        )  # fmt: skip
    options = {"path": str(table), "label_column": None}
    runs["people"] = make_run(
        root / "people-run", task="gender", trainable="last:1", dataset="table",
        dataset_options=options,
    )  # fmt: skip
    measure(
        "gender", [Guess("people", 3), before], "table", options, "test",
        runs["people"] / "results", searches=100, k=4,
    )  # fmt: skip
    return SimpleNamespace(root=root, photos=photos, table=table, measure=measure, **runs)
