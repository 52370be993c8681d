"""The formats that a model is written in: open_clip's own, transformers', ONNX."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipalign.errors import UsageError, near_matches

if TYPE_CHECKING:
    from clipalign.models.card import Card
    from clipalign.models.loaded import LoadedModel

__all__ = [
    "DTYPES",
    "FORMATS",
    "beside",
    "check_dtype",
    "check_format",
    "parse_format",
    "write_model",
]

FORMATS = ("open_clip", "transformers", "onnx")
DTYPES = ("fp32", "fp16", "bf16")
"""Of the weights of an open_clip directory on the disk."""


def parse_format(text: str) -> str:
    """One of FORMATS; "hf" and "open-clip" are understood. Imports no torch.

    Raises:
        UsageError: it is none.
    """
    name = {"hf": "transformers", "open-clip": "open_clip"}.get(text.lower(), text.lower())
    if name not in FORMATS:
        raise UsageError(f"Unknown format {text!r}.{near_matches(name, FORMATS)}")
    return name


def check_dtype(dtype: str, form: str) -> None:
    """Refuse a dtype that there is not, or that a format does not take. Imports no torch.

    Raises:
        UsageError: so it is.
    """
    if dtype not in DTYPES:
        raise UsageError(f"Unknown dtype {dtype!r} to export in.{near_matches(dtype, DTYPES)}")
    if dtype != "fp32" and form != "open_clip":
        raise UsageError(f"The format {form} is written in fp32: {dtype} is for open_clip alone.")


def check_format(config: Mapping[str, Any], form: str) -> None:
    """Refuse a format that cannot hold a model, or whose package is missing, before any work.

    Args:
        config: `model_cfg` and `preprocess_cfg`.
        form: one of FORMATS.

    Raises:
        ModelError: the format cannot hold this architecture.
        UsageError: a package is not installed.
    """
    if form == "transformers":
        from clipalign.models.transformers_format import check_transformers

        check_transformers(config)
    elif form == "onnx":
        from clipalign.models.onnx_format import check_onnx

        check_onnx()


def write_model(
    model: LoadedModel,
    directory: str | os.PathLike[str],
    form: str = "open_clip",
    *,
    card: Card | None = None,
    dtype: str = "fp32",
) -> Path:
    """Write a model in one of the formats, with its card; whole or not at all.

    Args:
        model: what to write.
        directory: where to; an earlier model of the same format there is replaced.
        form: one of FORMATS.
        card: for README.md; None for one that says only what the model itself tells.
        dtype: on the disk, for open_clip.

    Returns:
        The directory, absolute.

    Raises:
        ModelError: the format cannot hold the model.
        StorageError: it cannot be written, or the directory holds something else.
        UsageError: a package is not installed.
    """
    from clipalign.models.export import card_text, export_model, new_directory

    if form == "open_clip":
        return export_model(model, directory, card=card, dtype=dtype)
    check_format(model.config, form)
    target = Path(os.path.abspath(directory))
    if form == "transformers":
        from clipalign.models.spec import HF_CONFIG_NAME as marker
        from clipalign.models.transformers_format import write_transformers as write
    else:
        from clipalign.models.onnx_format import ONNX_CONFIG_NAME as marker
        from clipalign.models.onnx_format import write_onnx as write
    with new_directory(target, marker) as new:
        write(model, new)
        (new / "README.md").write_text(card_text(model, card, form, target), encoding="utf-8")
    return target


def beside(directory: str | os.PathLike[str], form: str) -> Path:
    """Where another format of an open_clip directory goes: RUN/model-transformers."""
    path = Path(directory)
    return path.with_name(f"{path.name}-{form}")
