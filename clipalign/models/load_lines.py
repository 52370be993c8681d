"""The Python lines that load a written model without clipalign."""

from __future__ import annotations

import os
from collections.abc import Sequence

__all__ = ["load_lines", "open_clip_line"]


def open_clip_line(directory: str | os.PathLike[str]) -> str:
    """The Python line that loads an exported model with open_clip alone."""
    name = f"local-dir:{os.fspath(directory)}"
    return f"model, _, preprocess = open_clip.create_model_and_transforms({name!r})"


def load_lines(form: str, directory: str = ".", hub: str | None = None) -> Sequence[str]:
    """The Python lines that load a written model.

    Args:
        form: one of `clipalign.models.formats.FORMATS`.
        directory: where it is.
        hub: org/name, where it is on the hub instead.
    """
    directory = hub or directory
    if form == "open_clip":
        name = f"hf-hub:{hub}" if hub else f"local-dir:{directory}"
        return (
            "import open_clip",
            f"model, _, preprocess = open_clip.create_model_and_transforms({name!r})",
            f"tokenizer = open_clip.get_tokenizer({name!r})",
        )
    if form == "transformers":
        return (
            "from transformers import CLIPModel, CLIPProcessor",
            f"model = CLIPModel.from_pretrained({directory!r})",
            f"processor = CLIPProcessor.from_pretrained({directory!r})",
        )
    if hub:
        download = "from huggingface_hub import snapshot_download"
        return (download, f"directory = snapshot_download({hub!r})", *load_lines(form))
    return (
        "import json, onnxruntime",
        f"image = onnxruntime.InferenceSession({directory + '/image.onnx'!r})",
        f"text = onnxruntime.InferenceSession({directory + '/text.onnx'!r})",
        f"about = json.load(open({directory + '/clipalign_onnx.json'!r}))",
        "# logits = about['logit_scale'] * image_features @ text_features.T + about['logit_bias']",
    )
