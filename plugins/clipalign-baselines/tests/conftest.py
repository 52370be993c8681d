"""Small models and small data of the embedded world, for fits that take a moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import clipalign
from clipalign.config import RunConfig
from clipalign.config_text import dump_config
from clipalign.datasets.emoji import EmojiWorld
from clipalign.datasets.emoji_people import EmojiPeople
from clipalign.models.library import build_clip
from clipalign.models.load import load_model
from clipalign.models.loaded import LoadedModel
from clipalign.transforms.context import FitContext

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
MODELS: dict[str, dict[str, Any]] = {
    "vit": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT},
    "resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
        "text_cfg": TEXT,
    },
    "convnext": {
        "embed_dim": 24,
        "vision_cfg": {"timm_model_name": "test_convnext", "timm_pool": "avg", "image_size": 64},
        "text_cfg": TEXT,
    },
    "timm-vit": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160},
        "text_cfg": {**TEXT, "pool_type": "last"},
    },
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: minutes long; run with -m slow")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Features and preference sets are kept in one folder for all of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The open_clip directory of a tiny model with random weights, by its key in MODELS."""

    @cache
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        config = {
            "model_cfg": MODELS[name],
            "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3},
        }
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            state = build_clip(config).state_dict()
            for key, tensor in state.items():  # biases that start as 0 would hide mistakes
                if tensor.is_floating_point() and tensor.ndim == 1:
                    tensor += 0.2 * torch.rand_like(tensor)
                    if key.endswith("bn3.weight"):
                        tensor += 0.3
        save_file(state, folder / "open_clip_model.safetensors")
        return folder

    return make


@pytest.fixture(scope="session")
def model(directory: Callable[[str], Path]) -> Callable[[str], LoadedModel]:
    """A tiny model, which no test may change."""
    return cache(lambda name: load_model(f"local-dir:{directory(name)}"))


@pytest.fixture(scope="session")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Sixteen attacked images a split."""
    return clipalign.prepare(
        "typographic", "emoji", tmp_path_factory.mktemp("prefs") / "set", limit=16
    )


@pytest.fixture(scope="session")
def context(
    tmp_path_factory: pytest.TempPathFactory, directory: Callable[[str], Path], preferences: Any
) -> Callable[[str], FitContext]:
    """A run, on the sixteen images, whose trained model is a tiny one."""

    @cache
    def make(name: str) -> Path:
        run = tmp_path_factory.mktemp("runs") / name
        run.mkdir()
        config = RunConfig(model=f"local-dir:{directory(name)}", data=preferences.root)
        (run / "config.yaml").write_text(dump_config(config))
        (run / "model").symlink_to(directory(name))
        return run

    return lambda name: FitContext.open(make(name))


@pytest.fixture(scope="session")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs, one folder a class: four classes of the emoji world."""
    world = EmojiWorld()
    root = tmp_path_factory.mktemp("animals")
    for split in ("train", "validation"):
        examples = list(world.examples(split))
        names = sorted({e.label for e in examples if e.label})[:4]
        for i, example in enumerate(e for e in examples if e.label in names):
            folder = root / split / str(example.label)
            folder.mkdir(parents=True, exist_ok=True)
            world.image(example).resize((128, 128)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of women and men of some activities."""
    source = EmojiPeople()
    folder = tmp_path_factory.mktemp("people")
    lines = ["image,split,gender,activity,kind"]
    for example in source.examples("validation"):
        if example.label in source.classnames[:6]:
            source.image(example).save(folder / f"{example.key}.png")
            a = example.attributes
            lines.append(f"{example.key}.png,validation,{a['gender']},{a['activity']},{a['kind']}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder / "index.csv"


@pytest.fixture
def pixels() -> Callable[[LoadedModel], torch.Tensor]:
    """Six images of random pixels, uint8."""

    def make(model: LoadedModel) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        size = (6, 3, *model.image_size)
        return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)

    return make
