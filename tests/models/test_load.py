from __future__ import annotations

import json
import logging
import shutil

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from clipalign.errors import ModelError, UsageError
from clipalign.models import library, spec
from clipalign.models.load import load_model, open_clip_module

TEXTS = ["a photo of an apple", "a note that says iPod", "ok"]
ALL = ["vit", "quickgelu", "wide", "resnet", "timm", "siglip", "custom-text"]


@pytest.fixture
def copy_of(model_directory, tmp_path):
    """A copy of a tiny model's directory that the test may damage."""
    return lambda name: shutil.copytree(model_directory(name), tmp_path / name)


def change_config(directory, **text_cfg):
    path = directory / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"].update(text_cfg)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("name", ALL)
def test_logits_and_preprocessing_are_those_of_open_clip(model_directory, tiny, photo, name):
    theirs, _, preprocess = open_clip.create_model_and_transforms(
        f"local-dir:{model_directory(name)}"
    )
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model_directory(name)}")
    model = tiny(name)
    pixels = model.preprocess(photo)[None]
    assert torch.equal(pixels[0], preprocess(photo))
    with torch.no_grad():
        logits = model.logit_scale * model.encode_image(pixels) @ model.encode_text(TEXTS).T
        if model.logit_bias is not None:
            logits = logits + model.logit_bias
        expected = theirs.eval().get_logits(pixels, tokenizer(TEXTS))[0]
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-6)


def test_loading_leaves_the_root_logger_as_it_was(model_directory, monkeypatch):
    root, own = logging.getLogger(), logging.NullHandler()
    for handlers in ([], [own]):
        monkeypatch.setattr(root, "handlers", list(handlers))
        load_model(model_directory("vit"))
        assert root.handlers == handlers


def test_a_model_tells_what_others_need_to_know(tiny):
    model = tiny("wide")
    assert (model.name, model.embed_dim, model.image_size) == ("wide", 24, (32, 48))
    assert model.context_length == 16
    assert model.mean == pytest.approx((0.5, 0.4, 0.3))
    assert model.std == pytest.approx((0.25, 0.3, 0.2))
    assert model.logit_bias is None
    assert model.logit_scale.item() == pytest.approx(model.clip.logit_scale.exp().item())
    assert model.logit_scale.shape == ()
    assert tiny("siglip").logit_bias.item() == pytest.approx(-10.0)


@pytest.mark.parametrize("name", ["vit", "resnet", "siglip"])
def test_features_are_unit_norm_and_only_images_carry_a_gradient(tiny, pixels_for, name):
    model = tiny(name)
    image, text = model.encode_image(pixels_for(model)), model.encode_text(TEXTS)
    for features in (image, text):
        assert features.dtype == torch.float32
        torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    assert image.requires_grad
    assert not text.requires_grad


def test_text_features_do_not_depend_on_the_batch(tiny):
    model = tiny("vit")
    torch.testing.assert_close(model.encode_text(TEXTS, batch=1), model.encode_text(TEXTS))
    assert model.encode_text([]).shape == (0, model.embed_dim)


def test_the_model_stays_in_evaluation_mode_so_batch_statistics_stay(tiny, pixels_for):
    model = tiny("resnet")
    before = {k: v.clone() for k, v in model.clip.state_dict().items() if "running" in k}
    assert before
    model.encode_image(pixels_for(model)).sum().backward()
    assert not any(module.training for module in model.clip.modules())
    assert all(torch.equal(model.clip.state_dict()[k], v) for k, v in before.items())


def test_stored_uint8_pixels_give_the_same_features(tiny, photo):
    model = tiny("vit")
    stored = model.preprocess.resize_to_uint8(photo)[None]
    torch.testing.assert_close(
        model.encode_image(stored), model.encode_image(model.preprocess(photo)[None])
    )


def test_bf16_rounds_the_image_tower_and_nothing_else(tiny, pixels_for):
    exact, rounded = tiny("vit"), tiny("vit", precision="bf16")
    assert torch.equal(exact.encode_text(TEXTS), rounded.encode_text(TEXTS))
    a, b = exact.encode_image(pixels_for(exact)), rounded.encode_image(pixels_for(rounded))
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    assert (a * b).sum(1).min() > 0.999
    assert exact.sha256 == rounded.sha256


def test_a_text_that_is_too_long_is_named_and_not_cut(tiny):
    model, long = tiny("vit"), "a photo of " + "very " * 20 + "big dog"
    with pytest.raises(ModelError, match=r"16 tokens, and 1 of 2 texts have more.*big dog"):
        model.encode_text(["short", long])
    with pytest.raises(ModelError, match=r"2 of 2 .* the longest has 602: '(dog )+do…g (dog )+'"):
        model.encode_text([long, "dog " * 600])
    assert model.encode_text([long], truncate=True).shape == (1, model.embed_dim)
    assert model.tokenize(["dog " * 14]).shape == (1, 16)  # 14 and the two marks just fit
    with pytest.raises(ModelError, match="longest has 17"):
        model.tokenize(["dog " * 15])


