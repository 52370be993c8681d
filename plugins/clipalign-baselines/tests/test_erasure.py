"""LEACE and CLIP-clip: their theorems on made features, their folds, and their refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clipalign_baselines.clip_clip import ClipClip, mutual_information
from clipalign_baselines.leace import Leace, erase

import clipalign
from clipalign import ModelError, UsageError
from clipalign.transforms.base import load_transform
from clipalign.transforms.context import FitContext

pytest.importorskip("concept_erasure", reason="the extra leace is not installed")
pytest.importorskip("sklearn", reason="the extra clip-clip is not installed")

TEXTS = ["a photo of a nurse.", "a photo of a farmer."]


@pytest.fixture
def features():
    """[N, d] features in which two directions tell the value, and the values [N]."""
    generator = torch.Generator().manual_seed(0)
    z = torch.arange(120) % 2
    x = (
        torch.randn(120, 10, generator=generator).double()
        @ torch.randn(10, 10, generator=generator).double()
    )
    return x + 3 * z[:, None] * torch.eye(10).double()[0] - z[:, None] * 1.5, z


def error_of_a_linear_probe(x, z):
    """Mean squared error for labels ±1, on the data of its own fit; with a constant."""
    design = torch.cat([x, torch.ones(len(x), 1).double()], dim=1)
    target = 2.0 * z.double() - 1
    weight = torch.linalg.lstsq(design, target[:, None]).solution
    return ((design @ weight).flatten() - target).square().mean()


@pytest.mark.parametrize("affine", [True, False])
def test_after_leace_a_linear_probe_is_at_chance_on_the_data_of_the_fit(features, affine):
    x, z = features
    before = error_of_a_linear_probe(x, z)
    assert before < 0.8  # of the variance 1 of the labels
    erased = erase(x, z, affine=affine)
    r = x @ erased.matrix.T + (0 if erased.bias is None else erased.bias)
    after = error_of_a_linear_probe(r, z)
    assert after.item() == pytest.approx(1.0, abs=1e-8)
    torch.testing.assert_close(r[z == 0].mean(0), r[z == 1].mean(0), rtol=0, atol=1e-8)
    torch.testing.assert_close(erased.matrix @ erased.matrix, erased.matrix, rtol=0, atol=1e-8)
    assert torch.linalg.matrix_rank(erased.matrix) == 9
    if affine:
        torch.testing.assert_close(r.mean(0), x.mean(0), rtol=0, atol=1e-8)


def test_leace_moves_the_features_less_than_the_orthogonal_projection_does(features):
    x, z = features
    erased = erase(x, z, affine=True)
    moved = (x @ erased.matrix.T + erased.bias - x).square().sum(dim=1).mean()
    apart = x[z == 1].mean(0) - x[z == 0].mean(0)
    apart = apart / apart.norm()
    centred = x - x.mean(0)
    assert moved < (centred @ apart).square().mean()


@pytest.mark.parametrize("sides", ["image", "text", "both"])
def test_folded_into_a_resnet_the_values_have_the_same_mean(directory, model, people, sides):
    from clipalign_baselines.leace import _images

    spec = f"local-dir:{directory('resnet')}"
    context = FitContext.open(spec, dataset=people, dataset_options={"label_column": None})
    fitted = Leace(sides=sides).fit(context)
    edited = fitted.apply(model("resnet"))
    x, z = _images(context, edited, raw=True)
    apart = (x[z == 1].mean(0) - x[z == 0].mean(0)).norm() / x.norm(dim=1).mean()
    before, _ = _images(context, model("resnet"), raw=True)
    was = (before[z == 1].mean(0) - before[z == 0].mean(0)).norm() / before.norm(dim=1).mean()
    if sides == "text":
        assert torch.equal(x, before)
        assert not torch.allclose(edited.encode_text(TEXTS), model("resnet").encode_text(TEXTS))
    else:
        assert apart < 1e-5 < was
    assert set(fitted.labelled) == ({"image", "text"} if sides == "both" else {sides})


def test_a_vit_takes_the_matrix_and_keeps_the_affine_map_unfolded(directory, people, tmp_path):
    spec = f"local-dir:{directory('vit')}"
    where = {"dataset": people, "dataset_options": {"label_column": None}}
    with pytest.raises(ModelError, match=r"no place for the constant[\s\S]*affine=false"):
        clipalign.transform(spec, method="leace", output=tmp_path / "affine", **where)
    kept = load_transform(tmp_path / "affine" / "transform.safetensors")
    assert kept.maps["image"].bias.shape == (24,)
    result = clipalign.transform(
        spec, method="leace", affine=False, output=tmp_path / "matrix", **where
    )
    assert result.transform.label == "erased"
    assert clipalign.load_model(tmp_path / "matrix").embed_dim == 24


def test_mutual_information_finds_the_dimension_that_tells():
    rng = np.random.default_rng(0)
    value = np.arange(200) % 2
    features = rng.normal(size=(200, 6))
    features[:, 4] += 3 * value
    found = mutual_information(features, value, neighbours=3, seed=0)
    assert found.argmax() == 4
    assert found[4] > 0.3 > 0.1 > np.delete(found, 4).max()


def test_clip_clip_keeps_the_dimensions_that_tell_least(directory, model, people, tmp_path):
    reference = model("vit")
    context = FitContext.open(
        f"local-dir:{directory('vit')}", dataset=people, dataset_options={"label_column": None}
    )
    fitted = ClipClip().fit(context)
    assert len(fitted.kept) == round(24 * 400 / 512)
    dropped = [i for i in range(24) if i not in fitted.kept]
    assert fitted.information[dropped].min() >= fitted.information[list(fitted.kept)].max()
    narrow = fitted.apply(reference)
    expected = reference.encode_text(TEXTS)[:, list(fitted.kept)]
    expected = torch.nn.functional.normalize(expected, dim=1)
    torch.testing.assert_close(narrow.encode_text(TEXTS), expected, rtol=0, atol=1e-6)
    whole = ClipClip(m=24).fit(context)
    torch.testing.assert_close(
        whole.apply(reference).encode_text(TEXTS), reference.encode_text(TEXTS)
    )
    fitted.save(tmp_path / "kept.safetensors")
    loaded = load_transform(tmp_path / "kept.safetensors")
    assert loaded.describe() == fitted.describe()
    assert torch.equal(loaded.matrix, fitted.matrix)
    with pytest.raises(UsageError, match="m = 25 is more than the 24 dimensions"):
        ClipClip(m=25).fit(context)
    with pytest.raises(ModelError, match="fitted to the model"):
        fitted.apply(model("resnet"))


@pytest.mark.parametrize("fitter", [Leace, ClipClip])
def test_without_labels_of_a_concept_there_is_one_message(context, fitter):
    with pytest.raises(UsageError, match="has no concept"):
        fitter().fit(context("vit"))


@pytest.mark.parametrize(
    ("module", "fitter", "name"),
    [("concept_erasure", Leace, "leace"), ("sklearn", ClipClip, "clip-clip")],
)
def test_a_missing_library_is_named_with_how_to_install_it(
    context, monkeypatch, module, fitter, name
):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(UsageError, match=rf"clipalign-baselines\[{name}\]"):
        fitter().fit(context("vit"))
