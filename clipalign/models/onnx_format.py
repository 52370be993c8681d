"""Writing the two towers as ONNX (extra "onnx").

    image.onnx         pixels [N, 3, H, W] float32, normalised → features [N, d] float32, unit norm
    text.onnx          tokens [N, L] int64 → features [N, d] float32, unit norm
    clipalign_onnx.json  preprocessing, tokeniser, logit scale and bias (0 where there is none)

N is free. The logits are logit_scale · image features · text featuresᵀ + logit_bias. Both files are
run by onnxruntime on random inputs of two batch sizes before they count as written.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipalign.errors import ModelError, UsageError

if TYPE_CHECKING:
    from clipalign.models.loaded import LoadedModel

__all__ = ["ONNX_CONFIG_NAME", "check_onnx", "write_onnx"]

ONNX_CONFIG_NAME = "clipalign_onnx.json"
SCHEMA_VERSION = 1
_TOLERANCE = 1e-4
"""Largest difference of a unit-norm feature between onnxruntime and torch, float32."""
_SIZES = (1, 3)
"""Batches that the proof runs."""
_TEXTS = ("a photo of a cat", "words on a note", "x")


class _Tower(nn.Module):
    """One tower, with the normalisation that follows it."""

    def __init__(self, clip: Any, kind: str) -> None:
        super().__init__()
        self.clip, self.kind = clip, kind

    def forward(self, inputs: Tensor) -> Tensor:
        encode = self.clip.encode_image if self.kind == "image" else self.clip.encode_text
        return F.normalize(encode(inputs), dim=-1)


def check_onnx() -> None:
    """Refuse before anything is trained or written.

    Raises:
        UsageError: a package is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"Writing ONNX needs the package {error.name}. Install it with: "
            "pip install 'clipalign[onnx]'"
        ) from error


def write_onnx(model: LoadedModel, directory: Path) -> None:
    """Write image.onnx, text.onnx and clipalign_onnx.json, and prove them with onnxruntime.

    Args:
        model: any model; it is left as it is.
        directory: an empty directory.

    Raises:
        ModelError: torch cannot express a tower in ONNX, or onnxruntime computes something else.
        UsageError: a package is not installed.
    """
    check_onnx()
    clip = model.rebuilt(model.clip.state_dict()).clip.cpu()
    for parameter in clip.parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    examples = {
        "image": torch.randn(3, 3, *model.image_size, generator=generator),
        "text": model.tokenize(_TEXTS),
    }
    names = {"image": "pixels", "text": "tokens"}
    for kind, example in examples.items():
        path = directory / f"{kind}.onnx"
        tower = _Tower(clip, kind).eval()
        _export(tower, example[:2], names[kind], path, model.name)
        _check(tower, example, names[kind], path)
    about = _about(model, names)
    (directory / ONNX_CONFIG_NAME).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    if hasattr(model.tokenizer, "save_pretrained"):
        model.tokenizer.save_pretrained(directory)


def _export(tower: nn.Module, example: Tensor, name: str, path: Path, model: str) -> None:
    batch = torch.export.Dim("batch", min=1)
    try:
        with _plain_attention(), _silence():
            torch.onnx.export(
                tower,
                (example,),
                path,
                input_names=[name],
                output_names=["features"],
                dynamic_shapes=({0: batch},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds
        reason = str(error).strip().split("\n")[0][:300]
        raise ModelError(
            f"torch cannot write the {path.stem} tower of {model} as ONNX: "
            f"{type(error).__name__}: {reason}"
        ) from error


@torch.no_grad()
def _check(tower: nn.Module, example: Tensor, name: str, path: Path) -> None:
    """Onnxruntime's features of one and of several inputs are torch's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in _SIZES:
        expected = tower(example[:count])
        found = torch.from_numpy(session.run(None, {name: example[:count].numpy()})[0])
        error = float((found - expected).abs().max()) if found.shape == expected.shape else None
        if error is None or not error <= _TOLERANCE:
            raise ModelError(
                f"onnxruntime computes other features from {path.name} than torch (largest "
                f"difference {error}), so nothing was written. Please report this with the "
                "model's configuration."
            )


def _about(model: LoadedModel, names: dict[str, str]) -> dict[str, Any]:
    text_cfg = model.config["model_cfg"]["text_cfg"]
    own = text_cfg.get("hf_tokenizer_name") or "open_clip.SimpleTokenizer"
    return {
        "schema_version": SCHEMA_VERSION,
        "model": model.name,
        "model_sha256": model.sha256,
        "embed_dim": model.embed_dim,
        "image": {"file": "image.onnx", "input": names["image"], "output": "features"},
        "text": {"file": "text.onnx", "input": names["text"], "output": "features"},
        "preprocess": {
            **model.config["preprocess_cfg"],
            "size": list(model.image_size),
            "scale": "pixel / 255, less mean, divided by std; RGB, channels first",
        },
        "tokenizer": {
            "name": own,
            "context_length": model.context_length,
            "kwargs": text_cfg.get("tokenizer_kwargs") or {},
        },
        "logit_scale": float(model.logit_scale),
        "logit_bias": 0.0 if model.logit_bias is None else float(model.logit_bias),
    }


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as its formula: the fused path of torch's encoder has no ONNX operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter's own remarks on its insides are of no use to a person who exports a model."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