def test_the_hash_follows_the_weights_and_not_the_file(tiny, copy_of):
    directory = copy_of("vit")
    file = directory / "open_clip_model.safetensors"
    state = load_file(file)
    original = tiny("vit").sha256
    save_file(dict(reversed(state.items())), file, metadata={"note": "other bytes"})
    assert load_model(directory).sha256 == original
    state["visual.proj"][0, 0] += 1e-3
    save_file(state, file)
    assert load_model(directory).sha256 != original


def test_random_architectures_are_the_same_each_time_and_leave_the_generator_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first = load_model("random:ViT-S-32-alt")
    assert torch.equal(torch.rand(3), expected)
    assert first.sha256 == load_model("random:ViT-S-32-alt").sha256


def test_a_tag_brings_its_weights_and_its_own_preprocessing(
    monkeypatch, tiny, model_directory, tmp_path
):
    module = open_clip_module()
    config = tiny("vit").config["model_cfg"]
    (tmp_path / "tiny-vit.json").write_text(json.dumps(config))
    monkeypatch.setattr(module.factory, "_MODEL_CONFIG_PATHS", [])
    monkeypatch.setattr(module.factory, "_MODEL_CONFIGS", dict(module.factory._MODEL_CONFIGS))
    module.add_model_config(tmp_path / "tiny-vit.json")
    tag = {"file": str(model_directory("vit") / "open_clip_model.safetensors"), "mean": [0.1] * 3}
    monkeypatch.setattr(module, "get_pretrained_cfg", lambda name, tag_: tag)
    model = load_model("tiny-vit/some_tag")
    assert model.name == "tiny-vit/some_tag"
    assert model.sha256 == tiny("vit").sha256
    assert model.mean == pytest.approx((0.1, 0.1, 0.1))
    assert model.config["preprocess_cfg"]["size"] == (32, 32)


def test_a_file_is_loaded_by_the_configuration_beside_it_or_in_its_metadata(
    tiny, copy_of, tmp_path
):
    directory = copy_of("quickgelu")
    model = tiny("quickgelu")
    file = directory / "open_clip_model.safetensors"
    assert load_model(file).sha256 == model.sha256
    lone = tmp_path / "lone.safetensors"
    save_file(load_file(file), lone)
    with pytest.raises(ModelError, match="does not say which architecture"):
        load_model(lone)
    save_file(load_file(file), lone, metadata={"open_clip_config": json.dumps(model.config)})
    again = load_model(lone)
    assert (again.sha256, again.config) == (model.sha256, model.config)
    assert torch.equal(again.encode_text(TEXTS), model.encode_text(TEXTS))


def test_weights_that_record_another_activation_are_refused(tiny, copy_of):
    directory = copy_of("vit")
    file = directory / "open_clip_model.safetensors"
    recorded = json.dumps(tiny("quickgelu").config)
    save_file(load_file(file), file, metadata={"open_clip_config": recorded})
    with pytest.raises(ModelError, match="quick_gelu=True"):
        load_model(directory)


def test_weights_of_another_shape_name_the_tensors(copy_of):
    directory = copy_of("vit")
    change_config(directory, width=64)
    with pytest.raises(ModelError, match=r"text_projection is \[32, 24\].*and \d+ more"):
        load_model(directory)


def test_position_embeddings_are_not_silently_stretched(copy_of):
    directory = copy_of("vit")
    change_config(directory, context_length=20)
    with pytest.raises(ModelError, match=r"positional_embedding is \[16, 32\] in the file"):
        load_model(directory)


def test_missing_and_surplus_tensors_are_named(copy_of):
    directory = copy_of("vit")
    file = directory / "open_clip_model.safetensors"
    state = load_file(file)
    state["visual.extra"] = state.pop("visual.proj")
    save_file(state, file)
    with pytest.raises(ModelError, match=r"visual.proj is missing.*visual.extra is in the file"):
        load_model(directory)


def test_a_text_tower_that_knows_too_few_tokens_is_refused_at_once(copy_of):
    directory = copy_of("vit")
    change_config(directory, vocab_size=1000)
    file = directory / "open_clip_model.safetensors"
    state = load_file(file)
    state["token_embedding.weight"] = state["token_embedding.weight"][:1000].clone()
    save_file(state, file)
    with pytest.raises(ModelError, match=r"knows 49408 tokens, .* embeds 1000"):
        load_model(directory)


