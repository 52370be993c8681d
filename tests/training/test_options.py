"""Rates by layer, gradient checkpointing, torch.compile, channels-last, precision: each holds what
an ordinary step holds, and says so where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clipalign.config import TrainConfig, load_config
from clipalign.errors import ConfigError, UsageError
from clipalign.models.acceleration import accelerate
from clipalign.models.load import load_model
from clipalign.models.trainable import apply_trainable
from clipalign.training.optim import rate_scales

Make = Callable[..., Any]
OPTIONS: dict[str, dict[str, Any]] = {
    "layer_decay": {"layer_decay": 0.5},
    "lr_scales": {"lr_scales": {"stem": 0.1, "head": 3.0}},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "channels_last": {"channels_last": True},
    "bf16": {"precision": "bf16"},
    "all": {
        "layer_decay": 0.7,
        "gradient_checkpointing": True,
        "channels_last": True,
        "precision": "bf16",
    },
}


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in trainer.parameters.items()}


def moved(make_trainer: Make, **config: Any) -> dict[str, torch.Tensor]:
    """How far each tensor moves in one step of plain gradient descent."""
    trainer = make_trainer(steps=1, optimizer="sgd", clip_grad_norm=None, **config)
    before = weights(trainer)
    trainer.run()
    return {name: after - before[name] for name, after in weights(trainer).items()}


def test_the_rate_falls_from_block_to_block(tiny_model: Any) -> None:
    part = apply_trainable(tiny_model.rebuilt(tiny_model.clip.state_dict()), "image-encoder")
    config = TrainConfig(layer_decay=0.5, lr_scales={"stem": 0.1, "head": 4.0})
    found = dict(zip(part.named_parameters(), rate_scales(part, config), strict=True))
    assert found["visual.conv1.weight"] == pytest.approx(0.5**3 * 0.1)
    assert found["visual.transformer.resblocks.0.mlp.c_fc.weight"] == 0.5**2
    assert found["visual.transformer.resblocks.1.mlp.c_fc.weight"] == 0.5
    assert found["visual.proj"] == 4.0


def test_a_step_moves_each_tensor_by_its_own_rate(make_trainer: Make) -> None:
    config = {"layer_decay": 0.5, "lr_scales": {"blocks": 2.0}}
    plain, scaled = moved(make_trainer), moved(make_trainer, **config)
    factors = {"visual.conv1.weight": 0.125, "visual.proj": 1.0}
    for i, factor in ((0, 0.5), (1, 1.0)):
        factors[f"visual.transformer.resblocks.{i}.mlp.c_fc.weight"] = factor
    for name, factor in factors.items():
        assert plain[name].abs().max() > 0
        # differences of weights keep fewer digits than the weights
        torch.testing.assert_close(scaled[name], factor * plain[name], rtol=1e-2, atol=3e-7)


def test_adapters_have_the_rate_of_their_block(tiny_model: Any) -> None:
    pytest.importorskip("peft")
    part = apply_trainable(tiny_model.rebuilt(tiny_model.clip.state_dict()), "lora:2")
    found = dict(
        zip(part.named_parameters(), rate_scales(part, TrainConfig(layer_decay=0.5)), strict=True)
    )
    assert set(found.values()) == {0.25, 0.5}
    for name, scale in found.items():
        assert scale == (0.25 if "resblocks.0." in name else 0.5)


def test_what_has_no_layers_has_no_rates_by_layer(tiny_model: Any) -> None:
    part = apply_trainable(tiny_model.rebuilt(tiny_model.clip.state_dict()), "head")
    assert rate_scales(part, TrainConfig()) == [1.0]
    with pytest.raises(UsageError, match="need blocks, and head"):
        rate_scales(part, TrainConfig(layer_decay=0.9))


def test_a_tower_that_never_trains_has_no_rate() -> None:
    with pytest.raises(ConfigError, match=r"lr_scales\.text.*'stem', 'blocks' or 'head'"):
        load_config(overrides=["train.lr_scales={text: 0.1}"])
    with pytest.raises(ConfigError, match="layer_decay"):
        load_config(overrides=["train.layer_decay=1.5"])


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("trainable", ["image-encoder", "last:1"])
def test_resume_is_exact_and_the_first_step_is_checked_with_every_option(
    make_trainer: Make, recorder: Any, name: str, trainable: str
) -> None:
    options = {"trainable": trainable, "averaging": "ema", **OPTIONS[name]}
    whole = make_trainer(steps=6, **options)
    whole.run()  # its first step proves that policy = reference
    seen = recorder()
    first = make_trainer(steps=6, recorder=seen, checkpoint_every_steps=3, **options)
    first.run()
    again = make_trainer(steps=6, **options)
    again.restore(next(c for c in seen.checkpoints if c.step == 3))
    again.run()
    assert all(torch.equal(v, weights(again)[k]) for k, v in weights(whole).items())


@pytest.mark.parametrize("name", ["gradient_checkpointing", "channels_last"])
def test_how_it_is_computed_does_not_change_what(make_trainer: Make, name: str) -> None:
    plain, other = make_trainer(steps=4), make_trainer(steps=4, **OPTIONS[name])
    plain.run()
    other.run()
    for key, value in weights(plain).items():
        torch.testing.assert_close(weights(other)[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_training_resumes_exactly_and_goes_where_the_plain_one_goes(
    make_trainer: Make, recorder: Any
) -> None:
    options = {"steps": 6, "rows": 10, "optimizer": "sgd"}  # 4, 4 and 2 rows: two sizes of batch
    seen = recorder()
    plain = make_trainer(**options)
    plain.run()
    whole = make_trainer(compile=True, recorder=seen, checkpoint_every_steps=2, **options)
    whole.run()
    again = make_trainer(compile=True, **options)
    again.restore(next(c for c in seen.checkpoints if c.step == 2))
    again.run()
    for key, value in weights(whole).items():
        assert torch.equal(weights(again)[key], value), key
        torch.testing.assert_close(value, weights(plain)[key], rtol=1e-3, atol=1e-4)


def test_checkpointed_blocks_get_a_gradient_where_nothing_before_them_trains() -> None:
    import timm

    model = load_model("emoji-tiny")
    with pytest.raises(UsageError, match="no gradient checkpointing \\(ModifiedResNet\\)"):
        accelerate(model, gradient_checkpointing=True)
    timm.layers.set_reentrant_ckpt(True)
    from clipalign.models.library import build_clip
    from clipalign.models.loaded import LoadedModel

    config = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "token"},
            "text_cfg": {"context_length": 16, "width": 32, "heads": 2, "layers": 1},
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    tower = LoadedModel(model.spec, build_clip(config), config, model.tokenizer)
    part = apply_trainable(tower, "last:1")
    accelerate(tower, gradient_checkpointing=True)
    tower.encode_image(torch.randn(2, 3, 160, 160))[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in part.named_parameters().values())


def test_fp16_on_a_cpu_is_refused_with_words(tmp_path: Any) -> None:
    import clipalign

    with pytest.raises(ConfigError, match="fp16 needs a GPU, and this runs on cpu"):
        clipalign.train(overrides=["train.precision=fp16"], device="cpu", output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_compiler_compile_is_refused(monkeypatch: Any, tiny_model: Any) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler"):
        accelerate(tiny_model, compile=True)
