"""A head is a map on what its reference encodes, so its images are encoded once, for both."""

from __future__ import annotations

import shutil

import pytest
import torch

from clipalign.config import RunConfig
from clipalign.config_text import dump_config
from clipalign.evals.base import EvalContext
from clipalign.evals.evaluate import evaluate
from clipalign.evals.examples import image_set
from clipalign.evals.heads import head_on
from clipalign.models.export import export_model
from clipalign.models.linear_map import LinearMap
from clipalign.models.load import load_model
from clipalign.models.loaded import LoadedModel
from tests.models.conftest import model_directory, tiny

__all__ = ["model_directory", "tiny"]  # fixtures that these tests use too

FAST = {"typographic": {"resamples": 100, "styles": ["note"]}}


@pytest.fixture
def make_run(tmp_path, model_directory):
    """A run whose head was a random map near the identity."""

    def make(model, name="head", seed=0):
        base = load_model(f"local-dir:{model_directory(model)}")
        noise = torch.randn(
            base.embed_dim, base.embed_dim, generator=torch.Generator().manual_seed(seed)
        )
        linear = LinearMap(torch.eye(base.embed_dim) + 0.3 * noise / base.embed_dim**0.5)
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        config = RunConfig(model=str(base.spec), trainable="head")
        (run / "config.yaml").write_text(dump_config(config))
        linear.save(run / "linear_map.safetensors", model_sha256=base.sha256)
        export_model(linear.fold(base), run / "model")
        return run, base

    return make


@pytest.fixture
def encoded(monkeypatch):
    """How many images each call of an image tower took, as they come; one alone is a check."""
    counts, real = [], LoadedModel.encode_image

    def counted(self, pixels):
        counts.extend([len(pixels)] if len(pixels) > 1 else [])
        return real(self, pixels)

    monkeypatch.setattr(LoadedModel, "encode_image", counted)
    return counts


@pytest.mark.parametrize("model", ["vit", "resnet", "siglip", "custom-text"])
def test_features_through_the_head_are_those_of_the_folded_model(make_run, shapes, model):
    run, base = make_run(model)
    folded, dataset = load_model(run), shapes(1)
    head = head_on(folded, base)
    assert head is not None
    images = image_set(dataset, "test", dataset.examples("test"))
    through, plain = (
        EvalContext(folded, base, dataset, "test", use_cache=False, head=given)
        for given in (head, None)
    )
    for a, b in (
        (through.encode_images(images).features, plain.encode_images(images).features),
        (through.encode_texts(["a leaf", "a stone"]), plain.encode_texts(["a leaf", "a stone"])),
        (through.encode_classes("a {}.", ["leaf"]), plain.encode_classes("a {}.", ["leaf"])),
    ):
        assert torch.equal(a[1], b[1])  # of the reference
        torch.testing.assert_close(a[0], b[0], atol=2e-6, rtol=0)
        assert not torch.allclose(a[0], a[1], atol=1e-2)


def test_a_second_head_on_one_reference_encodes_nothing(make_run, shapes, encoded):
    (first, _), (second, _) = make_run("vit", "a"), make_run("vit", "b", seed=1)
    options = {"dataset": shapes(1), "suite_options": FAST, "device": "cpu"}
    (one,) = evaluate(first, against="reference", **options)
    assert encoded == [8 * 2]  # each image clean and attacked, by the reference alone
    (other,) = evaluate(second, against="reference", **options)
    assert encoded == [8 * 2]
    assert one.model.sha256 != other.model.sha256
    assert one.metrics["kl_to_reference"].value != other.metrics["kl_to_reference"].value


def test_an_image_that_cannot_be_read_has_no_features_through_a_head_either(make_run, shapes):
    run, base = make_run("vit")
    dataset = shapes(1)
    dataset.broken = {"leaf-0-0"}
    examples = dataset.examples("test")
    context = EvalContext(
        load_model(run), base, dataset, "test", head=head_on(load_model(run), base)
    )
    found = context.encode_images(image_set(dataset, "test", examples))
    [broken] = found.unreadable
    assert examples[broken].key == "leaf-0-0"
    assert found.features[0][broken].isnan().all()
    assert found.features[0].isfinite().all(dim=2).sum() == len(examples) - 1


def test_a_head_is_not_believed(make_run, tmp_path, tiny):
    run, base = make_run("vit")
    folded = load_model(run)
    shutil.copytree(run / "model", tmp_path / "exported")
    assert head_on(load_model(tmp_path / "exported"), base) is None  # says nothing of its base
    assert head_on(folded, tiny("resnet")) is None  # another base
    half = load_model(run, precision="bf16")
    assert head_on(half, base) is None
    changed = load_model(run)  # as a loop of one's own leaves it
    with torch.no_grad():
        changed.clip.visual.ln_post.weight += 1e-4
    assert head_on(changed, base) is None
    file = run / "linear_map.safetensors"
    LinearMap(2 * LinearMap.load(file)[0].weight).save(file)  # not the one that was folded
    assert head_on(folded, base) is None
    file.write_bytes(b"damaged")
    assert head_on(folded, base) is None
    file.unlink()
    assert head_on(folded, base) is None