def test_a_text_tower_of_another_width_than_the_image_tower_is_refused(copy_of):
    directory = copy_of("vit")
    change_config(directory, proj_type="none")
    file = directory / "open_clip_model.safetensors"
    state = load_file(file)
    del state["text_projection"]
    save_file(state, file)
    with pytest.raises(ModelError, match=r"text tower .* gives \[1, 32\]"):
        load_model(directory)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{not json", "is not JSON"),
        ("[]", "lacks embed_dim"),
        ('{"model_cfg": {}, "preprocess_cfg": {"mean": [0, 0, -Infinity]}}', "is not JSON"),
        ('{"model_cfg": {"embed_dim": 4}}', "lacks vision_cfg, text_cfg"),
        (
            '{"model_cfg": {"embed_dim": 4, "vision_cfg": {"colour": 1}, "text_cfg": {}}}',
            "cannot build this architecture",
        ),
    ],
)
def test_a_broken_configuration_is_a_model_error(copy_of, text, words):
    directory = copy_of("vit")
    (directory / "open_clip_config.json").write_text(text)
    with pytest.raises(ModelError, match=words):
        load_model(directory)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [({"layers": 10**9}, "1000 is the most"), ({"width": 10**6}, "do not belong together")],
)
def test_an_enormous_architecture_is_refused_before_it_is_built(copy_of, sizes, words):
    change_config(directory := copy_of("vit"), **sizes)
    with pytest.raises(ModelError, match=words):
        load_model(directory)


def test_a_damaged_checkpoint_is_a_model_error(copy_of):
    directory = copy_of("vit")
    file = directory / "open_clip_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:5000])
    with pytest.raises(ModelError, match="or it was cut short"):
        load_model(directory)
    file.write_bytes(whole[:-100])
    with pytest.raises(ModelError, match="not a sound safetensors file"):
        load_model(directory)


def test_a_directory_needs_one_safetensors_file(copy_of):
    directory = copy_of("vit")
    file = directory / "open_clip_model.safetensors"
    file.rename(directory / "a.safetensors")
    load_model(directory)  # any name does while there is one
    shutil.copy(directory / "a.safetensors", directory / "b.safetensors")
    with pytest.raises(ModelError, match="several checkpoints"):
        load_model(directory)
    (directory / "a.safetensors").unlink()
    (directory / "b.safetensors").rename(directory / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled checkpoint.*not read"):
        load_model(directory)


def test_without_network_a_download_fails_with_words(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # which the hub's library reads when it is imported; it would try for half a minute
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def no_network(*args, **kwargs):
        raise OSError("cannot reach the server")

    module = open_clip_module()
    monkeypatch.setattr(module, "download_pretrained", no_network)
    monkeypatch.setattr(module.pretrained, "download_pretrained_from_hf", no_network)
    for text in ("ViT-B-16/laion2b_s34b_b88k", "hf-hub:org/name"):
        heard: list[str] = []
        with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE is set.*local files") as refusal:
            load_model(text, announce=heard.append)
        assert "cannot reach the server" in str(refusal.value)
        # the hub's library may try for a minute
        assert f"Fetching {text}, where it is not in the cache…" in heard


def test_a_tag_that_is_unknown_is_not_fetched():
    heard: list[str] = []
    with pytest.raises(ModelError, match=r"no weights 'opnai'.*'openai'"):
        load_model("ViT-B-32/opnai", announce=heard.append)
    assert not any(words.startswith("Fetching") for words in heard)


def test_offline_holds_for_other_servers_too(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    module = open_clip_module()
    elsewhere = {"url": "https://example.org/weights.pt"}
    monkeypatch.setattr(module, "get_pretrained_cfg", lambda name, tag: elsewhere)
    with pytest.raises(ModelError, match="is not on this machine"):
        load_model("ViT-B-16/any")


def test_a_missing_embedded_model_says_to_install_again(tmp_path):
    gone = spec.ModelSpec("emoji-tiny", "embedded", "emoji-tiny", path=tmp_path)
    with pytest.raises(ModelError, match="Install clipalign again"):
        load_model(gone)


def test_unknown_devices_and_precisions_are_usage_errors(tiny):
    with pytest.raises(UsageError, match="device 'gpu' cannot be used: there is no such kind") as e:
        tiny("vit", device="gpu")
    assert "named as cpu, cuda, cuda:1 or mps, and this machine has cpu" in str(e.value)
    assert "xpu" not in str(e.value)
    with pytest.raises(UsageError, match="Did you mean 'fp16'"):
        tiny("vit", precision="f16")


def test_the_import_is_announced_once(monkeypatch):
    told = []
    monkeypatch.delitem(library.sys.modules, "open_clip")
    monkeypatch.setattr(library.importlib, "import_module", lambda name: open_clip)
    open_clip_module(told.append)
    assert told == ["Loading open_clip…"]
    monkeypatch.setitem(library.sys.modules, "open_clip", open_clip)
    assert open_clip_module(told.append) is open_clip
    assert len(told) == 1


@pytest.mark.parametrize("name", ["vit", "resnet", "timm"])
def test_no_images_have_no_features(tiny, name):
    model = tiny(name)
    features = model.encode_image(torch.zeros(0, 3, *model.image_size))
    assert features.shape == (0, model.embed_dim)
    features.sum().backward()
    assert not any(p.grad.any() for p in model.clip.visual.parameters() if p.grad is not None)


def test_a_rebuilt_model_leaves_the_generator_alone():
    model = load_model("emoji-tiny")
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    model.rebuilt(model.clip.state_dict())
    assert torch.equal(torch.rand(1), expected)
