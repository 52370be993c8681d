from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F

from clipalign.errors import ModelError
from clipalign.models.export import export_model
from clipalign.models.linear_map import LinearMap, TowerMap, fold_towers, orthogonality_penalty

TEXTS = ["a photo of a man", "a photo of a woman", "a nurse", "an engineer"]


def random_weight(d, dtype=torch.float64):
    """A well-conditioned W near the identity, as training leaves it."""
    generator = torch.Generator().manual_seed(d)
    noise = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return (torch.eye(d, dtype=torch.float64) + noise / (2 * d**0.5)).to(dtype)


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    make = torch.randn(2, 7, 12, generator=generator, dtype=torch.float64)
    return F.normalize(make[0], dim=1), F.normalize(make[1], dim=1)


def test_the_penalty_is_zero_for_rotations_and_its_gradient_is_right():
    rotation = torch.linalg.qr(random_weight(6)).Q
    assert orthogonality_penalty(rotation).item() == pytest.approx(0, abs=1e-25)
    doubled = orthogonality_penalty(2 * torch.eye(6, dtype=torch.float64))
    assert doubled.item() == pytest.approx(6 * 9)
    weight = random_weight(5).requires_grad_()
    assert torch.autograd.gradcheck(orthogonality_penalty, weight)


def test_t_0_is_the_pretrained_model(features):
    images, texts = features
    w0 = LinearMap(random_weight(12)).power(0.0)
    assert orthogonality_penalty(w0.weight).item() == pytest.approx(0, abs=1e-24)
    torch.testing.assert_close(w0(images) @ w0(texts).T, images @ texts.T, rtol=0, atol=1e-14)


def test_t_1_is_the_trained_model(features):
    images, texts = features
    linear = LinearMap(random_weight(12))
    torch.testing.assert_close(linear.power(1.0).weight, linear.weight, rtol=0, atol=1e-14)
    torch.testing.assert_close(
        linear.power(1.0)(images) @ linear.power(1.0)(texts).T,
        linear(images) @ linear(texts).T,
        rtol=0,
        atol=1e-14,
    )


@pytest.mark.parametrize("t", [-2.0, -1.0, 0.4, 1.2])
def test_the_metric_of_t_is_v_sigma_2t_v(t):
    linear = LinearMap(random_weight(8))
    _, sigma, vt = linear.svd
    metric = linear.power(t).weight.T @ linear.power(t).weight
    torch.testing.assert_close(metric, vt.T @ torch.diag(sigma ** (2 * t)) @ vt)
    # so t and −t undo each other in the metric, and 2t is t twice
    inverse = linear.power(-t).weight.T @ linear.power(-t).weight
    torch.testing.assert_close(metric @ inverse, torch.eye(8, dtype=torch.float64))


def test_a_map_that_lost_a_direction_still_has_finite_powers():
    weight = random_weight(6)
    weight[:, 0] = weight[:, 1]
    inverted = LinearMap(weight).power(-2.0, eps=1e-3)
    assert inverted.weight.isfinite().all()
    assert torch.linalg.matrix_norm(inverted.weight, 2).item() == pytest.approx(1e6)


def test_maps_that_are_not_square_or_not_finite_are_refused():
    with pytest.raises(ModelError, match="square"):
        LinearMap(torch.ones(3, 4))
    with pytest.raises(ModelError, match="not finite"):
        LinearMap(torch.full((2, 2), torch.nan))


def similarities(model, pixels, linear=None):
    with torch.no_grad():
        image, text = model.encode_image(pixels), model.encode_text(TEXTS)
        if linear is not None:
            image, text = linear(image), linear(text)
        return model.logit_scale * image @ text.T


