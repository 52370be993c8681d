"""`clipalign train`, for real: the embedded default, a kill, a signal, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from clipalign.errors import ConfigError, DataError, ModelError, RunError, UsageError
from tests.conftest import Notes

STEPS = 8
COMMON = [
    "train.steps=8",
    "train.batch_size=8",
    "dataset_options={concepts: 20, train_views: 1}",
    "train.log_every=1",
]


pytestmark = pytest.mark.usefixtures("module_cache")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made through the library."""
    import clipalign

    output = tmp_path_factory.mktemp("runs") / "undisturbed"
    result = clipalign.train(overrides=COMMON, output=output)
    assert result.run == output
    return output


def start(output: Path, *more: str) -> subprocess.Popen[str]:
    """The real command, writing a checkpoint after every step."""
    settings = [*COMMON, "train.checkpoint_every_steps=1", *more]
    arguments = [f"--set={s}" for s in settings]
    return subprocess.Popen(
        [sys.executable, "-m", "clipalign", "train", "--no-eval", "-o", str(output), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_checkpoint(process: subprocess.Popen[str], output: Path, step: int) -> None:
    wanted = output / "checkpoints" / f"step-{step:08d}"
    deadline = time.monotonic() + 90
    while not wanted.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no checkpoint in 90 s"
        time.sleep(0.01)


def weights(run: Path) -> bytes:
    return (run / "model" / "open_clip_model.safetensors").read_bytes()


def steps_logged(run: Path) -> list[int]:
    return [json.loads(row)["step"] for row in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_has_all_that_the_design_promises(undisturbed: Path) -> None:
    names = {p.name for p in undisturbed.iterdir()}
    expected = {"config.yaml", "environment.json", "metrics.jsonl", "checkpoints", "model"}
    assert expected <= names
    assert steps_logged(undisturbed) == list(range(1, STEPS + 1))
    first = json.loads((undisturbed / "metrics.jsonl").read_text().splitlines()[0])
    assert first["preference_loss"] == pytest.approx(1.0, abs=1e-3)  # KTO: ½ λ_D + ½ λ_U
    assert first["regulariser"] == pytest.approx(0.0, abs=1e-4)
    assert "HOME" not in (undisturbed / "environment.json").read_text()


def test_the_model_loads_in_plain_open_clip_and_only_the_image_tower_moved(
    undisturbed: Path,
) -> None:
    import open_clip

    from clipalign.models.load import load_model

    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{undisturbed / 'model'}")
    before = load_model("emoji-tiny").clip.state_dict()
    after = model.state_dict()
    assert before.keys() == after.keys()
    moved = {name for name, value in after.items() if not value.equal(before[name])}
    assert moved
    assert all(name.startswith("visual.") for name in moved)
    assert not any("running_" in name for name in moved)


def test_the_configuration_of_a_run_alone_gives_the_same_weights(
    undisturbed: Path, tmp_path: Path
) -> None:
    import clipalign

    clipalign.train(undisturbed / "config.yaml", output=tmp_path / "again")
    assert weights(tmp_path / "again") == weights(undisturbed)


def test_a_killed_run_resumes_to_bit_identical_weights(undisturbed: Path, tmp_path: Path) -> None:
    import clipalign

    output = tmp_path / "killed"
    process = start(output)
    wait_for_checkpoint(process, output, 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if not (output / "model").exists():  # it may have been quicker than the signal
        with (output / "metrics.jsonl").open("a") as file:
            file.write('{"step": 4, "lo')
        clipalign.train(resume=output)
    assert weights(output) == weights(undisturbed)
    assert steps_logged(output) == list(range(1, STEPS + 1))


def test_the_run_s_configuration_says_what_was_used(undisturbed: Path) -> None:
    from clipalign.config import load_config
    from clipalign.objectives.kto import KTO

    config = load_config(undisturbed / "config.yaml")
    assert config.train.lr is not None
    assert config.regulariser_weight is not None
    assert config.method_options == KTO().options.model_dump()
    other = load_config(undisturbed / "config.yaml", method="rlhf", check_options=True)
    assert other.method_options == {}


def test_sigterm_saves_says_how_to_go_on_and_ends_with_130(
    undisturbed: Path, tmp_path: Path
) -> None:
    import clipalign

    output = tmp_path / "stopped"
    process = start(output, "train.steps=4000")
    wait_for_checkpoint(process, output, 2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"clipalign train --resume {output}" in errors
    assert "Traceback" not in errors
    # go on, to an end that is near
    config = yaml.safe_load((output / "config.yaml").read_text())
    newest = max(int(p.name[5:]) for p in (output / "checkpoints").glob("step-*"))
    config["train"]["steps"] = newest + 2
    (output / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(RunError, match=r"config\.yaml is not what was written"):
        clipalign.train(resume=output)
    (output / "SHA256SUMS").unlink()
    assert clipalign.train(resume=output).steps == newest + 2


def test_last_blocks_train_from_cached_activations_to_the_same_weights(
    tmp_path: Path, own_cache: Path, notes: Notes
) -> None:
    import torch

    import clipalign
    from clipalign.models.load import load_model

    def run(name: str, cached: bool) -> tuple[torch.Tensor, list[float]]:
        """Image features of the trained model, and the losses on the way."""
        clipalign.train(
            overrides=[*COMMON, f"train.cache_trunk={str(cached).lower()}"],
            trainable="last:1", output=tmp_path / name, reporter=notes,
        )  # fmt: skip
        model = load_model(f"local-dir:{tmp_path / name / 'model'}")
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(
            0, 256, (8, 3, *model.image_size), dtype=torch.uint8, generator=generator
        )
        rows = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        with torch.no_grad():
            return model.encode_image(pixels), [json.loads(row)["loss"] for row in rows]

    first, again, without = run("first", True), run("again", True), run("without", False)
    assert any("activations of the frozen blocks" in text for text in notes.lines)
    assert sum("computed at every step" in text for text in notes.lines) == 1
    # Weights may differ more where their gradient is nothing but rounding, which Adam magnifies:
    # a bias of keys changes no attention.
    assert (first[0] - without[0]).abs().max() <= 1e-4
    assert first[1] == pytest.approx(without[1], abs=1e-4)
    assert torch.equal(again[0], first[0])
    assert again[1] == first[1]


def test_head_training_writes_its_map_and_an_ordinary_model(tmp_path: Path) -> None:
    import torch

    import clipalign
    from clipalign.models.linear_map import LinearMap
    from clipalign.models.load import load_model

    result = clipalign.train(overrides=COMMON, trainable="head", output=tmp_path / "head")
    found, metadata = LinearMap.load(result.run / "linear_map.safetensors")
    assert metadata["model"] == "emoji-tiny"
    reference, aligned = load_model("emoji-tiny"), load_model(str(result.run))
    text = ["a photo of a bear.", "a photo of a kite."]
    torch.testing.assert_close(
        aligned.encode_text(text), found(reference.encode_text(text)), rtol=1e-4, atol=1e-5
    )
    assert set(load_file(result.run / "checkpoints" / "step-00000008" / "trainable.safetensors")) \
        == {"W"}  # fmt: skip


def test_an_early_stop_is_told_with_the_step_whose_weights_are_kept(
    tmp_path: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import clipalign
    from clipalign.training.engine import Trainer

    monkeypatch.setattr(Trainer, "validate", lambda self, _: {"loss": 0.25 * self.step})
    early = {"validate_every": 1, "early_stopping_patience": 1, "averaging": "none"}
    result = clipalign.train(
        overrides=COMMON, train=early, trainable="head", output=tmp_path / "run", reporter=notes
    )
    assert (result.steps, result.kept_step) == (2, 1)
    assert result.metrics["validation_loss"] == 0.25
    early_stop = f"Stopped early, after step 2 of {STEPS}. The weights of step 1 are kept"
    assert any(early_stop in note for note in notes.lines)
    card = (result.model / "README.md").read_text()
    assert f"2 of at most {STEPS}; the weights of step 1 are kept" in card


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        ({"method": "kt0"}, ConfigError, "Did you mean 'kto'"),
        ({"method": "dpo", "method_options": {"betta": 1}}, ConfigError, "betta"),
        ({"model": "emoji-tinny"}, Exception, "emoji-tiny"),
        ({"train": {"early_stopping_patience": 2}}, ConfigError, "validate_every"),
        ({"train": {"averaging": "ema", "averaging_options": {"decoy": 1}}}, ConfigError, "decay"),
        ({"data": "nowhere"}, DataError, "there is no such file or directory"),
        ({"trainable": "last:99"}, UsageError, "more blocks"),
    ],
)
def test_what_is_wrong_is_said_before_a_run_exists(
    keys: dict, error: type[Exception], words: str, tmp_path: Path
) -> None:
    import clipalign

    with pytest.raises(error, match=words):
        clipalign.train(overrides=COMMON, output=tmp_path / "run", **keys)
    assert not (tmp_path / "run").exists()


def test_validating_without_a_validation_split_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    import clipalign

    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (64, 64), name == "cat").save(tmp_path / "photos" / name / "1.png")
    prepared = clipalign.prepare("typographic", tmp_path / "photos", tmp_path / "prefs")
    monkeypatch.setenv("CLIPALIGN_CACHE", str(tmp_path / "cache"))
    for keys in ({"dataset": str(tmp_path / "photos")}, {"data": prepared.root}):
        with pytest.raises(DataError, match=r"needs a split 'validation', .* has train\. Put"):
            clipalign.train(train={"validate_every": 2}, output=tmp_path / "run", **keys)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache" / "preferences").exists()


def test_a_dataset_without_train_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import clipalign

    for name in ("cat", "dog"):
        (tmp_path / "photos" / "test" / name).mkdir(parents=True)
        (tmp_path / "photos" / "test" / name / "1.png").write_bytes(b"read by nobody")
    monkeypatch.setenv("CLIPALIGN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"needs a split 'train', .*'folder' has test\. Put"):
        clipalign.train(dataset=str(tmp_path / "photos"), output=tmp_path / "run")
    assert not (tmp_path / "cache" / "preferences").exists()


def test_a_dataset_beside_a_table_is_refused(tmp_path: Path) -> None:
    import clipalign

    (tmp_path / "mine.csv").write_text("image,chosen,rejected\n1.png,a cat,a dog\n")
    (tmp_path / "1.png").write_bytes(b"read by nobody")
    with pytest.raises(UsageError, match=r"mine.csv is a table of images, so dataset=emoji-people"):
        clipalign.train(
            task="preferences", data=tmp_path / "mine.csv", dataset="emoji-people",
            output=tmp_path / "run",
        )  # fmt: skip


def test_a_text_that_the_model_cannot_take_is_refused_before_an_image_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import clipalign

    (tmp_path / "mine.csv").write_text(f"image,chosen,rejected\n1.png,a cat,{'dog ' * 90}\n")
    (tmp_path / "1.png").write_bytes(b"read by nobody")
    monkeypatch.setenv("CLIPALIGN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ModelError, match="1 of 2 texts have more"):
        clipalign.train(task="preferences", data=tmp_path / "mine.csv", output=tmp_path / "run")
    assert not (tmp_path / "cache" / "preferences").exists()


def test_resuming_takes_no_other_options_and_wants_a_run(tmp_path: Path) -> None:
    import clipalign

    with pytest.raises(UsageError, match="its own configuration"):
        clipalign.train(resume=tmp_path, method="dpo")
    with pytest.raises(RunError, match=r"config\.yaml"):
        clipalign.train(resume=tmp_path)


def test_a_run_that_another_process_holds_is_refused(undisturbed: Path) -> None:
    import clipalign
    from clipalign.training.rundir import RunDirectory

    with RunDirectory(undisturbed).lock(), pytest.raises(RunError, match="in use"):
        clipalign.train(resume=undisturbed)


def test_the_command_ends_without_a_traceback_and_with_the_documented_code(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    wrong = command("train", "--method", "kt0", "--set", "train.lrr=1", "--epochs", "0")
    assert wrong.returncode == 3
    assert "Traceback" not in wrong.stderr
    for words in ("kto", "lrr", "epochs"):  # all at once
        assert words in wrong.stderr
    missing = command("train", "--resume", str(tmp_path / "nowhere"))
    assert missing.returncode == 7
