"""Every kind of architecture from end to end: load, forward, a training step, export, open_clip."""

from __future__ import annotations

import contextlib
import json
from copy import copy
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from clipalign.errors import ModelError
from clipalign.models.export import export_model
from clipalign.models.feature_cache import text_features
from clipalign.models.library import build_clip
from clipalign.models.load import load_model
from clipalign.models.trainable import apply_trainable
from clipalign.policy import log_policy
from tests.models.conftest import MODELS, VIT

TEXTS = ["a photo of an apple", "a photo of an iPod", "a note"]
ALL = ["vit", "quickgelu", "wide", "resnet", "timm", "siglip", "custom-text", "coca"]
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "shortest"}


def trained(model, pixels, trainable):
    """The model after one step on −log π of the first text."""
    part = apply_trainable(model, trainable)
    with torch.no_grad():
        reference = model.encode_image(pixels)
    texts = part.text_features(model.encode_text(TEXTS))
    features = part.image_features(reference if part.uses_cached_features else pixels)
    policy = log_policy(features, texts, model.logit_scale, model.logit_bias)
    start = log_policy(reference, texts.detach(), model.logit_scale, model.logit_bias)
    torch.testing.assert_close(policy.detach(), start, rtol=1e-4, atol=1e-4)
    (-policy[:, 0].mean()).backward()
    optimizer = torch.optim.SGD(part.named_parameters().values(), lr=0.02)
    optimizer.step()
    with torch.no_grad():
        texts = part.text_features(model.encode_text(TEXTS))
        features = part.image_features(reference if part.uses_cached_features else pixels)
        after = log_policy(features, texts, model.logit_scale, model.logit_bias)
    assert not torch.equal(after, start)
    return part.merge(), after


