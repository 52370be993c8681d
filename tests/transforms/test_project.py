"""The projection does what its formula says, on the text side and nowhere else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipalign.errors import DataError, ModelError
from clipalign.transforms.base import load_transform
from clipalign.transforms.context import FitContext
from clipalign.transforms.project import Project, Projection, calibrated, orthogonal_projection

TEXTS = ["a nurse", "an engineer", "a photo of a person running."]


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def close(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def test_p0_is_an_orthogonal_projection_that_annihilates_the_prompts():
    a = normal(9, 3)
    p0 = orthogonal_projection(a)
    close(p0 @ p0, p0)
    close(p0, p0.T)
    close(p0 @ a, torch.zeros(9, 3, dtype=torch.float64))
    assert torch.linalg.matrix_rank(p0) == 6
    close(p0, torch.eye(9, dtype=torch.float64) - a @ torch.linalg.inv(a.T @ a) @ a.T)


def test_prompts_that_depend_on_each_other_take_out_what_they_span():
    a = normal(9, 2)
    dependent = torch.cat([a, a @ normal(2, 3, seed=1)], dim=1)
    close(orthogonal_projection(dependent), orthogonal_projection(a), atol=1e-10)


def test_prompts_that_span_everything_are_refused():
    with pytest.raises(DataError, match="nothing would be left"):
        orthogonal_projection(normal(4, 6))


def test_the_plain_projection_says_what_must_not_be_asked_of_it():
    p0, prompts = orthogonal_projection(normal(9, 2)), ("a photo of a woman.", "a photo of a man.")
    said = Projection(p0, prompts, 0.0, "0" * 64).statement()
    assert "('a photo of a woman.', 'a photo of a man.')" in said
    assert Projection(p0, prompts, 1000.0, "0" * 64).statement() == ""


def test_the_calibrated_projection_is_its_formula():
    p0, differences = orthogonal_projection(normal(9, 2)), normal(5, 9, seed=2)
    moment = sum(torch.outer(d, d) for d in differences) / 5
    expected = p0 @ torch.linalg.inv(torch.eye(9, dtype=torch.float64) + 1000 * moment)
    close(calibrated(p0, differences, 1000.0), expected, atol=1e-10)
    close(calibrated(p0, differences, 0.0), p0)


def test_calibration_brings_the_pairs_together():
    p0, differences = orthogonal_projection(normal(9, 2)), normal(3, 9, seed=2)
    left = [
        (calibrated(p0, differences, weight) @ differences.T).norm().item()
        for weight in (0.0, 1.0, 10.0, 1000.0)
    ]
    assert left == sorted(left, reverse=True)
    assert left[-1] < left[0] / 100


@pytest.mark.parametrize("name", ["vit", "resnet", "siglip", "custom-text"])
@pytest.mark.parametrize("calibration", [0.0, 1000.0])
def test_folded_it_maps_texts_and_leaves_images_bit_for_bit(
    tiny, pixels_for, model_directory, name, calibration
):
    model = tiny(name)
    context = FitContext.open(f"local-dir:{model_directory(name)}")
    fitted = Project(calibration=calibration).fit(context)
    folded = fitted.apply(model)
    pixels = pixels_for(model)
    with torch.no_grad():
        assert torch.equal(folded.encode_image(pixels), model.encode_image(pixels))
        expected = F.normalize(model.encode_text(TEXTS).double() @ fitted.matrix.T, dim=-1)
        close(folded.encode_text(TEXTS).double(), expected, atol=1e-5)


def test_the_captions_of_the_values_alone_are_what_is_taken_out(tiny, model_directory):
    model = tiny("vit")
    context = FitContext.open(f"local-dir:{model_directory('vit')}")
    fitted = Project(calibration=0).fit(context)
    assert fitted.prompts == ("a photo of a woman.", "a photo of a man.")
    gone = model.encode_text(fitted.prompts).double() @ fitted.matrix.T
    assert gone.abs().max() < 1e-6
    own = Project(calibration=0, prompts=["a nurse"]).fit(context)
    assert own.prompts == ("a nurse",)
    assert torch.linalg.matrix_rank(own.matrix) == 23


def test_it_is_saved_and_applied_only_to_its_model(tiny, model_directory, tmp_path):
    context = FitContext.open(f"local-dir:{model_directory('vit')}")
    fitted = Project().fit(context)
    fitted.save(tmp_path / "p.safetensors")
    loaded = load_transform(tmp_path / "p.safetensors")
    assert loaded.describe() == fitted.describe()
    assert torch.equal(loaded.matrix, fitted.matrix)
    scope = {"text": tiny("vit").encode_text(TEXTS), "torch": torch}
    exec(fitted.unfolded(tmp_path / "p.safetensors"), scope)
    close(scope["text"], fitted.apply(tiny("vit")).encode_text(TEXTS).double(), atol=1e-5)
    with pytest.raises(ModelError, match="fitted to the model"):
        loaded.apply(tiny("resnet"))
