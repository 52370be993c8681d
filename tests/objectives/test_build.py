"""Objectives and regularisers by name."""

from __future__ import annotations

import pytest
import torch

from clipalign.build import objective, regulariser
from clipalign.errors import ConfigError, PluginError, UsageError
from clipalign.objectives.base import PolicyBatch
from clipalign.objectives.dpo import DPO
from clipalign.plugins import registry
from clipalign.regularisers import ForwardKL, Regulariser


def test_an_objective_by_name_has_its_options() -> None:
    built = objective("dpo", beta=0.5)
    assert isinstance(built, DPO)
    assert built.options.beta == 0.5


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'dpo'"):
        objective("dpoo")
    with pytest.raises(UsageError, match="'forward-kl'"):
        regulariser("forward_kl")


def test_all_bad_options_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        objective("dpo", bta=0.5, beta=-1, label_smoothing="much")
    message = str(caught.value)
    assert "The objective 'dpo'" in message
    assert "bta: unknown key. Did you mean 'beta'?" in message
    assert "beta: should be greater than 0 (got -1)" in message
    assert "label_smoothing: " in message


def test_a_rule_between_options_explains_itself() -> None:
    with pytest.raises(ConfigError, match=r"\n  reward_chosen and reward_rejected are both 0"):
        objective("rlhf", reward_chosen=0, reward_rejected=0)


def test_every_registered_regulariser_builds() -> None:
    assert isinstance(regulariser("forward-kl"), ForwardKL)
    for name in registry("regularisers").names():
        assert isinstance(regulariser(name), Regulariser)


def test_a_plugin_that_registers_something_else_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipalign.objectives.dpo.DPO", ForwardKL)
    with pytest.raises(PluginError, match=r"'dpo' of clipalign .*ForwardKL.* not a subclass of"):
        objective("dpo")


def test_a_loss_in_another_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    logp = torch.full((2, 3), 1 / 3).log()
    batch = PolicyBatch(logp, logp, torch.tensor([0, 1]), torch.tensor([1, 2]))
    forward = DPO.forward
    monkeypatch.setattr(DPO, "forward", lambda self, batch: forward(self, batch).half())
    with pytest.raises(PluginError, match=r"float32 \[2\], and gave torch\.float16 \[2\]"):
        objective("dpo")(batch)
