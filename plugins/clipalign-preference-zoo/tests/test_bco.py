"""BCO's threshold is a running mean: of earlier steps alone, and part of every checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import clipalign
from clipalign.testing import judged_batch


def rewards(seed: int, beta: float) -> torch.Tensor:
    batch = judged_batch("any", seed=seed)
    chosen = beta * batch.log_ratio(batch.chosen)[batch.chosen >= 0]
    return torch.cat([chosen, beta * batch.log_ratio(batch.rejected)[batch.rejected >= 0]])


def test_the_threshold_is_the_mean_of_all_earlier_rewards() -> None:
    bco = clipalign.objective("bco", beta=0.7).double()
    seen: list[torch.Tensor] = []
    for seed in range(4):
        batch = judged_batch("any", seed=seed)
        delta = torch.cat(seen).mean() if seen else torch.zeros((), dtype=torch.float64)
        fixed = clipalign.objective("bco", beta=0.7).double().eval()
        fixed.load_state_dict({"threshold": delta, "seen": torch.tensor(0)})
        torch.testing.assert_close(bco(batch), fixed(batch))
        seen.append(rewards(seed, 0.7))
    torch.testing.assert_close(bco.state_dict()["threshold"], torch.cat(seen).mean())


def test_a_step_without_judgements_changes_nothing() -> None:
    bco = clipalign.objective("bco")
    batch = judged_batch("any")
    none = torch.full_like(batch.chosen, -1)
    loss = bco(clipalign.PolicyBatch(batch.policy, batch.reference, none, none))
    assert (loss == 0).all()
    assert bco.state_dict()["threshold"] == 0


SETTINGS = [
    "train.steps=4",
    "train.batch_size=4",
    "train.log_every=1",
    "train.averaging=none",
    "train.checkpoint_every_steps=2",
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of plain drawings: three colours, four each."""
    for name in ("red", "green", "blue"):
        for size in range(4):
            picture = Image.new("RGB", (64, 64), "white")
            picture.paste(Image.new("RGB", (20 + 8 * size,) * 2, name), (8, 8))
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "photos" / name / f"{size}.png")
    return tmp_path / "photos"


def test_a_run_that_was_stopped_resumes_to_the_same_weights(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after step 2 of 4, the threshold goes on from where it was."""
    from clipalign.training import train as training

    monkeypatch.setenv("CLIPALIGN_CACHE", str(tmp_path / "cache"))
    keys = {"method": "bco", "dataset": str(photos), "overrides": SETTINGS}
    whole = clipalign.train(**keys, output=tmp_path / "whole")

    stops = iter([False, True])
    with monkeypatch.context() as patch:
        patch.setattr(training._Callbacks, "stop_requested", lambda self: next(stops))
        with pytest.raises(clipalign.Interrupted):
            clipalign.train(**keys, output=tmp_path / "stopped")
    resumed = clipalign.train(resume=tmp_path / "stopped")

    name = "open_clip_model.safetensors"
    assert (resumed.model / name).read_bytes() == (whole.model / name).read_bytes()
    logs = [(r.run / "metrics.jsonl").read_text().splitlines() for r in (whole, resumed)]
    assert [json.loads(line)["loss"] for line in logs[0]] == [
        json.loads(line)["loss"] for line in logs[1]
    ]
    assert json.loads(logs[0][0])["preference_loss"] == pytest.approx(2 * 0.693147, abs=1e-3)
