"""transformers' CLIP directories, both ways, against transformers itself."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from clipalign.errors import ModelError, UsageError
from clipalign.models.export import export_model
from clipalign.models.formats import write_model
from clipalign.models.load import load_model
from clipalign.models.spec import parse_model_spec
from clipalign.models.transformers_names import obstacles

transformers = pytest.importorskip("transformers")

TEXTS = ["a photo of an apple", "a note that says iPod", "don't 3 times!", "ok"]
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 16}  # fmt: skip
VISION = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
          "num_attention_heads": 3, "image_size": 32, "patch_size": 8}  # fmt: skip


@pytest.fixture(scope="module")
def make_theirs(tmp_path_factory):
    """A directory that transformers wrote, and its model: `make_theirs(hidden_act="gelu")`."""

    def make(**act):
        config = transformers.CLIPConfig(
            text_config=TEXT | act, vision_config=VISION | act, projection_dim=24
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            clip = transformers.CLIPModel(config).eval()
            for parameter in clip.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
        directory = tmp_path_factory.mktemp("theirs")
        clip.save_pretrained(directory)
        return directory, clip

    return make


@pytest.fixture(scope="module")
def theirs(make_theirs):
    return make_theirs()


def logits(clip, model, pixels):
    with torch.no_grad():
        return clip(input_ids=model.tokenize(TEXTS), pixel_values=pixels).logits_per_image


def own_logits(model, pixels):
    with torch.no_grad():
        return model.clip.get_logits(pixels, model.tokenize(TEXTS))[0]


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_what_transformers_wrote_has_the_same_logits_here(make_theirs, pixels_for, act):
    directory, clip = make_theirs(hidden_act=act)
    model = load_model(directory)
    assert model.spec.kind == parse_model_spec(f"hf-dir:{directory}").kind == "transformers"
    assert model.config["model_cfg"]["quick_gelu"] == (act == "quick_gelu")
    pixels = pixels_for(model)
    torch.testing.assert_close(
        own_logits(model, pixels), logits(clip, model, pixels), rtol=1e-5, atol=1e-5
    )


def test_the_way_there_and_back_loses_no_bit(theirs, tmp_path):
    directory, clip = theirs
    model = load_model(directory)
    again = write_model(model, tmp_path / "again", "transformers")
    state = transformers.CLIPModel.from_pretrained(again).state_dict()
    assert state.keys() == clip.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in clip.state_dict().items())
    assert load_model(again).sha256 == model.sha256
    assert load_model(export_model(model, tmp_path / "open_clip")).sha256 == model.sha256


@pytest.mark.parametrize("name", ["vit", "quickgelu"])
def test_an_exported_model_has_the_same_logits_tokens_and_pixels_there(
    tiny, pixels_for, photo, tmp_path, name
):
    model = tiny(name)
    directory = write_model(model, tmp_path / "out", "transformers")
    clip = transformers.CLIPModel.from_pretrained(directory).eval()
    pixels = pixels_for(model)
    torch.testing.assert_close(
        logits(clip, model, pixels), own_logits(model, pixels), rtol=1e-5, atol=1e-5
    )
    tokenizer = transformers.CLIPTokenizer.from_pretrained(directory)
    for text, row in zip(TEXTS, model.tokenize(TEXTS).tolist(), strict=True):
        assert tokenizer(text).input_ids == row[: row.index(49407) + 1]
    processor = transformers.CLIPImageProcessor.from_pretrained(directory)
    theirs = processor(photo, return_tensors="pt").pixel_values[0]
    difference = (theirs - model.preprocess(photo)).abs()
    assert theirs.shape == (3, *model.image_size)
    # Their resize rounds otherwise than PIL's: by a step of 1/255 or so, over a std of 0.2.
    assert difference.max() < 0.05
    assert (directory / "README.md").read_text().count("CLIPModel.from_pretrained") == 1


def test_both_resize_modes_come_back(tiny, tmp_path):
    model = tiny("vit")
    for mode in ("squash", "shortest"):
        model.config["preprocess_cfg"].update(resize_mode=mode, interpolation="bicubic")
        directory = write_model(model, tmp_path / mode, "transformers")
        found = load_model(directory).config["preprocess_cfg"]
        assert (found["resize_mode"], found["interpolation"]) == (mode, "bicubic")
        np.testing.assert_allclose(found["mean"], model.config["preprocess_cfg"]["mean"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet", "a ResNet image tower"),
        ("timm", "timm image tower test_convnext"),
        ("siglip", "a logit bias"),
        ("wide", "not square"),
        ("custom-text", "proj_type=none in the text tower"),
    ],
)
def test_what_it_cannot_hold_is_refused_and_nothing_written(tiny, tmp_path, name, words):
    with pytest.raises(ModelError, match=words):
        write_model(tiny(name), tmp_path / "out", "transformers")
    assert list(tmp_path.iterdir()) == []


def test_a_custom_text_tower_of_the_same_arithmetic_is_no_obstacle(tiny, tmp_path, pixels_for):
    model = tiny("vit")
    config = {**model.config, "model_cfg": {**model.config["model_cfg"], "custom_text": True}}
    assert obstacles(config) == []
    state = {
        name if name.startswith(("visual.", "logit")) else f"text.{name}": tensor
        for name, tensor in model.clip.state_dict().items()
    }
    custom = model.rebuilt(state, config)
    directory = write_model(custom, tmp_path / "out", "transformers")
    clip = transformers.CLIPModel.from_pretrained(directory).eval()
    pixels = pixels_for(model)
    torch.testing.assert_close(
        logits(clip, model, pixels), own_logits(model, pixels), rtol=1e-5, atol=1e-5
    )


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's copies on this disk, which is all that can be reached: `hub(directory)`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def keep(directory):
        import shutil

        kept, commit = tmp_path / "hub" / "models--org--clip", "0" * 40
        shutil.copytree(directory, kept / "snapshots" / commit)
        (kept / "refs").mkdir()
        (kept / "refs" / "main").write_text(commit)

    return keep


def test_a_model_of_transformers_on_the_hub(theirs, hub, pixels_for):
    directory, clip = theirs
    hub(directory)
    model = load_model("hf-hub:org/clip")
    pixels = pixels_for(model)
    torch.testing.assert_close(
        own_logits(model, pixels), logits(clip, model, pixels), rtol=1e-5, atol=1e-5
    )


def test_one_that_cannot_be_computed_is_refused_before_its_weights_are_fetched(
    theirs, hub, tmp_path
):
    copy = changed(theirs[0], tmp_path, "config.json", model_type="siglip")
    (copy / "model.safetensors").unlink()
    hub(copy)
    with pytest.raises(ModelError, match=r"config\.json of hf-hub:org/clip describes a siglip"):
        load_model("hf-hub:org/clip")


def test_what_the_hub_has_not_is_said_by_its_name(hub):
    with pytest.raises(ModelError, match="hf-hub:org/nothing could not be downloaded"):
        load_model("hf-hub:org/nothing")


def test_a_hub_that_does_not_answer_is_asked_once_and_its_client_is_silent(monkeypatch):
    import logging

    import open_clip
    from huggingface_hub.errors import LocalEntryNotFoundError

    said, asked = [], []
    logger = logging.getLogger("huggingface_hub")
    handler = logging.Handler()
    handler.emit = said.append
    monkeypatch.setattr(logger, "handlers", [handler])

    def download(name, **_):
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 8s")
        try:
            raise LocalEntryNotFoundError("no route")
        except LocalEntryNotFoundError as error:
            raise FileNotFoundError(f"Failed to download {name}: {error}")  # noqa: B904

    def look(name, file, *, local_files_only):
        asked.append(local_files_only)
        raise LocalEntryNotFoundError("not kept")

    monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_hf", download)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", look)
    level, heard = logger.level, []
    with pytest.raises(ModelError, match="hf-hub:org/far could not be downloaded"):
        load_model("hf-hub:org/far", announce=heard.append)
    assert (said, asked) == ([], [True])
    assert "Fetching hf-hub:org/far, where it is not in the cache…" in heard
    assert logger.level == level


def changed(directory, tmp_path, file, **keys):
    """A copy of a directory with other values in one of its JSON files."""
    import shutil

    copy = shutil.copytree(directory, tmp_path / "copy", dirs_exist_ok=True)
    content = json.loads((copy / file).read_text()) if (copy / file).exists() else {}
    for key, value in keys.items():
        inner, _, last = key.rpartition("__")
        (content[inner] if inner else content)[last] = value
    (copy / file).write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize(
    ("file", "keys", "words"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "code of its own"),
        ("config.json", {"model_type": "siglip"}, "in timm's own sizes.*ViT-B-16-SigLIP/webli"),
        ("config.json", {"model_type": "blip"}, "only 'clip' is read"),
        ("config.json", {"text_config__hidden_act": "gelu"}, "activation gelu and quick_gelu"),
        ("config.json", {"vision_config__layer_norm_eps": 1e-6}, "layer_norm_eps"),
        ("config.json", {"text_config__eos_token_id": 5}, "end with token 5"),
        ("config.json", {"vision_config__hidden_size": 40}, "does not fit|cannot build"),
        ("config.json", {"text_config": 3}, "is damaged"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 64}}, "prepares images in a way"),
        ("preprocessor_config.json", {"resample": 1}, "prepares images in a way"),
        ("vocab.json", {"hello": 0}, "not CLIP's own vocabulary"),
    ],
)
def test_what_open_clip_cannot_compute_is_refused(theirs, tmp_path, file, keys, words):
    with pytest.raises(ModelError, match=words):
        load_model(changed(theirs[0], tmp_path, file, **keys))


def test_code_in_a_directory_is_never_imported(theirs, tmp_path):
    copy = changed(theirs[0], tmp_path, "config.json", auto_map={"AutoModel": "evil.Model"})
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Model: pass\n")
    with pytest.raises(ModelError):
        load_model(copy)
    assert not (tmp_path / "ran").exists()
    assert "evil" not in sys.modules


def test_activations_of_two_configurations_must_agree(model_directory, theirs, tmp_path):
    import shutil

    copy = shutil.copytree(model_directory("vit"), tmp_path / "both")
    shutil.copy(theirs[0] / "config.json", copy)  # quick_gelu
    with pytest.raises(ModelError, match="quick_gelu=True"):
        load_model(copy)
    config = json.loads((copy / "config.json").read_text())
    for tower in ("text_config", "vision_config"):
        config[tower]["hidden_act"] = "gelu"
    (copy / "config.json").write_text(json.dumps(config))
    assert load_model(copy).spec.kind == "directory"


def test_without_transformers_reading_works_and_writing_says_how(theirs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    model = load_model(theirs[0])
    with pytest.raises(UsageError, match=r"pip install 'clipalign\[transformers\]'"):
        write_model(model, tmp_path / "out", "transformers")


def test_a_directory_without_a_configuration_is_no_hf_dir(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        parse_model_spec(f"hf-dir:{tmp_path}")
