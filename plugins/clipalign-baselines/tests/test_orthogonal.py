"""The learned projection: what it is at the start, its loss, its width."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from clipalign_baselines.orthogonal import (
    OrthogonalProjection,
    orthogonality,
    symmetric_cross_entropy,
)

from clipalign import ModelError, UsageError
from clipalign.transforms.base import load_transform

TEXTS = ["a photo of a dog.", "a photo of a cat."]


def test_square_and_untrained_it_turns_the_embedding_and_changes_no_similarity(
    context, model, pixels
):
    reference = model("vit")
    fitted = OrthogonalProjection(k=24, epochs=0).fit(context("vit"))
    assert orthogonality(fitted.matrix.double()) < 1e-6
    turned = fitted.apply(reference)
    with torch.no_grad():
        before, after = (
            m.encode_image(pixels(reference)) @ m.encode_text(TEXTS).T for m in (reference, turned)
        )
        torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


def test_narrow_and_untrained_it_is_an_orthogonal_projection(context):
    w = OrthogonalProjection(k=5, epochs=0).fit(context("vit")).matrix.double()
    projection = w.T @ w
    torch.testing.assert_close(projection @ projection, projection, rtol=0, atol=1e-6)
    torch.testing.assert_close(projection.T, projection)
    assert torch.linalg.matrix_rank(projection, atol=1e-5) == 5


def test_with_different_labels_the_loss_is_clips_own_and_equal_ones_share():
    generator = torch.Generator().manual_seed(0)
    images, texts = F.normalize(torch.randn(2, 4, 6, generator=generator).double(), dim=2)
    scale, label = torch.tensor(10.0), torch.arange(4)
    logits = 10 * images @ texts.T
    expected = (F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2
    torch.testing.assert_close(symmetric_cross_entropy(images, texts, label, scale), expected)
    one = torch.zeros(4, dtype=torch.int64)
    same = texts[:1].expand(4, -1)
    even = symmetric_cross_entropy(images[:1].expand(4, -1), same, one, scale)
    assert even.item() == pytest.approx(torch.log(torch.tensor(4.0)).item())


def test_it_learns_the_pairs_and_stays_near_orthogonal(context, model, tmp_path):
    options = {"epochs": 20, "lr": 0.01, "batch_size": 16, "seed": 4}
    fitted = OrthogonalProjection(**options).fit(context("resnet"))
    assert fitted.matrix.shape == (12, 24)
    assert fitted.losses[-1] < fitted.losses[0]
    loose = OrthogonalProjection(**options, orthogonality=0).fit(context("resnet"))
    assert orthogonality(fitted.matrix) < orthogonality(loose.matrix)
    again = OrthogonalProjection(**options).fit(context("resnet"))
    assert torch.equal(again.matrix, fitted.matrix)
    narrow = fitted.apply(model("resnet"))
    assert narrow.embed_dim == 12
    expected = F.normalize(model("resnet").encode_text(TEXTS) @ fitted.matrix.T, dim=1)
    torch.testing.assert_close(narrow.encode_text(TEXTS), expected, rtol=0, atol=1e-5)
    fitted.save(tmp_path / "w.safetensors")
    loaded = load_transform(tmp_path / "w.safetensors")
    assert loaded.describe() == fitted.describe()
    assert torch.equal(loaded.matrix, fitted.matrix)


def test_what_cannot_serve_ends_in_one_message(context, model):
    with pytest.raises(UsageError, match="more than the 24 dimensions"):
        OrthogonalProjection(k=25).fit(context("vit"))
    with pytest.raises(ModelError, match="fitted to the model"):
        OrthogonalProjection(epochs=0).fit(context("vit")).apply(model("resnet"))