def check_what_open_clip_loads(model, pixels, trainable, directory):
    """open_clip alone says of the exported model what training ended with."""
    merged, policy = trained(model, pixels, trainable)
    export_model(merged, directory)
    plain, _, _ = open_clip.create_model_and_transforms(f"local-dir:{directory}")
    tokens = open_clip.get_tokenizer(f"local-dir:{directory}")(TEXTS)
    with torch.no_grad():
        images = plain.eval().encode_image(pixels, normalize=True)
        texts = plain.encode_text(tokens, normalize=True)
    logits = plain.logit_scale.exp() * images @ texts.T
    torch.testing.assert_close(logits.log_softmax(1), policy, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trainable", ["image-encoder", "head"])
@pytest.mark.parametrize("name", ALL)
def test_what_was_trained_is_what_open_clip_loads(tiny, pixels_for, tmp_path, name, trainable):
    model = tiny(name)
    check_what_open_clip_loads(model, pixels_for(model), trainable, tmp_path / "model")


def test_the_bias_of_siglip_is_in_its_logits_and_cancels_in_its_policy(tiny, pixels_for):
    model = tiny("siglip")
    with torch.no_grad():
        images, texts = model.encode_image(pixels_for(model)), model.encode_text(TEXTS)
        logits = model.clip.get_logits(pixels_for(model), model.tokenize(TEXTS))[0]
    assert model.logit_bias is not None
    cosines = model.logit_scale * images @ texts.T
    torch.testing.assert_close(logits, cosines + model.logit_bias, rtol=1e-5, atol=1e-5)
    with_bias = log_policy(images, texts, model.logit_scale, model.logit_bias)
    torch.testing.assert_close(with_bias, log_policy(images, texts, model.logit_scale))
    torch.testing.assert_close(with_bias, logits.log_softmax(1))


def test_what_open_clip_leaves_unset_in_a_coca_is_the_same_each_time():
    def projection():
        torch.full((32, 24), torch.nan)  # what the memory may hold
        torch.manual_seed(0)
        clip = build_clip({"model_cfg": MODELS["coca"], "preprocess_cfg": PREPROCESS})
        return clip.text_decoder.text_projection

    assert torch.equal(projection(), projection())
    assert projection().std() > 0


def test_an_image_tower_that_cannot_encode_an_image_is_refused_when_it_is_loaded(tmp_path):
    vision = {**VIT, "attentional_pool": "cascade", "attn_pooler_heads": 2}  # 32 wide, and not 24
    config = {"model_cfg": {**MODELS["vit"], "vision_cfg": vision}, "preprocess_cfg": PREPROCESS}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(build_clip(config).state_dict(), tmp_path / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match=r"image tower of .* cannot encode an image of \[32, 32\]"):
        load_model(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_before_anybody_trains_from_them(
    tiny, tmp_path, value
):
    model = tiny("vit")
    export_model(model, tmp_path / "model")
    state = {name: tensor.clone() for name, tensor in model.clip.state_dict().items()}
    state["visual.proj"][0, 0] = value
    (tmp_path / "model" / "SHA256SUMS").unlink()
    save_file(state, tmp_path / "model" / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match=r"visual\.proj holds values that are not finite"):
        load_model(tmp_path / "model")


@pytest.fixture
def hf_text(tmp_path):
    """A CLIP with a Hugging Face text tower, made of a local configuration and no hub."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "an", "apple", "note"]
    directory, tower = tmp_path / "hf-text", tmp_path / "tower"
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40,
    )  # fmt: skip
    config.save_pretrained(tower)
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]")
    )
    backend.normalizer = tokenizers.normalizers.Lowercase()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(directory)  # fmt: skip
    model_cfg = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16,
                       "patch_size": 8},
        "text_cfg": {"hf_model_name": str(tower), "hf_tokenizer_name": str(tower),
                     "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler",
                     "context_length": 12},
    }  # fmt: skip
    whole = {"model_cfg": model_cfg, "preprocess_cfg": PREPROCESS}
    (directory / "open_clip_config.json").write_text(json.dumps(whole))
    torch.manual_seed(5)
    save_file(
        {n: t.clone() for n, t in build_clip(whole).state_dict().items()},
        directory / "open_clip_model.safetensors",
    )
    return directory


@pytest.mark.parametrize("trainable", ["image-encoder", "head"])
def test_a_hugging_face_text_tower_needs_no_hub(
    hf_text, pixels_for, tmp_path, trainable, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = load_model(hf_text)
    assert model.context_length == 12  # what it was trained on, not the room that its tower has
    assert model.tokenize(TEXTS).shape == (3, 12)
    check_what_open_clip_loads(model, pixels_for(model), trainable, tmp_path / "model")


@pytest.mark.parametrize("where", ["tower", "tokenizer", "kwargs"])
def test_code_that_a_text_tower_brings_is_never_run(hf_text, tmp_path, where):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n"
    file = {"tower": tmp_path / "tower" / "config.json",
            "tokenizer": hf_text / "tokenizer_config.json",
            "kwargs": hf_text / "open_clip_config.json"}[where]  # fmt: skip
    content = json.loads(file.read_text())
    if where == "tower":
        content |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}
    elif where == "tokenizer":
        content |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    else:
        content["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    file.write_text(json.dumps(content))
    (file.parent / "evil.py").write_text(code)
    if where == "tokenizer":
        # transformers may pass over the code and build a tokeniser of its own; running it is out.
        with contextlib.suppress(ModelError):
            load_model(hf_text)
    else:
        with pytest.raises(ModelError):
            load_model(hf_text)
    assert not Path(tmp_path / "ran").exists()


def test_weights_of_quickgelu_are_refused_an_architecture_without_it(monkeypatch):
    from clipalign.models.spec import matching_architecture, parse_model_spec

    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"quick_gelu": True})
    spec = parse_model_spec("convnext_base/laion400m_s13b_b51k")
    with pytest.raises(ModelError, match="trained with QuickGELU"):
        matching_architecture(spec)


def test_equal_weights_under_another_activation_have_features_of_their_own(
    tiny, tmp_path, own_cache
):
    """The cache took QuickGELU's features for GELU's, which are the same weights."""
    model = tiny("quickgelu")
    other = copy(model.config)
    other["model_cfg"] = {**model.config["model_cfg"], "quick_gelu": False}
    gelu = model.rebuilt(model.clip.state_dict(), other)
    assert gelu.sha256 == model.sha256
    assert not torch.equal(text_features(model, TEXTS), text_features(gelu, TEXTS))
