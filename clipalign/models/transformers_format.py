"""Reading and writing directories of transformers' CLIPModel (extra "transformers").

Reading needs no transformers: config.json, preprocessor_config.json, the vocabulary and the weights
are read as data, and nothing in the directory is run. Writing uses it, to write its own files and
to prove that it computes what open_clip computes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clipalign.errors import ModelError, UsageError
from clipalign.files import parse_json, read_regular
from clipalign.models.library import open_clip_module
from clipalign.models.transformers_names import (
    VOCABULARY,
    obstacles,
    open_clip_model_cfg,
    to_transformers,
    transformers_config,
)

if TYPE_CHECKING:
    from clipalign.models.loaded import LoadedModel

__all__ = ["check_transformers", "read_json", "read_transformers_config", "write_transformers"]

_RESAMPLE = {2: "bilinear", 3: "bicubic"}
_TOLERANCE = 1e-4
"""Of logits, relative to the largest: what float32 leaves two orders of the same sums."""


def read_transformers_config(directory: Path) -> dict[str, Any]:
    """`model_cfg` and `preprocess_cfg` of a directory that transformers wrote.

    Raises:
        ModelError: it is no CLIP that open_clip can compute, or cuts texts into other tokens.
    """
    path = directory / "config.json"
    model_cfg = open_clip_model_cfg(read_json(path), str(path))
    _check_vocabulary(directory)
    side = model_cfg["vision_cfg"]["image_size"]
    image = directory / "preprocessor_config.json"
    if not image.is_file():  # newer files keep it inside another
        image = directory / "processor_config.json"
    given = read_json(image) if image.is_file() else {}
    preprocess = _preprocess(given.get("image_processor", given), side, image)
    return {"model_cfg": model_cfg, "preprocess_cfg": preprocess}


def check_transformers(config: Mapping[str, Any]) -> None:
    """Refuse what cannot be written, before anything is trained or written.

    Raises:
        ModelError: transformers' CLIPModel cannot compute this model.
        UsageError: transformers is not installed.
    """
    if found := obstacles(config):
        raise ModelError(
            f"transformers' CLIPModel cannot hold this model: it has {'; '.join(found)}. Export it "
            "as open_clip or onnx."
        )
    _transformers()


def write_transformers(model: LoadedModel, directory: Path) -> None:
    """Write config.json, model.safetensors, the image processor's and the tokeniser's files.

    Args:
        model: an open_clip CLIP with a plain ViT.
        directory: an empty directory.

    Raises:
        ModelError: transformers' CLIPModel cannot compute it, or computes something else.
        UsageError: transformers is not installed.
    """
    check_transformers(model.config)
    transformers = _transformers()
    log_scale = float(model.logit_scale.log())
    settings = transformers_config(model.config["model_cfg"], log_scale)
    theirs = transformers.CLIPModel(transformers.CLIPConfig(**settings)).eval()
    state = to_transformers({n: t.detach().cpu() for n, t in model.clip.state_dict().items()})
    try:
        theirs.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ModelError(f"transformers' CLIPModel does not take these weights: {error}") from error
    _check_logits(model, theirs)
    with _without_progress(transformers):
        theirs.save_pretrained(directory, safe_serialization=True)
    transformers.CLIPImageProcessor(**_processor(model)).save_pretrained(directory)
    _write_vocabulary(directory, model.context_length)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UsageError(
            "Writing a transformers directory needs the package transformers. Install it with: "
            "pip install 'clipalign[transformers]'"
        ) from error
    return transformers


def _without_progress(transformers: Any) -> Any:
    """Silence the bar that it draws on standard error while it writes."""
    import contextlib

    logging = transformers.utils.logging

    @contextlib.contextmanager
    def silent() -> Any:
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            if shown:
                logging.enable_progress_bar()

    return silent()


@torch.no_grad()
def _check_logits(model: LoadedModel, theirs: Any) -> None:
    """Both must give the same logits of random pixels and a few texts."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 3, *model.image_size, generator=generator)
    tokens = model.tokenize(["a photo of a cat", "words"])
    clip = model.rebuilt(model.clip.state_dict()).clip.cpu() if model.device.type != "cpu" else (
        model.clip
    )  # fmt: skip
    ours: Tensor = clip.get_logits(pixels, tokens)[0]
    other = theirs(input_ids=tokens, pixel_values=pixels).logits_per_image
    error = float((ours - other).abs().max() / ours.abs().max().clamp(min=1))
    if not error <= _TOLERANCE:
        raise ModelError(
            f"transformers computes other logits for this model (relative error {error:.1e}), so "
            "nothing was written. Please report this with the model's configuration."
        )


