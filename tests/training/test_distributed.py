"""Two processes train and measure as one does; one that is left alone says so."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from clipalign.config import load_config
from clipalign.errors import ConfigError
from clipalign.training.distributed import ALONE, World, exact_elsewhere, tree_sum
from clipalign.training.sharding import check_sharding
from clipalign.training.streams import Step

pytestmark = pytest.mark.timeout(900)  # whole processes: minutes on a machine that is busy
SCRIPT = Path(__file__).with_name("one_of_many.py")
SGD = ["kto", "small-last-batch", "ranked", "remembering", "batch-scope"]
MORE = ["dpo", "last", "head"]


def launch(count: int, arguments: list[str], env: dict[str, str], cwd: Path) -> list[Any]:
    """Run a Python command line as torchrun starts its processes; their results by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, **env, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=shared | ({"RANK": str(i), "LOCAL_RANK": str(i)} if count > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
        )
        for i in range(count)
    ]
    outputs = [p.communicate(timeout=500) for p in processes]
    return [
        subprocess.CompletedProcess(p.args, p.returncode, *o)
        for p, o in zip(processes, outputs, strict=True)
    ]


HEARD = """
    import os
    from clipalign import hookimpl

    @hookimpl
    def register_trackers(register):
        register("heard", "clipalign_heard_target:Heard", summary="Notes what it hears.")

    def note(run_dir, what):
        with open(os.path.join(run_dir, "heard-" + os.environ.get("RANK", "0")), "a") as file:
            file.write(what + " ")

    @hookimpl
    def run_started(run_dir):
        note(run_dir, "run_started")

    @hookimpl
    def run_finished(run_dir):
        note(run_dir, "run_finished")
"""
TARGET = """
from clipalign import Tracker
from clipalign_heard import note

class Heard(Tracker):
    def start(self, run_dir, config, step):
        self.run_dir = run_dir
        note(run_dir, "start")

    def log(self, step, metrics):
        pass

    def finish(self, summary):
        note(self.run_dir, "finish")
"""
Read = Callable[[str], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """With the model that all scenes train."""
    folder = tmp_path_factory.mktemp("scenes")
    shutil.copytree(tiny_model_dir, folder / "model")
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> Iterator[Read]:
    """Plays a scene of one_of_many.py in this process."""
    spec = importlib.util.spec_from_file_location("one_of_many", SCRIPT)
    played = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(played)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the others do: sums of more threads have other bits
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPALIGN_CACHE", str(folder / "cache-1"))
        yield lambda name: played.scene(folder, ALONE, name)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def two(folder: Path) -> Callable[..., Read]:
    """Plays scenes of one_of_many.py on two processes; returns how to read the results."""

    def scenes(*names: str) -> Read:
        env = {"CLIPALIGN_CACHE": str(folder / "cache-2")}
        done = launch(2, [str(SCRIPT), str(folder), *names], env, folder)
        assert done[0].returncode == 0, done[0].stderr
        return lambda name: torch.load(folder / f"{name}-2.pt")

    return scenes


@pytest.fixture(scope="module")
def by_two(two: Callable[..., Read]) -> Read:
    """Most scenes on two processes, of which the second one dies at last."""
    return two(*SGD, "adamw", "encode", "stop", "die")


@pytest.fixture(scope="module")
def more_by_two(two: Callable[..., Read]) -> Read:
    """The other scenes, at whose end the second process hangs."""
    return two(*MORE, "hang")


def same_trajectory(one: Any, two: Any) -> None:
    assert len(one["rows"]) == len(two["rows"]) > 5
    for a, b in zip(one["rows"], two["rows"], strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)
        if "loss" in a:
            assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)
    for group in ("weights", "objective"):
        for name, value in one[group].items():
            torch.testing.assert_close(two[group][name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scene", SGD)
def test_two_processes_follow_the_trajectory_of_one(alone, by_two, scene) -> None:
    same_trajectory(alone(scene), by_two(scene))


@pytest.mark.slow
@pytest.mark.parametrize("scene", MORE)
def test_so_they_do_with_other_losses_and_parts(alone, more_by_two, scene) -> None:
    same_trajectory(alone(scene), more_by_two(scene))


def test_a_batch_in_equal_pieces_gives_equal_bits_on_one_process_and_on_two(alone, by_two) -> None:
    one, two = alone("adamw"), by_two("adamw")
    for group in ("weights", "final"):
        for name, value in one[group].items():
            assert torch.equal(two[group][name], value), name
    losses = [[row["loss"] for row in r["rows"]] for r in (one, two)]
    assert losses[0] == losses[1]


def test_other_pieces_differ_by_rounding_which_adam_magnifies_where_there_is_no_gradient(
    make_trainer, recorder
) -> None:
    """Why single weights of one and two processes differ by more than 1e-6."""
    seen = recorder(), recorder()
    one, two = (
        make_trainer("kto", accumulate=n, recorder=r, lr=1e-3)
        for n, r in zip((1, 2), seen, strict=True)
    )
    for trainer in (one, two):
        trainer.run()
    for a, b in zip(seen[0].rows, seen[1].rows, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)
    images = one.data.inputs
    with torch.no_grad():
        a, b = (t.problem.part.model.encode_image(images) for t in (one, two))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    state, chance, total = one.optimizer.state, 0, 0
    usual = torch.cat([s["exp_avg_sq"].flatten() for s in state.values()]).sqrt().median()
    for name, parameter in one.parameters.items():
        gradient = state[parameter]["exp_avg_sq"].sqrt()
        apart = (parameter - two.parameters[name]).abs() > 1e-6
        chance += int((apart & (gradient > 1e-3 * usual)).sum())  # near 0 in the first step alone
        total += parameter.numel()
    assert chance < 1e-3 * total


def test_a_run_of_two_processes_is_resumed_by_one_to_the_bit(alone, by_two) -> None:
    whole = by_two("adamw")
    resumed = alone("resume")
    assert [row["step"] for row in resumed["rows"]] == [4, 5, 6]
    for name, value in whole["final"].items():
        assert torch.equal(resumed["final"][name], value), name


def test_a_run_that_could_not_be_resumed_exactly_is_refused(make_trainer, recorder) -> None:
    from clipalign.errors import Interrupted, RunError

    seen = recorder(stop_after=2)
    with pytest.raises(Interrupted):
        make_trainer(recorder=seen).run()
    elsewhere = make_trainer(world=World(rank=0, size=2))
    with pytest.raises(RunError, match=r"1 processes with batches in 1 pieces.*Use 1\."):
        elsewhere.restore(seen.checkpoints[-1])
    assert exact_elsewhere(8, 1) == [1, 2, 4, 8]
    assert exact_elsewhere(6, 3) == [1, 3, 6]
    assert exact_elsewhere(6, 2) == [2]


def test_an_evaluation_and_the_reference_are_those_of_one_process_to_the_bit(alone, by_two) -> None:
    one, two = alone("encode"), by_two("encode")
    assert torch.equal(one["features"].nan_to_num(9), two["features"].nan_to_num(9))
    assert one["unreadable"] == two["unreadable"]
    assert list(two["unreadable"]) == [3, 8]
    assert torch.equal(one["reference"], two["reference"])


@pytest.fixture(scope="module")
def sharded_by_two(two: Callable[..., Read]) -> Read:
    """Scenes in which each of two processes holds half of the tower."""
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not hasattr(getattr(fsdp, "FSDPModule", None), "set_force_sum_reduction_for_comms"):
        pytest.skip("this torch has no FSDP2 that adds without averaging")
    return two("sharded", "sharded-adamw", "sharded-stop", "sharded-resume")


def test_a_tower_cut_among_two_processes_follows_the_trajectory_of_one(
    alone, sharded_by_two
) -> None:
    same_trajectory(one := alone("sharded"), two := sharded_by_two("sharded"))
    for name, value in one["final"].items():
        torch.testing.assert_close(two["final"][name], value, rtol=0, atol=1e-6)
    assert two["held"] < 0.6 * one["held"]


def test_a_cut_tower_is_resumed_to_the_bit(sharded_by_two) -> None:
    whole, resumed = (sharded_by_two(f"sharded-{name}") for name in ("adamw", "resume"))
    assert [row["step"] for row in resumed["rows"]] == [4, 5, 6]
    for name, value in whole["final"].items():
        assert torch.equal(resumed["final"][name], value), name


def test_where_a_tower_cannot_be_cut_it_is_said() -> None:
    config = load_config(trainable="head", train={"fsdp": True, "compile": True})
    with pytest.raises(ConfigError, match=r"(?s)this is one.*trainable=head.*train\.compile"):
        check_sharding(config, ALONE)
    check_sharding(load_config(train={"fsdp": True}), World(rank=0, size=2))


def stops_with_words(left: Any, least: float) -> None:
    assert "no longer hears another one" in left["error"]
    assert "--resume" in left["error"]
    assert least <= left["seconds"] <= 30


def test_a_process_whose_peer_dies_stops_with_words(by_two) -> None:
    stops_with_words(by_two("die"), 0)


@pytest.mark.slow
def test_a_process_whose_peer_hangs_stops_with_words(more_by_two) -> None:
    stops_with_words(more_by_two("hang"), 3)


@pytest.mark.slow
def test_the_command_under_torchrun_speaks_and_writes_once(tmp_path: Path, make_package) -> None:
    make_package("clipalign-heard", HEARD)
    (make_package.folder / "clipalign_heard_target.py").write_text(TARGET)
    env = {"CLIPALIGN_CACHE": str(tmp_path / "cache"), **make_package.env}
    settings = ["train.steps=3", "train.batch_size=8", "dataset_options.train_views=1"]
    command = ["-m", "clipalign", "train", "--no-eval", "--trainable", "last:1"]
    command += [
        f"--set={s}"
        for s in [*settings, "train.log_every=1", "train.accumulate=2", "trackers=[heard]"]
    ]
    first, second = launch(2, [*command, "-o", "two"], env, tmp_path)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "Training 3/3" in first.stderr
    assert "activations of the frozen blocks" in first.stderr
    assert "open_clip.create_model_and_transforms('local-dir:two/model')" in first.stdout
    heard = [(tmp_path / "two" / f"heard-{rank}").is_file() for rank in (0, 1)]
    assert heard == [True, False]
    assert (tmp_path / "two" / "heard-0").read_text() == "run_started start run_finished finish "
    assert (tmp_path / "two" / "model" / "README.md").is_file()
    assert second.stdout == ""
    assert "Training" not in second.stderr
    (alone,) = launch(1, [*command, "-o", "one"], env, tmp_path)
    assert alone.returncode == 0, alone.stderr
    for name in ("metrics.jsonl", "manifest.yaml", "model/open_clip_model.safetensors"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    wrong = launch(2, [*command, "--set=train.epochs=none", "-o", "three"], env, tmp_path)
    assert [w.returncode for w in wrong] == [3, 3]
    assert "train.epochs" in wrong[0].stderr
    assert wrong[1].stderr == ""


@pytest.mark.slow
def test_eval_under_torchrun_has_the_results_of_one_process(tmp_path: Path) -> None:
    for c, label in enumerate(("cat", "dog", "cow")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(7):
            picture = Image.new("RGB", (64, 64), (40 * c, 30 * i, 99))
            picture.save(tmp_path / "photos" / label / f"{i}.png")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command = ["-m", "clipalign", "eval", "emoji-tiny", "--dataset", "photos", "--batch-size", "8"]

    def results(count: int) -> tuple[str, dict[str, bytes]]:
        env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
        done = subprocess.run(
            [sys.executable, *torchrun, str(count), *command, "-o", f"by-{count}"],
            env=env | {"CLIPALIGN_CACHE": f"cache-{count}", "OMP_NUM_THREADS": "1"},
            cwd=tmp_path, capture_output=True, text=True, timeout=800,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        files = {p.name: p.read_bytes() for p in (tmp_path / f"by-{count}").iterdir()}
        return done.stdout.replace(f"by-{count}", "by-N"), files

    (said, one), (also_said, two) = results(1), results(2)
    assert said == also_said
    assert len(one) > 1
    assert one.keys() == two.keys()
    for name in one:
        if name.endswith(".jsonl"):
            assert two[name] == one[name]
        else:
            assert json.loads(two[name])["metrics"] == json.loads(one[name])["metrics"]


def test_an_objective_with_a_state_and_pieces_is_refused() -> None:
    from clipalign.config import RunConfig, TrainConfig
    from clipalign.objectives.dpo import DPO
    from clipalign.training.preflight import check_accumulation

    loss = DPO()
    loss.register_buffer("mean", torch.zeros(()))
    check_accumulation(RunConfig(), loss)
    with pytest.raises(ConfigError, match="keeps a state, which it must update once a step"):
        check_accumulation(RunConfig(train=TrainConfig(accumulate=2)), loss)


def test_pieces_keep_the_order_and_the_tree_its_shape() -> None:
    step = Step(torch.arange(7), torch.arange(3), torch.arange(3))
    own = [piece for rank in range(4) for piece in step.pieces(8, rank, 4)]
    assert torch.cat([p.rows for p in own]).tolist() == list(range(7))
    assert torch.cat([p.regularised for p in own]).tolist() == [0, 1, 2]
    a, b, c, d, e = torch.tensor([1e8, 1.0, -1e8, 1.0, 3.0]).unbind()
    assert tree_sum([a, b, c, d, e]) == ((a + b) + (c + d)) + e
