"""A run's head on its reference: what the reference encoded need not be encoded again."""

from __future__ import annotations

import json

import torch

from clipalign.errors import ModelError
from clipalign.models.linear_map import LinearMap, TowerMap, folded_state
from clipalign.models.loaded import LoadedModel
from clipalign.training.rundir import RunDirectory

__all__ = ["head_on"]


def head_on(model: LoadedModel, base: LoadedModel) -> LinearMap | None:
    """W, where a model is that of a run which trained a head on another model.

    W · I of the base's features, normalised, are then the model's, to the rounding of float32. It
    is looked at and not believed that W folded into the base gives the model's weights, bit for
    bit. A model that was written elsewhere has no W beside it, and is encoded.

    Args:
        model: of the run.
        base: what it may have been trained on.
    """
    run = model.spec.run
    file = None if run is None else RunDirectory(run).linear_map
    if file is None or not file.is_file() or model.precision != base.precision:
        return None
    try:
        linear, _ = LinearMap.load(file)
        both = TowerMap(linear.weight)
        state, config = folded_state(base, image=both, text=both)
    except ModelError:  # of another base, or damaged: the model is sound without it, and encoded
        return None
    own = model.clip.state_dict()
    if state.keys() != own.keys() or _said(config) != _said(model.config):
        return None
    same = all(torch.equal(own[name].cpu(), tensor.cpu()) for name, tensor in state.items())
    return linear if same else None


def _said(config: dict[str, dict[str, object]]) -> str:
    """A configuration as a file of it would have it, where lists and tuples are alike."""
    return json.dumps(config, sort_keys=True, default=str)