@pytest.mark.parametrize(
    ("name", "t"),
    [
        ("vit", 1.0),
        ("vit", -0.7),
        ("resnet", 1.0),
        ("timm", 0.4),
        ("siglip", 1.0),
        ("custom-text", 1),
    ],
)
def test_folded_into_the_projections_the_result_is_a_plain_model(
    tiny, pixels_for, tmp_path, name, t
):
    model = tiny(name)
    linear = LinearMap(random_weight(model.embed_dim, torch.float32)).power(t)
    pixels = pixels_for(model)
    expected = similarities(model, pixels, linear)
    folded = linear.fold(model)
    torch.testing.assert_close(similarities(folded, pixels), expected, rtol=1e-5, atol=1e-5)
    assert similarities(model, pixels).sub(expected).abs().max() > 0.01  # model is as it was

    export_model(folded, tmp_path / "model")
    plain, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}/model")
    with torch.no_grad():
        logits = plain.eval().get_logits(pixels, model.tokenize(TEXTS))[0]
    if model.logit_bias is not None:
        logits = logits - model.logit_bias
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_folded_at_t_0_the_logits_are_the_pretrained_ones(tiny, pixels_for):
    model = tiny("vit")
    folded = LinearMap(random_weight(24, torch.float32)).power(0.0).fold(model)
    torch.testing.assert_close(
        similarities(folded, pixels_for(model)),
        similarities(model, pixels_for(model)),
        rtol=1e-5,
        atol=1e-5,
    )


def test_a_map_of_another_model_is_refused(tiny):
    with pytest.raises(ModelError, match="trained on another model"):
        LinearMap(torch.eye(5)).fold(tiny("vit"))


def test_a_tower_without_a_linear_end_says_why_it_cannot_be_folded(tiny):
    model = tiny("vit")
    model.clip.visual.proj = None  # as open_clip's own pruning leaves it
    with pytest.raises(ModelError, match=r"image tower ends in VisionTransformer.*Train image-enc"):
        LinearMap(torch.eye(24)).fold(model)


def tower_map(d, k, *, constant):
    generator = torch.Generator().manual_seed(k)
    matrix = torch.randn(k, d, generator=generator, dtype=torch.float64)
    bias = torch.randn(k, generator=generator, dtype=torch.float64)
    return TowerMap(matrix, bias if constant else None)


@pytest.mark.parametrize("name", ["vit", "resnet", "timm", "siglip", "custom-text"])
def test_a_map_to_fewer_dimensions_makes_a_narrower_plain_model(tiny, pixels_for, name, tmp_path):
    model = tiny(name)
    image, text = (tower_map(model.embed_dim, 7, constant=False) for _ in range(2))
    folded = fold_towers(model, image=image, text=text)
    assert folded.embed_dim == 7
    pixels = pixels_for(model)
    with torch.no_grad():
        expected = F.normalize(model.encode_image(pixels).double() @ image.matrix.T, dim=1)
        torch.testing.assert_close(
            folded.encode_image(pixels).double(), expected, rtol=0, atol=1e-5
        )
        expected = F.normalize(model.encode_text(TEXTS).double() @ text.matrix.T, dim=1)
        torch.testing.assert_close(folded.encode_text(TEXTS).double(), expected, rtol=0, atol=1e-5)
        plain, _, _ = open_clip.create_model_and_transforms(
            f"local-dir:{export_model(folded, tmp_path / 'narrow')}"
        )
        assert plain.eval().encode_image(pixels).shape == (len(pixels), 7)


@pytest.mark.parametrize(
    ("name", "image"), [("resnet", True), ("siglip", True), ("timm", True), ("vit", False)]
)
def test_a_constant_is_folded_where_there_is_a_place_for_it(tiny, pixels_for, name, image):
    model = tiny(name)
    d = model.embed_dim
    affine = tower_map(d, d, constant=True)
    folded = fold_towers(model, image=affine if image else None, text=affine)
    pixels, tokens = pixels_for(model), model.tokenize(TEXTS)
    with torch.no_grad():
        raw, new = (m.clip.encode_image(pixels).double() for m in (model, folded))
        expected = raw @ affine.matrix.T + affine.bias if image else raw
        torch.testing.assert_close(new, expected, rtol=1e-4, atol=1e-4)
        raw, new = (m.clip.encode_text(tokens).double() for m in (model, folded))
        torch.testing.assert_close(new, raw @ affine.matrix.T + affine.bias, rtol=1e-4, atol=1e-4)


def test_a_constant_without_a_place_and_unequal_widths_are_refused(tiny):
    model = tiny("vit")
    with pytest.raises(ModelError, match="no place for the constant"):
        fold_towers(model, image=tower_map(24, 24, constant=True))
    with pytest.raises(ModelError, match="different widths"):
        fold_towers(model, text=tower_map(24, 7, constant=False))
    with pytest.raises(ModelError, match="another model"):
        fold_towers(model, text=tower_map(23, 23, constant=False))
