"""What `train --json` says of a training."""

from __future__ import annotations

from pathlib import Path

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
