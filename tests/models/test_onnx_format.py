"""ONNX towers, run by onnxruntime as a program without torch would run them."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from clipalign.errors import ModelError, UsageError
from clipalign.models import onnx_format
from clipalign.models.formats import write_model
from clipalign.models.onnx_format import ONNX_CONFIG_NAME

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

TEXTS = ["a photo of an apple", "a note that says iPod", "ok", "x", "a b c"]


def check(model, directory, photo, pixels):
    about = json.loads((directory / ONNX_CONFIG_NAME).read_text())
    session = {
        kind: onnxruntime.InferenceSession(str(directory / about[kind]["file"]))
        for kind in ("image", "text")
    }
    for count in (1, 2, 5):
        images = torch.cat([pixels, model.preprocess(photo)[None]] * 2)[:count]
        (image,) = session["image"].run(None, {about["image"]["input"]: images.numpy()})
        tokens = model.tokenize(TEXTS[:count]).numpy()
        (text,) = session["text"].run(None, {about["text"]["input"]: tokens})
        logits = about["logit_scale"] * image @ text.T + about["logit_bias"]
        with torch.no_grad():
            features = model.encode_image(images), model.encode_text(TEXTS[:count])
            expected = model.clip.get_logits(images, model.tokenize(TEXTS[:count]))[0]
        np.testing.assert_allclose(image, features[0].numpy(), atol=1e-4)
        np.testing.assert_allclose(text, features[1].numpy(), atol=1e-4)
        scale = max(1.0, about["logit_scale"])
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4 * scale)
    preprocess = about["preprocess"]
    assert preprocess["size"] == list(model.image_size)
    assert preprocess["mean"] == model.config["preprocess_cfg"]["mean"]
    assert preprocess["resize_mode"] == model.config["preprocess_cfg"]["resize_mode"]
    assert about["tokenizer"]["context_length"] == model.context_length
    assert about["model_sha256"] == model.sha256
    assert {f.name for f in directory.iterdir()} == {
        "image.onnx", "text.onnx", ONNX_CONFIG_NAME, "README.md", "SHA256SUMS"
    }  # fmt: skip


def test_onnxruntime_computes_the_features_of_both_towers(tiny, photo, pixels_for, tmp_path):
    model = tiny("siglip")
    check(model, write_model(model, tmp_path / "out", "onnx"), photo, pixels_for(model, 2))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["vit", "quickgelu", "wide", "resnet", "timm", "custom-text"])
def test_every_other_architecture_as_well(tiny, photo, pixels_for, tmp_path, name):
    model = tiny(name)
    check(model, write_model(model, tmp_path / "out", "onnx"), photo, pixels_for(model, 2))


def test_a_file_that_computes_something_else_is_not_kept(tiny, tmp_path, monkeypatch):
    def other(tower, example, name, path, model):
        nodes = [onnx.helper.make_node("ReduceMean", [name], ["features"], keepdims=1)]
        shape = list(example.shape)
        value = onnx.helper.make_tensor_value_info
        kind = onnx.TensorProto.FLOAT
        graph = onnx.helper.make_graph(
            nodes, "g", [value(name, kind, shape)], [value("features", kind, None)]
        )
        opset = [onnx.helper.make_opsetid("", 18)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), path)

    import onnx

    monkeypatch.setattr(onnx_format, "_export", other)
    monkeypatch.setattr(onnx_format, "_SIZES", (2,))
    with pytest.raises(ModelError, match=r"other features from image\.onnx"):
        write_model(tiny("vit"), tmp_path / "out", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_the_packages_it_says_how_to_install_them(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"onnxruntime.*pip install 'clipalign\[onnx\]'"):
        write_model(tiny("vit"), tmp_path / "out", "onnx")
