"""Writing a model as an ordinary open_clip directory: config, weights, preprocessing, card."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from clipalign.errors import ModelError, StorageError
from clipalign.files import canonical_json, storage_errors, write_sums
from clipalign.models.card import CARD_NAME, Card, render_card
from clipalign.models.formats import check_dtype
from clipalign.models.load_lines import load_lines
from clipalign.models.loaded import LoadedModel
from clipalign.models.spec import CONFIG_NAME, WEIGHTS_NAME, run_around
from clipalign.staging import staged

__all__ = ["card_text", "export_model", "new_directory"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def export_model(
    model: LoadedModel,
    directory: str | os.PathLike[str],
    *,
    state: Mapping[str, Tensor] | None = None,
    dtype: str = "fp32",
    card: Card | None = None,
    beside: Mapping[str, str] | None = None,
) -> Path:
    """Write a directory that `open_clip.create_model_and_transforms("local-dir:…")` loads.

    The directory appears whole or not at all; an earlier export in its place is replaced.

    Args:
        model: what to write; LoRA and head go through `TrainablePart.merge()` first.
        directory: where to.
        state: other weights of the same architecture (averaged ones), by open_clip's names.
        dtype: fp32, fp16 or bf16 on the disk; open_clip loads all of them as float32.
        card: for README.md; None for one that says only what the model itself tells.
        beside: more text files, by name, that appear with the model.

    Returns:
        The directory, absolute.

    Raises:
        ModelError: `state` has other tensors than the model, or a value is not finite.
        StorageError: it cannot be written, or the directory holds something else.
        UsageError: unknown dtype.
    """
    check_dtype(dtype, "open_clip")
    tensors = _plain_tensors(model, state, _DTYPES[dtype])
    text = json.dumps(model.config, indent=2) + "\n"
    # One entry: safetensors writes several in random order, and equal models must be equal bytes.
    metadata = {"open_clip_config": canonical_json(model.config).decode()}
    target = Path(os.path.abspath(directory))
    with new_directory(target, CONFIG_NAME) as new:
        (new / CONFIG_NAME).write_text(text, encoding="utf-8")
        if hasattr(model.tokenizer, "save_pretrained"):  # open_clip looks for it in the directory
            model.tokenizer.save_pretrained(new)
        try:
            save_file(tensors, new / WEIGHTS_NAME, metadata=metadata)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise StorageError(f"Cannot write {directory}: {error}") from error
        text = card_text(model, card, "open_clip", target)
        for name, content in {CARD_NAME: text, **(beside or {})}.items():
            (new / name).write_text(content, encoding="utf-8")
    return target


def card_text(model: LoadedModel, card: Card | None, form: str, target: Path) -> str:
    """README.md of a model that is written to `target`; see clipalign/models/card.py."""
    if card is None:
        title = (run_around(target) or target).name
        local = model.spec.path is not None and model.spec.kind != "embedded"
        base = model.name if local else str(model.spec)
        card = Card(title, base, f"Made from {base} by clipalign.")
    return render_card(card, form, load_lines(form))


def _plain_tensors(
    model: LoadedModel, state: Mapping[str, Tensor] | None, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Contiguous CPU tensors, none sharing memory with another (safetensors refuses that)."""
    own: dict[str, Any] = model.clip.state_dict()
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in {**own, **(state or {})}.items():
        if name not in own or tensor.shape != own[name].shape:
            raise ModelError(
                f"The weights to export do not fit {model.name}: {name} is {list(tensor.shape)}, "
                f"and the model has {list(own[name].shape) if name in own else 'no such tensor'}."
            )
        # a temperature or a bias is one number, and half of its digits would move every logit
        precision = torch.float32 if tensor.numel() == 1 else dtype
        plain = tensor.detach().to("cpu", precision if tensor.is_floating_point() else None)
        plain = plain.contiguous()
        if plain.is_floating_point() and not plain.isfinite().all():
            raise ModelError(
                f"{name} holds values that are not finite in {plain.dtype}: not exported."
            )
        storage = plain.untyped_storage().data_ptr()
        tensors[name] = plain.clone() if storage in seen else plain
        seen.add(storage)
    return tensors


@contextlib.contextmanager
def new_directory(target: Path, marker: str) -> Iterator[Path]:
    """A directory beside `target` that takes its place when the block ends without an exception.

    Args:
        target: absolute.
        marker: a file that a directory must have to be replaced: a model of the same format.

    Raises:
        StorageError: it cannot be written, or the directory holds something else.
    """
    with storage_errors(target):
        if target.exists() and not (target / marker).is_file() and _holds_anything(target):
            kind = "open_clip model" if marker == CONFIG_NAME else f"model with a {marker}"
            raise StorageError(
                f"Cannot write {target}: it exists and is no {kind}. Choose another "
                "directory, or remove it."
            )
    with staged(target, replace=True) as new:
        yield new
        with storage_errors(target):
            # but for the card, which later measurements go into
            write_sums(new, (f.name for f in new.iterdir() if f.is_file() and f.name != CARD_NAME))
            for file in (f for f in new.iterdir() if f.is_file()):
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())


def _holds_anything(path: Path) -> bool:
    return not path.is_dir() or any(path.iterdir())
