"""What `train --json` says of a training."""

from __future__ import annotations

from pathlib import Path

from clipalign.training.outcome import outcome
from clipalign.training.result import TrainResult


def test_what_was_trained_is_named_part_by_part():
    rows = (("image stem", 9, 7472, False), ("image head", 1, 64, True))
    result = TrainResult(Path("runs/a"), 3, Path("runs/a/model"), "line", rows, {"loss": 0.5})
    document = result.document()
    assert document["trainable"] == [
        {"part": "image stem", "tensors": 9, "parameters": 7472, "trained": False},
        {"part": "image head", "tensors": 1, "parameters": 64, "trained": True},
    ]
    assert (document["run"], document["steps"]) == ("runs/a", 3)
    assert document["metrics"] == {"loss": 0.5}


LOG = [
    {"step": 1, "loss": 0.9},
    {"step": 1, "validation_loss": 0.8, "validation_margin": 0.1},
    {"step": 2, "validation_loss": 0.5, "validation_margin": 0.3},
    {"step": 3, "loss": 0.4},
    {"step": 3, "validation_loss": 0.6, "validation_margin": 0.4},
]


def test_of_an_early_stop_the_validation_of_the_kept_weights_is_told():
    ended = outcome(LOG, early_stopping=True)
    assert (ended.step, ended.kept) == (3, 2)
    assert ended.metrics == {"loss": 0.4, "validation_loss": 0.5, "validation_margin": 0.3}
    assert ended.statement(9).startswith("Stopped early, after step 3 of 9. The weights of step 2")
    assert ended.statement(3).startswith("The weights of step 2 are kept: their validation loss")


def test_without_early_stopping_the_last_measures_are_told():
    ended = outcome(LOG, early_stopping=False)
    assert (ended.step, ended.kept, ended.statement(3)) == (3, None, "")
    assert ended.metrics == {"loss": 0.4, "validation_loss": 0.6, "validation_margin": 0.4}
    assert outcome(LOG[2:], early_stopping=True).kept is None  # its beginning was removed
    assert outcome([], early_stopping=True).step == 0
