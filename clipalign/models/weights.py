"""Files of weights: what is in them, and reading them without running anything.

Safetensors hold tensors and nothing else. A pickle (.pt, .bin, …) can hold code that runs when it
is opened, so it goes through `torch.load(weights_only=True)`, which builds tensors and plain
containers and stops at anything else before it acts. What that does not take is refused: there is
no other way to open one.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from clipalign.errors import ModelError
from clipalign.files import parse_json, read_regular
from clipalign.models.spec import PICKLES, WEIGHTS_NAME, check_archive

__all__ = ["inspect_weights", "read_weights", "weights_in"]

_NAMES = (WEIGHTS_NAME, "open_clip_pytorch_model.safetensors", "model.safetensors")
_INDEX = "model.safetensors.index.json"


def weights_in(directory: Path, *, parts: bool = False) -> Path:
    """The file of weights of a directory: open_clip's names first, pickles last.

    Args:
        directory: where to look.
        parts: whether the index of weights in several files will do, as transformers writes it.

    Raises:
        ModelError: there is none, or more than one that could be meant.
    """
    for name in (*_NAMES, *([_INDEX] if parts else [])):
        if (directory / name).is_file():
            return directory / name
    found = sorted(directory.glob("*.safetensors")) or sorted(
        file for file in directory.iterdir() if file.suffix.lower() in PICKLES and file.is_file()
    )
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise ModelError(f"{directory} has several checkpoints ({names}): name one of the files.")
    raise ModelError(f"{directory} has no {WEIGHTS_NAME}, and no other file of weights.")


def inspect_weights(path: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Shapes of the tensors, and the file's metadata, without the weights themselves.

    Raises:
        ModelError: it is damaged, or a pickle that holds more than weights.
    """
    if path.suffix.lower() in PICKLES:
        tensors = _unpickled(path, "meta")
        return {name: list(tensor.shape) for name, tensor in tensors.items()}, {}
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            return shapes, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is not a sound safetensors file: {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors by name, on the CPU; all parts where the file is the index of several.

    Raises:
        ModelError: it is damaged, or a pickle that holds more than weights.
    """
    if path.suffix.lower() in PICKLES:
        return _unpickled(path, "cpu")
    try:
        files = _parts(path) if path.name == _INDEX else [path]
        tensors: dict[str, Tensor] = {}
        for file in files:
            tensors |= load_file(file)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    return tensors


def _parts(index: Path) -> list[Path]:
    """The files that an index names. Only names: a path could lead out of the directory."""
    names = set(parse_json(read_regular(index))["weight_map"].values())
    if wrong := [name for name in names if Path(name).name != name]:
        raise ValueError(f"it names {wrong[0]!r}, which is no file beside it")
    return [index.parent / name for name in sorted(names)]


def _unpickled(path: Path, device: str) -> dict[str, Tensor]:
    """A pickle's tensors; those of "state_dict" where a training wrote more beside them."""
    check_archive(path)
    try:
        found: Any = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        reason = str(error).split("\n")[0][:200]
        raise ModelError(
            f"{path} is a pickled checkpoint ({path.suffix}) that holds more than weights, or is "
            "damaged. Opening such a file can run code that somebody hid in it, so it was not "
            f"opened. Convert it to .safetensors where you trust its source. ({reason})"
        ) from error
    except (OSError, EOFError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise ModelError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not found:
        raise ModelError(f"{path} holds no weights: a dictionary of tensors by name is wanted.")
    if wrong := [key for key, value in found.items() if not isinstance(value, Tensor)]:
        raise ModelError(
            f"{path} holds more than weights: {wrong[0]!r} is no tensor. Save the state_dict alone."
        )
    plain = {str(key): value for key, value in found.items()}
    wrapped = all(key.startswith("module.") for key in plain)  # as DistributedDataParallel names
    return {key.removeprefix("module.") if wrapped else key: v for key, v in plain.items()}
