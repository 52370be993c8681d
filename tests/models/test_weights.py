"""Pickled checkpoints: weights are taken, code is not run, and the difference is proved."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipalign.errors import ModelError
from clipalign.models.load import load_model
from clipalign.models.weights import read_weights


class Trap:
    """Unpickling one makes a file: what a hostile checkpoint does with more harm."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def folder(model_directory, tmp_path):
    """A tiny model's directory without its weights, and the weights."""
    copy = shutil.copytree(model_directory("vit"), tmp_path / "vit")
    state = load_file(copy / "open_clip_model.safetensors")
    (copy / "open_clip_model.safetensors").unlink()
    return copy, state


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": state},  # as open_clip's trainings write
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    ],
)
def test_a_pickle_of_weights_alone_is_the_same_model(folder, tiny, wrap):
    directory, state = folder
    torch.save(wrap(state), directory / "epoch_3.pt")
    assert load_model(directory / "epoch_3.pt").sha256 == tiny("vit").sha256
    assert load_model(directory).sha256 == tiny("vit").sha256  # the directory's only weights


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_never_runs(folder, tmp_path, zipped):
    directory, state = folder
    trap = tmp_path / "sprung"
    torch.save(
        {"state_dict": state, "note": Trap(trap)},
        directory / "model.pt",
        _use_new_zipfile_serialization=zipped,
    )
    for spec in (directory, directory / "model.pt"):
        with pytest.raises(ModelError, match=r"pickled checkpoint.*not (opened|read)"):
            load_model(spec)
    assert not trap.exists()


def test_a_pickle_that_holds_no_weights_says_so(folder):
    directory, _ = folder
    for content, words in (({"lr": 0.1}, "'lr' is no tensor"), ([torch.ones(1)], "no weights")):
        torch.save(content, directory / "model.pt")
        with pytest.raises(ModelError, match=words):
            load_model(directory)


def test_a_pickle_needs_its_configuration_and_the_right_shapes(folder, tmp_path):
    directory, state = folder
    torch.save(state, tmp_path / "lone.pt")
    with pytest.raises(ModelError, match="does not say which architecture"):
        load_model(tmp_path / "lone.pt")
    torch.save(state | {"visual.proj": torch.ones(2, 2)}, directory / "model.pt")
    with pytest.raises(ModelError, match=r"visual.proj is \[2, 2\] in the file"):
        load_model(directory)


def test_weights_in_several_files_are_read_by_their_index(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "1.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    assert set(read_weights(index)) == {"a", "b"}
    index.write_text(json.dumps({"weight_map": {"a": "../1.safetensors"}}))
    with pytest.raises(ModelError, match="no file beside it"):
        read_weights(index)
