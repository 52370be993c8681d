"""A run directory is made once, held by one process, and never guessed."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from clipalign.config import RunConfig, load_config
from clipalign.errors import ConfigError, RunError
from clipalign.files import append_jsonl, atomic_write_text
from clipalign.training import rundir
from clipalign.training.rundir import RunDirectory, newest_run


def test_numbered_runs_count_up_and_keep_their_configuration(tmp_path: Path) -> None:
    config = RunConfig(method="dpo", seed=5)
    first = RunDirectory.create(config, tmp_path)
    second = RunDirectory.create(config, tmp_path)
    assert [first.path.name, second.path.name] == ["typographic-dpo-1", "typographic-dpo-2"]
    assert load_config(first.config) == config


def test_a_number_is_never_used_twice_even_when_a_run_in_between_is_gone(tmp_path: Path) -> None:
    config = RunConfig()
    (tmp_path / "typographic-kto-7").mkdir()
    assert RunDirectory.create(config, tmp_path).path.name == "typographic-kto-8"


def test_an_output_that_holds_something_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="already holds files"):
        RunDirectory.create(RunConfig(output=tmp_path / "mine"))
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_an_output_that_holds_a_run_says_how_to_go_on(tmp_path: Path) -> None:
    config = RunConfig(output=tmp_path / "run")
    run = RunDirectory.create(config)
    append_jsonl(run.metrics, {"step": 1, "loss": 0.5})
    with run.lock():
        pass
    with pytest.raises(RunError, match="--resume"):
        RunDirectory.create(config)


def test_a_run_that_failed_before_its_first_step_gives_way(tmp_path: Path) -> None:
    """A mistake in its configuration is mended and the same command given again."""
    wrong = RunDirectory.create(RunConfig(output=tmp_path / "run", seed=1))
    with pytest.raises(RunError, match="in use"):  # while it goes on
        RunDirectory.create(RunConfig(output=tmp_path / "run", seed=2))
    wrong.write_environment({})
    wrong.checkpoints.mkdir()
    with wrong.lock():
        pass
    run = RunDirectory.create(RunConfig(output=tmp_path / "run", seed=2))
    assert load_config(run.config).seed == 2
    assert not (run.path / "environment.json").exists()
    with run.lock():
        pass
    (run.path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="already holds a run"):
        RunDirectory.create(RunConfig(output=tmp_path / "run"))


def test_a_run_in_use_is_refused(tmp_path: Path) -> None:
    run = RunDirectory.create(RunConfig(output=tmp_path / "run"))
    again, _ = RunDirectory.open(run.path)
    with run.lock(), pytest.raises(RunError, match="in use"), again.lock():
        pass
    with again.lock():  # and free again afterwards
        pass


def test_of_two_that_begin_at_once_one_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, refused = RunConfig(output=tmp_path / "run", seed=1), []

    def write(path: Path, text: str) -> None:
        if not refused:  # the second comes when the first has looked and not yet written
            refused.append(RunConfig(output=tmp_path / "run", seed=2))
            with pytest.raises(RunError, match="in use by another process"):
                RunDirectory.create(refused[0])
        atomic_write_text(path, text)

    monkeypatch.setattr(rundir, "atomic_write_text", write)
    run = RunDirectory.create(config)
    assert load_config(run.config) == config
    with pytest.raises(RunError, match="in use"), RunDirectory(run.path).lock():
        pass  # it is held from the beginning
    copy = pickle.loads(pickle.dumps(run))
    assert copy == run
    with run.lock():
        pass
    with copy.lock():
        pass


def test_opening_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no config\.yaml"):
        RunDirectory.open(tmp_path)


def test_metrics_after_the_checkpoint_and_torn_lines_go(tmp_path: Path) -> None:
    run = RunDirectory.create(RunConfig(output=tmp_path / "run"))
    rows = [{"step": s, "loss": 1 / s} for s in (1, 10, 20)]
    run.metrics.write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"step": 3')
    run.truncate_metrics(10)
    assert [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()] == [1, 10]


def test_a_changed_log_is_refused_where_its_hash_is_known(tmp_path: Path) -> None:
    run = RunDirectory.create(RunConfig(output=tmp_path / "run"))
    append_jsonl(run.metrics, {"step": 1, "loss": 0.5})
    known = run.metrics_sha256()
    append_jsonl(run.metrics, {"step": 2, "loss": 0.4})
    changed = run.metrics.read_text().replace("0.5", "0.6")
    run.truncate_metrics(1, known)
    assert run.metrics_sha256() == known
    run.metrics.write_text(changed)
    with pytest.raises(RunError, match=r"metrics\.jsonl is not what was written"):
        run.truncate_metrics(1, known)
    assert run.metrics.read_text() == changed


def test_a_changed_configuration_is_not_gone_on_with(tmp_path: Path) -> None:
    run = RunDirectory.create(RunConfig(output=tmp_path / "run"))
    run.config.write_text(run.config.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(RunError, match=r"config\.yaml is not what was written"):
        RunDirectory.open(run.path)


@pytest.mark.parametrize("key", ["method: margin", "trackers: [mine]"])
def test_a_name_that_was_registered_for_a_session_is_asked_for_again(key: str, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(f"{key}\n")
    with pytest.raises(ConfigError, match=r"There is no(.|\n)*clipalign\.register, go on from Py"):
        RunDirectory.open(tmp_path)
    (tmp_path / "config.yaml").write_text("sed: 1\n")
    with pytest.raises(ConfigError, match=r"unknown key. Did you mean 'seed'\?$"):
        RunDirectory.open(tmp_path)


def test_what_a_kill_left_is_no_run_and_goes_with_the_next_one(tmp_path: Path) -> None:
    config = RunConfig(output=tmp_path / "run")
    torn = tmp_path / "run" / ".clipalign-0123456789abcdef.tmp"
    torn.parent.mkdir()
    torn.write_text("model: em")
    run = RunDirectory.create(config)
    half = run.checkpoints / ".step-00000002.77"
    half.mkdir(parents=True)
    run.sweep()
    assert not torn.exists()
    assert not half.exists()
    assert run.config.is_file()


def test_the_newest_run_is_the_one_finished_last(tmp_path: Path) -> None:
    assert newest_run(tmp_path) is None
    for place, name in enumerate(("b", "a", "unfinished")):
        run = RunDirectory.create(RunConfig(output=tmp_path / name))
        if name != "unfinished":
            run.model.mkdir()
            file = run.model / "open_clip_config.json"
            file.write_text("{}")
            os.utime(file, (place, place))
    assert newest_run(tmp_path) == tmp_path / "a"
