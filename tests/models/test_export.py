from __future__ import annotations

import json

import open_clip
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from clipalign.errors import ModelError, StorageError, UsageError
from clipalign.models import export
from clipalign.models.export import export_model
from clipalign.models.load import load_model
from clipalign.models.load_lines import open_clip_line

TEXTS = ["a photo of an apple", "a photo of an iPod"]


@pytest.mark.parametrize(
    "name", ["vit", "quickgelu", "wide", "resnet", "timm", "siglip", "custom-text"]
)
def test_open_clip_loads_what_was_exported(tiny, pixels_for, photo, tmp_path, name):
    model = tiny(name)
    directory = export_model(model, tmp_path / "run" / "model")
    plain, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{directory}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{directory}")
    assert torch.equal(preprocess(photo), model.preprocess(photo))
    assert torch.equal(tokenizer(TEXTS), model.tokenize(TEXTS))
    pixels = pixels_for(model)
    with torch.no_grad():
        logits = model.clip.get_logits(pixels, model.tokenize(TEXTS))[0]
        theirs = plain.eval().get_logits(pixels, tokenizer(TEXTS))[0]
    torch.testing.assert_close(theirs, logits, rtol=1e-5, atol=1e-5)


def test_the_printed_line_is_the_call_that_loads_it(tiny, photo, tmp_path):
    model = tiny("vit")
    directory = export_model(model, tmp_path / "it's a model")
    names = {"open_clip": open_clip}
    exec(open_clip_line(directory), names)
    loaded = names["model"].state_dict()
    assert loaded.keys() == model.clip.state_dict().keys()
    assert all(torch.equal(loaded[name], own) for name, own in model.clip.state_dict().items())
    assert names["preprocess"](photo).shape == (3, *model.image_size)


def test_an_export_of_an_export_is_the_same_model(tiny, tmp_path):
    model = tiny("resnet")
    first = export_model(model, tmp_path / "a")
    second = export_model(load_model(first), tmp_path / "b")
    for file in ("open_clip_config.json", "open_clip_model.safetensors"):
        assert (first / file).read_bytes() == (second / file).read_bytes()
    assert load_model(first / "open_clip_model.safetensors").sha256 == model.sha256


def test_other_weights_can_be_written_in_the_place_of_the_models_own(tiny, tmp_path):
    model = tiny("vit")
    averaged = {"visual.proj": model.clip.visual.proj.detach() * 0.5}
    directory = export_model(model, tmp_path / "model", state=averaged)
    written = load_model(directory).clip.state_dict()
    assert torch.equal(written["visual.proj"], averaged["visual.proj"])
    assert torch.equal(written["logit_scale"], model.clip.logit_scale)
    for wrong in ({"visual.prj": torch.ones(1)}, {"visual.proj": torch.ones(2, 2)}):
        with pytest.raises(ModelError, match="do not fit"):
            export_model(model, tmp_path / "wrong", state=wrong)
    assert not (tmp_path / "wrong").exists()


def test_half_the_bytes_if_asked(tiny, tmp_path):
    directory = export_model(tiny("resnet"), tmp_path / "half", dtype="fp16")
    state = load_file(directory / "open_clip_model.safetensors")
    kinds = {t.dtype for n, t in state.items() if "num_batches" not in n and t.numel() > 1}
    assert kinds == {torch.float16}
    assert state["visual.bn1.num_batches_tracked"].dtype == torch.int64
    assert load_model(directory).clip.visual.conv1.weight.dtype == torch.float32
    with pytest.raises(UsageError, match="Did you mean 'fp16'"):
        export_model(tiny("vit"), tmp_path / "x", dtype="fp61")


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_the_temperature_and_the_bias_keep_all_their_digits(tiny, tmp_path, dtype):
    model = tiny("siglip")
    before = {name: getattr(model.clip, name).detach() for name in ("logit_scale", "logit_bias")}
    again = load_model(export_model(model, tmp_path / dtype, dtype=dtype)).clip
    assert all(getattr(again, name).equal(value) for name, value in before.items())


def test_a_broken_model_is_not_written(tiny, tmp_path):
    state = {"visual.proj": torch.full((32, 24), torch.nan)}
    with pytest.raises(ModelError, match=r"visual.proj holds values that are not finite"):
        export_model(tiny("vit"), tmp_path / "model", state=state)
    large = {"visual.proj": torch.full((32, 24), 1e6)}
    with pytest.raises(ModelError, match=r"not finite in torch.float16"):
        export_model(tiny("vit"), tmp_path / "model", state=large, dtype="fp16")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_export_is_replaced_whole(tiny, tmp_path):
    export_model(tiny("vit"), tmp_path / "model")
    (tmp_path / "model" / "stale.json").touch()
    export_model(tiny("resnet"), tmp_path / "model")
    names = sorted(file.name for file in (tmp_path / "model").iterdir())
    assert names == [
        "README.md", "SHA256SUMS", "open_clip_config.json", "open_clip_model.safetensors"
    ]  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    config = json.loads((tmp_path / "model" / "open_clip_config.json").read_text())
    assert config["model_cfg"]["vision_cfg"]["layers"] == [1, 1, 1, 1]


def test_a_directory_with_something_else_in_it_is_left_alone(tiny, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match="no open_clip model"):
        export_model(tiny("vit"), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(StorageError):
        export_model(tiny("vit"), tmp_path / "thesis.tex")


def test_a_full_disk_leaves_the_earlier_export(tiny, tmp_path, monkeypatch):
    directory = export_model(tiny("vit"), tmp_path / "model")
    before = (directory / "open_clip_model.safetensors").read_bytes()

    def full(*args, **kwargs):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(export, "save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        export_model(tiny("resnet"), directory)
    assert (directory / "open_clip_model.safetensors").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_tokenizer_of_its_own_goes_into_the_directory(tiny, tmp_path):
    model = tiny("vit")

    class Tokenizer:
        def save_pretrained(self, directory):
            (directory / "tokenizer.json").write_text("{}")

    model.tokenizer = Tokenizer()
    assert (export_model(model, tmp_path / "model") / "tokenizer.json").is_file()


def test_weights_that_share_memory_are_written_apart(tiny, tmp_path):
    model = tiny("vit")
    blocks = model.clip.visual.transformer.resblocks
    blocks[1].ln_1.weight = blocks[0].ln_1.weight
    directory = export_model(model, tmp_path / "model")
    state = load_file(directory / "open_clip_model.safetensors")
    assert len(state) == len(model.clip.state_dict())
