"""Checkpoints: everything that the next step depends on, complete on disk or not there at all.

A checkpoint is a directory `checkpoints/step-000123` of safetensors and JSON. It is written under
another name and renamed when it is whole; each file's sha256 is in `state.json`, so that a flipped
byte is noticed before it is used.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from clipalign.errors import RunError
from clipalign.files import (
    atomic_write_bytes,
    parse_json,
    read_regular,
    sha256_bytes,
    storage_errors,
)

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` optimiser steps: groups of tensors by name, and plain values."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    plain: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write a checkpoint and drop all but the newest `keep`.

    Raises:
        StorageError: it cannot be written; earlier checkpoints are untouched.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    with storage_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            hashes = {}
            for group, tensors in checkpoint.tensors.items():
                data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
                atomic_write_bytes(temporary / f"{group}.safetensors", data)
                hashes[group] = sha256_bytes(data)
            state = {
                "schema_version": SCHEMA_VERSION,
                "step": checkpoint.step,
                "sha256": hashes,
                "plain": checkpoint.plain,
            }
            body = json.dumps(state, sort_keys=True, allow_nan=True)
            sealed = {"state": state, "sha256": sha256_bytes(body.encode())}
            text = json.dumps(sealed, indent=1, sort_keys=True, allow_nan=True)
            atomic_write_bytes(temporary / "state.json", text.encode())
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for old in _found(folder)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    return final


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step; None when there is none."""
    found = _found(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, proving that no byte of it changed.

    Raises:
        RunError: it is damaged or of another version; the message names the file.
    """
    try:
        sealed = parse_json(read_regular(path / "state.json"))
        state = sealed["state"]
        body = json.dumps(state, sort_keys=True, allow_nan=True)
        if sealed["sha256"] != sha256_bytes(body.encode()):
            raise _damaged(path / "state.json")
        if state["schema_version"] != SCHEMA_VERSION:
            raise RunError(
                f"{path} was written by another version of clipalign: its schema is "
                f"{state['schema_version']}, this one reads {SCHEMA_VERSION}. Resume with that one."
            )
        tensors = {}
        for group, expected in state["sha256"].items():
            data = read_regular(path / f"{group}.safetensors")
            if sha256_bytes(data) != expected:
                raise _damaged(path / f"{group}.safetensors")
            tensors[group] = load(data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path / "state.json", error) from None
    return Checkpoint(int(state["step"]), tensors, state["plain"])


def _damaged(path: Path, error: Exception | None = None) -> RunError:
    reason = f" ({type(error).__name__}: {error})" if error else ""
    return RunError(
        f"{path} is damaged{reason}: it is not what was written. Remove {path.parent} to go on "
        "from the checkpoint before it, or from the start."
    )


def _found(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if re.fullmatch(r"step-\d{8}", p.name))


def flatten_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state_dict as tensors ("3/exp_avg") and plain values."""
    tensors, plain = {}, {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{key}"] = value
            else:
                plain[f"{index}/{key}"] = value
    return tensors, {"state": plain, "param_groups": state["param_groups"]}


def unflatten_optimizer(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> dict[str, Any]:
    """The state_dict that `flatten_optimizer` took apart."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *plain["state"].items()]:
        index, _, key = name.partition("/")
        # load_state_dict casts to the parameter's dtype, but counters must stay as they are
        state.setdefault(int(index), {})[key] = value.clone() if torch.is_tensor(value) else value
    return {"state": state, "param_groups": plain["param_groups"]}
