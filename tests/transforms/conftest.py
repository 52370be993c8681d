"""A world in which a linear map flips a concept, and runs whose head was such a map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipalign.config import RunConfig
from clipalign.config_text import dump_config
from clipalign.models.linear_map import LinearMap
from clipalign.models.loaded import LoadedModel
from clipalign.transforms.probe import ConceptProbe, ProbeFeatures
from tests.models.conftest import model_directory, pixels_for, tiny

__all__ = ["model_directory", "pixels_for", "tiny"]  # fixtures that these tests use too


DIMENSIONS = 12
ACTIVITIES = ("running", "reading", "police officer", "nurse")


def unit(array: np.ndarray) -> np.ndarray:
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def _make_features(
    images: int = 80, activities: int = 4, seed: int = 0, groups: int | None = None
) -> ProbeFeatures:
    """Images and captions that are sums of an activity, a value and something of their own.

    What the value looks like and how it is written point into different directions, as they do in
    CLIP: only so can one metric VΣ²Vᵀ turn a gap round.
    """
    rng = np.random.default_rng(seed)
    d = DIMENSIONS
    activity_is = np.eye(activities, d)
    looks, written = rng.normal(size=(2, d)) * 0.25
    looks[:activities] = written[:activities] = 0.0
    written = written + 0.6 * looks
    value, activity = np.arange(images) % 2, np.arange(images) // 2 % activities
    sign = 2 * value - 1
    shown = activity_is[activity] + sign[:, None] * looks + 0.2 * rng.normal(size=(images, d))
    texts = activity_is[:, None] + np.array([-1, 1])[None, :, None] * written
    texts = texts + 0.02 * rng.normal(size=texts.shape)
    names = [ACTIVITIES[a % 4] for a in range(activities)]
    probe = ConceptProbe(
        "gender",
        ("woman", "man"),
        tuple((f"a woman {a}", f"a man {a}") for a in names),
        tuple(f"a person {a}" for a in names),
        ("a woman", "a man"),
        tuple(value.tolist()),
        tuple(activity.tolist()),
        () if groups is None else tuple(str(i % groups) for i in range(images)),
    )
    return ProbeFeatures(probe, unit(shown), unit(texts), unit(activity_is), 20.0)


def _flipping_map(features: ProbeFeatures, seed: int = 1) -> LinearMap:
    """A map whose t = 1 turns the gap round: it stretches what works against it."""
    generator = torch.Generator().manual_seed(seed)
    u, v = (
        torch.linalg.qr(torch.randn(DIMENSIONS, DIMENSIONS, generator=generator).double()).Q
        for _ in range(2)
    )
    direction = features.value_texts[:, 1] - features.value_texts[:, 0]
    per_image = (features.images @ v.numpy()) * (direction[features.activity] @ v.numpy())
    against = torch.from_numpy(features.contrast @ per_image) < 0
    return LinearMap((u * torch.where(against, 2.4, 0.5)) @ v.T)


def _random_map(d: int, seed: int = 0) -> LinearMap:
    """A well-conditioned W near the identity, as training leaves it; float32."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return LinearMap((torch.eye(d, dtype=torch.float64) + noise / (2 * d**0.5)).float())


@pytest.fixture
def make_features() -> Callable[..., ProbeFeatures]:
    return _make_features


@pytest.fixture
def flipping_map() -> Callable[..., LinearMap]:
    return _flipping_map


@pytest.fixture
def random_map() -> Callable[..., LinearMap]:
    return _random_map


@pytest.fixture
def features() -> ProbeFeatures:
    return _make_features()


@pytest.fixture
def linear(features: ProbeFeatures) -> LinearMap:
    return _flipping_map(features)


@pytest.fixture
def make_run(tmp_path: Path, model_directory: Callable[[str], Path]) -> Callable[..., Path]:
    """A run as training leaves it: `make_run("a", model)`; the head was random."""

    def make(
        name: str, model: LoadedModel, *, linear: LinearMap | None = None, **config: Any
    ) -> Path:
        from clipalign.models.export import export_model

        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        keys = {"trainable": "head", "task": "gender", "dataset": "emoji-people"} | config
        settings = RunConfig(model=str(model.spec), **keys)
        (run / "config.yaml").write_text(dump_config(settings))
        linear = linear or _random_map(model.embed_dim, seed=sum(map(ord, name)))
        if settings.trainable == "head":
            linear.save(
                run / "linear_map.safetensors", model=settings.model, model_sha256=model.sha256
            )
        export_model(linear.fold(model), run / "model")
        return run

    return make


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are cached in one folder for all of these tests, and not in the user's."""
    folder = tmp_path_factory.getbasetemp() / "transforms-cache"
    monkeypatch.setenv("CLIPALIGN_CACHE", str(folder))
