"""A world of four colours, models that see or read in it, and small real models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from clipalign.datasets.base import Example
from clipalign.errors import DataError
from clipalign.models.spec import ModelSpec
from clipalign.tasks.rendering import Attack

COLOURS = {
    "cherry": (200, 20, 20),
    "leaf": (20, 180, 20),
    "ocean": (20, 20, 200),
    "stone": (120, 120, 120),
}
SIDE = 48


class Shapes:
    """Dataset: plain squares, each in the colour of its class; two views of every drawing."""

    name = "shapes"
    classnames: Sequence[str] = tuple(COLOURS)
    templates = ("a photo of a {}.", "a {}.")
    licence = "CC0"

    def __init__(self, drawings: int = 3, words: Mapping[str, str] | None = None) -> None:
        self.drawings, self.words = drawings, words or {}
        self.broken: set[str] = set()
        self.unlabelled: set[str] = set()
        self.reads = 0
        self.fingerprint = hashlib.sha256(f"{drawings}{self.words}".encode()).hexdigest()

    def splits(self) -> Sequence[str]:
        return ("train", "test")

    def examples(self, split: str) -> Sequence[Example]:
        return [
            Example(
                key := f"{label}-{drawing}-{view}",
                None if key in self.unlabelled else label,
                (label, drawing),
                f"{label}-{drawing}",
                {"attack_text": self.words[key]} if key in self.words else {},
            )
            for label in COLOURS
            for drawing in range(self.drawings)
            for view in range(2)
        ]

    def image(self, example: Example) -> Image.Image:
        self.reads += 1
        if example.key in self.broken:
            raise DataError(f"{example.key}: the file is truncated")
        label, drawing = example.source
        red, green, blue = COLOURS[label]
        return Image.new("RGB", (SIDE, SIDE), (red, green, blue + drawing))


class Eyes:
    """A model whose features are one-hot in the colour that it finds at one place of the image.

    The object's colour is at the right; a word, where there is one, paints the left.
    """

    embed_dim = len(COLOURS)
    precision = "fp32"
    device = torch.device("cpu")

    def __init__(self, place: str, scale: float = 100.0) -> None:
        self.name = f"{place}-{scale:g}"
        self.spec = ModelSpec(self.name, "random", self.name)
        self.sha256 = hashlib.sha256(self.name.encode()).hexdigest()
        self.config: dict[str, Any] = {"model_cfg": {}, "preprocess_cfg": {"size": SIDE}}
        self.preprocess = SimpleNamespace(
            resize_to_uint8=lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1)
        )
        self.logit_scale = torch.tensor(scale)
        self.column = 2 if place == "left" else SIDE - 2
        self.encoded = 0

    def encode_image(self, pixels: Tensor) -> Tensor:
        self.encoded += len(pixels)
        seen = pixels[:, :, SIDE // 2, self.column].float()
        known = torch.tensor(list(COLOURS.values())).float()
        return torch.nn.functional.one_hot(torch.cdist(seen, known).argmin(1), len(known)).float()

    def tokenize(self, texts: Sequence[str], *, truncate: bool = False) -> Tensor:
        return torch.tensor([len(text) for text in texts])

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        named = [next(i for i, name in enumerate(COLOURS) if name in text) for text in texts]
        return torch.eye(len(COLOURS))[named]


@pytest.fixture
def shapes() -> Callable[..., Shapes]:
    """Makes the dataset of colours."""
    return Shapes


@pytest.fixture
def eyes() -> Callable[..., Any]:
    """Makes a model that looks "left", where words are, or "right", where the object is."""
    return Eyes


@pytest.fixture
def painted_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are drawn as their class's colour: a note over the left half, outlined at its foot."""

    def draw(image, text, rng, *, style, split, fonts):
        image = image.copy()
        top = 0 if style == "note" else SIDE - 8
        image.paste(COLOURS[text], (0, top, SIDE // 2, SIDE))
        box = (0, top, SIDE // 2, SIDE)
        return image, Attack(text, style, "none", 10, COLOURS[text], COLOURS[text], box)

    monkeypatch.setattr("clipalign.evals.attacks.draw_attack", draw)


@pytest.fixture(autouse=True)
def cache_root(own_cache: Path) -> Path:
    """The cache of each test is its own."""
    return own_cache


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two open_clip directories of one small architecture with different random weights."""
    from safetensors.torch import save_file

    from clipalign.models.library import build_clip

    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {
        "model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3},
    }
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("before", "after")):
        (root / name).mkdir()
        (root / name / "open_clip_config.json").write_text(json.dumps(config))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = build_clip(config).state_dict()
        save_file(state, root / name / "open_clip_model.safetensors")
    return root / "before", root / "after"