# --- Preprocessing ------------------------------------------------------------------------------


def _preprocess(given: Mapping[str, Any], side: int, path: Path) -> dict[str, Any]:
    """open_clip's preprocess_cfg of a CLIPImageProcessor's configuration."""
    try:
        size = given.get("size", side)
        size = {"shortest_edge": size} if isinstance(size, int) else dict(size)
        crop = given.get("crop_size", side)
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else dict(crop)
        cropped = given.get("do_center_crop", True)
        rescale = given.get("rescale_factor", 1 / 255)
        resample = _RESAMPLE.get(given.get("resample", 3))
        known = given.get("do_resize", True) and given.get("do_rescale", True) and resample
        square = {"height": side, "width": side}
        if size == {"shortest_edge": side} and cropped and crop == square:
            mode = "shortest"
        elif size == square and (not cropped or crop == square):
            mode = "squash"
        else:
            mode = ""
        if not known or not mode or abs(rescale - 1 / 255) > 1e-9:
            raise ModelError(
                f"{path} prepares images in a way that open_clip has not: size {size}, crop "
                f"{crop if cropped else 'none'}, resample {given.get('resample', 3)}, for a tower "
                f"of {side} pixels."
            )
        normalised = given.get("do_normalize", True)
        constants = open_clip_module().constants
        mean = given.get("image_mean") or constants.OPENAI_DATASET_MEAN
        std = given.get("image_std") or constants.OPENAI_DATASET_STD
        return {
            "size": side,
            "mode": "RGB",
            "mean": [float(v) for v in mean] if normalised else [0.0] * 3,
            "std": [float(v) for v in std] if normalised else [1.0] * 3,
            "interpolation": resample,
            "resize_mode": mode,
            "fill_color": 0,
        }
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _processor(model: LoadedModel) -> dict[str, Any]:
    """The keyword arguments of CLIPImageProcessor."""
    preprocess, side = model.config["preprocess_cfg"], model.image_size[0]
    square, shortest = {"height": side, "width": side}, preprocess["resize_mode"] == "shortest"
    return {
        "do_resize": True,
        "size": {"shortest_edge": side} if shortest else square,
        "do_center_crop": shortest,
        "crop_size": square,
        "resample": {name: n for n, name in _RESAMPLE.items()}[preprocess["interpolation"]],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess["mean"]),
        "image_std": list(preprocess["std"]),
        "do_convert_rgb": True,
    }


# --- Tokens -------------------------------------------------------------------------------------


def _vocabulary() -> tuple[dict[str, int], list[str]]:
    """CLIP's tokens and merges as transformers writes them."""
    tokenizer = open_clip_module().SimpleTokenizer()
    marks = {VOCABULARY - 2: "<|startoftext|>", VOCABULARY - 1: "<|endoftext|>"}
    tokens = {marks.get(number, token): number for token, number in tokenizer.encoder.items()}
    ranks = sorted(tokenizer.bpe_ranks.items(), key=lambda item: item[1])
    return tokens, [" ".join(pair) for pair, _ in ranks]


def _check_vocabulary(directory: Path) -> None:
    """The directory's tokeniser is CLIP's own, which open_clip brings along; or it has none."""
    found: Any = None
    if (directory / "tokenizer.json").is_file():
        path = directory / "tokenizer.json"
        found = read_json(path).get("model", {}).get("vocab")
    elif (directory / "vocab.json").is_file():
        path = directory / "vocab.json"
        found = read_json(path)
    if found is not None and found != _vocabulary()[0]:
        raise ModelError(
            f"{path} is not CLIP's own vocabulary of {VOCABULARY} tokens, and no other is read from"
            " a transformers directory."
        )


def _write_vocabulary(directory: Path, context_length: int) -> None:
    tokens, merges = _vocabulary()
    about = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": context_length,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (directory / "vocab.json").write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")
    (directory / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8"
    )
    (directory / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ModelError: it cannot be read, or is no object.
    """
    try:
        found = parse_json(read_regular(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} is not a JSON object.")
    return found
