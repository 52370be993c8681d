"""End to end on the embedded world: made, measured, stopped, gone on with, reported."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from clipalign.cli.app import run as run_command
from clipalign.comparison import compare as module
from clipalign.comparison.defaults import taken
from clipalign.comparison.plan import make_plan
from clipalign.comparison.records import check_definitions
from clipalign.errors import Interrupted, RunError
from tests.conftest import Notes

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("module_cache")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small random CLIP, so that the world and not the model takes the time."""
    import torch
    from safetensors.torch import save_file

    from clipalign.models.library import build_clip

    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {
        "model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3},
    }
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = build_clip(config).state_dict()
    save_file(state, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def recipe(tiny: str, **changes: Any) -> dict[str, Any]:
    return {
        "title": "Tiny",
        "base": {
            "model": tiny,
            "task": "typographic",
            "dataset_options": {"views": 1, "train_views": 1},
            "train": {"steps": 3, "batch_size": 4, "lr": 1e-3, "checkpoint_every_steps": 1},
        },
        "methods": {
            "reference": {"model": "base"},
            "broken": {"set": {"data": "nowhere/prefs"}},
            "kto": {"set": {"method": "kto"}},
            "half": {"of": "kto", "transform": {"method": "interpolate", "alpha": 0.5}},
            "of broken": {"of": "broken", "transform": {"method": "interpolate", "alpha": 0.5}},
        },
        "baseline": "reference",
        "evaluate": [{"suite": "typographic", "splits": ["test"], "options": {"resamples": 100}}],
        **changes,
    }


@pytest.fixture(scope="module")
def alive() -> list[int]:
    """How many models are held after each cell of `made`."""
    return []


@pytest.fixture(scope="module")
def made(tiny: str, tmp_path_factory: pytest.TempPathFactory, alive: list[int]) -> Any:
    import clipalign
    from clipalign.models.loaded import LoadedModel

    def models() -> int:
        return sum(type(thing) is LoadedModel for thing in gc.get_objects())

    def counted() -> None:
        hand_back()
        alive.append(models() - before)

    gc.collect()  # what other tests left is not to go meanwhile
    before, hand_back = models(), module._hand_back
    output = tmp_path_factory.mktemp("comparison") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_hand_back", counted)
        return clipalign.compare(recipe(tiny), output=output)


def test_every_cell_is_made_and_a_failing_one_stops_nothing(made: Any) -> None:
    states = {cell.method: cell.state for cell in made.summary.cells}
    assert states == {
        "reference": "finished", "broken": "failed", "kto": "finished", "half": "finished",
        "of broken": "failed",
    }  # fmt: skip
    reasons = {cell.method: cell.reason for cell in made.summary.cells}
    assert "nowhere/prefs is not a preference set" in reasons["broken"]
    assert reasons["of broken"] == "It is made from broken-s0, which is not finished."
    run = made.output / "cells" / "kto-s0"
    assert (run / "config.yaml").is_file()
    assert (run / "results" / "typographic-emoji-test.json").is_file()
    edited = made.output / "cells" / "half-s0" / "model"
    assert f"source: {run}" in (edited / "transform.yaml").read_text()


def test_after_a_cell_the_reference_alone_is_held(made: Any, alive: list[int]) -> None:
    assert alive == [1] * 5


def test_the_table_is_of_the_files(made: Any) -> None:
    [panel] = made.summary.panels
    rows = {row.method: row for row in panel.rows}
    assert set(rows) == {"reference", "kto", "half"}
    path = made.output / "cells" / "kto-s0" / "results" / "typographic-emoji-test.json"
    metrics = json.loads(path.read_text())["metrics"]
    for axis in ("attacked_accuracy", "clean_accuracy", "kl_to_reference"):
        assert rows["kto"].entries[axis].mean == metrics[axis]["value"]
        assert rows["kto"].entries[axis].interval is not None
    assert rows["reference"].entries["kl_to_reference"].mean == pytest.approx(0, abs=1e-6)
    assert rows["half"].entries["kl_to_reference"].mean > 0
    compared = {c["metric"]: c for c in json.loads(path.read_text())["comparisons"]}
    tested = {t.metric: t for t in rows["kto"].tests}
    for metric in ("attacked_accuracy", "clean_accuracy"):  # the suite's own paired test
        assert tested[metric].p_value == compared[metric]["p_value"]
        assert tested[metric].difference == pytest.approx(compared[metric]["difference"])


def test_a_second_call_makes_nothing_again(made: Any, tiny: str) -> None:
    import clipalign

    def times() -> dict[Path, int]:
        kept = ("kto-s0", "half-s0", "reference")
        files = [p for name in kept for p in (made.output / "cells" / name).rglob("*")]
        return {p: p.stat().st_mtime_ns for p in files if p.is_file()}

    before = times()
    again = clipalign.compare(recipe(tiny), output=made.output)
    assert times() == before
    assert again.summary == made.summary


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    made: Any,
    tiny: str,
    tmp_path: Path,
    notes: Notes,
) -> None:
    import clipalign

    output = tmp_path / "stopped"
    shutil.copytree(made.output, output)
    run, record = output / "cells" / "kto-s0", output / "cells" / "kto-s0.json"
    weights = (run / "model" / "open_clip_model.safetensors").read_bytes()
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "results")
    shutil.rmtree(run / "checkpoints" / "step-00000003")
    document = json.loads(record.read_text())
    del document["sha256"]  # as an earlier version wrote it
    record.write_text(json.dumps({**document, "state": "started", "results": {}}))
    content = recipe(tiny)
    del content["methods"]["broken"], content["methods"]["of broken"]
    result = clipalign.compare(content, output=output, reporter=notes)
    assert "Going on from step 2 of 3." in notes.lines
    assert (run / "model" / "open_clip_model.safetensors").read_bytes() == weights
    assert not result.failed
    assert [p.evaluation for p in result.summary.panels] == ["typographic"]


def test_another_evaluation_measures_again_and_trains_nothing(
    made: Any, tiny: str, tmp_path: Path
) -> None:
    import clipalign

    output = tmp_path / "measured"
    shutil.copytree(made.output, output)
    content = recipe(tiny)
    for method in ("broken", "of broken", "half"):
        del content["methods"][method]
    content["evaluate"] = [
        {"suite": "typographic", "splits": ["validation"], "options": {"resamples": 100}},
        {
            "suite": "retention",
            "options": {"resamples": 100},
            "show": ["recall_image_to_text_at_5"],
        },
    ]
    model = output / "cells" / "kto-s0" / "model" / "open_clip_model.safetensors"
    before = model.stat().st_mtime_ns
    result = clipalign.compare(content, output=output)
    assert model.stat().st_mtime_ns == before
    assert [(p.evaluation, p.split) for p in result.summary.panels] == [
        ("typographic", "validation"), ("retention", "test-unseen-concepts"),
    ]  # fmt: skip
    # what is retained is paired too, from the rows of the suite of that name
    assert result.summary.panels[1].rows[1].entries["accuracy"].interval is not None


def test_a_broken_off_evaluation_goes_on_and_another_one_begins_anew(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import clipalign
    from tests.comparison.conftest import made_up_result

    done = tmp_path / "out/cells/reference/results/typographic-emoji-validation.json"
    was_there = []

    def broken_off(*_: Any, **__: Any) -> None:
        was_there.append(done.exists())
        made_up_result(done, [1], [1], [0])
        raise Interrupted("by hand")

    monkeypatch.setattr("clipalign.evals.evaluate.evaluate", broken_off)
    content = recipe(tiny, methods={"reference": {"model": "base"}}, baseline=None)
    for resamples in (100, 100, 200, 200):
        evaluation = {"suite": "typographic", "splits": ["validation", "test"]}
        content["evaluate"] = [{**evaluation, "options": {"resamples": resamples}}]
        with pytest.raises(Interrupted):
            clipalign.compare(content, output=tmp_path / "out")
    with pytest.raises(Interrupted):
        clipalign.compare(content, output=tmp_path / "out", only_missing=False)
    assert was_there == [False, True, False, True, False]


def test_cells_of_another_recipe_are_not_touched(made: Any, tiny: str) -> None:
    import clipalign

    content = recipe(tiny)
    content["base"]["train"]["steps"] = 4
    with pytest.raises(RunError, match=r"kto-s0 differs in config\.train\.steps"):
        clipalign.compare(content, output=made.output)


def test_cells_of_other_defaults_are_not_those_of_the_same_recipe(
    made: Any, tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import clipalign
    from clipalign.objectives.kto import KTO, KTOOptions

    class Later(KTOOptions):  # of a next version, which also has an option more
        desirable_weight: float = 1.5
        more: int = 1

    kept = json.loads((made.output / "cells" / "kto-s0.json").read_text())["taken"]
    assert kept["train.lr"] == 1e-3
    assert kept["train.averaging_options"] == {"alpha": 0.7}
    assert kept["regulariser_weight"] == KTO.regulariser_weight
    assert kept["method_options"]["desirable_weight"] == 1.0
    assert kept["task_options"]["styles"] == ["outlined", "note"]
    assert kept["dataset_options"]["train_views"] == 1

    monkeypatch.setattr(KTO, "regulariser_weight", 2.5)
    monkeypatch.setattr(KTO, "Options", Later)
    different = r"with other defaults of method_options\.desirable_weight, regulariser_weight\n"
    with pytest.raises(RunError, match=different):
        clipalign.compare(recipe(tiny), output=made.output)
    assert run_command(["compare", str(made.output), "--dry-run"]) == 7
    advice = f"clipalign compare {made.output} --report-only"
    assert advice in " ".join(capsys.readouterr().err.split())
    # what was measured is still told
    assert run_command(["compare", str(made.output), "--report-only"]) == 1  # two cells failed
    assert "kto" in capsys.readouterr().out


def test_what_is_trained_already_is_measured_whatever_the_defaults_became(
    made: Any, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import clipalign
    from clipalign.objectives.kto import KTO

    output = tmp_path / "out"
    shutil.copytree(made.output, output)
    record = output / "cells" / "kto-s0.json"
    before = json.loads(record.read_text())
    monkeypatch.setattr(KTO, "regulariser_weight", 2.5)
    content = recipe(tiny)
    for name in ("broken", "of broken", "half"):
        del content["methods"][name]
    clipalign.compare(content, output=output, only_missing=False)
    assert json.loads(record.read_text()) == before  # with what it was trained with

    del before["sha256"]
    record.write_text(json.dumps({**before, "taken": {}}))  # its config.yaml knows as well
    content["methods"]["dpo"] = {"set": {"method": "dpo"}}
    with pytest.raises(RunError, match=r"kto-s0 was made with other defaults of regulariser_w"):
        clipalign.compare(content, output=output)


def test_all_options_of_a_cell_are_recorded(tmp_path: Path) -> None:
    from clipalign.objectives.dpo import DPO

    terms = ["dpo", {"kto": {"weight": 0.3, "desirable_weight": 2.0}}]
    methods = {
        "sum": {"set": {"objective": terms}},
        "ema": {"set": {"train": {"averaging": "ema"}}},
        "half": {"transform": {"method": "interpolate", "dataset": "emoji"}},
    }
    a, b, c = map(taken, make_plan({"methods": methods}, tmp_path).cells)
    assert a["objective"]["0.dpo"]["beta"] == DPO.Options().beta
    assert a["objective"]["1.kto"]["desirable_weight"] == 2.0
    assert a["objective"]["1.kto"]["undesirable_weight"] == 1.0
    assert a["train.averaging_options"] == {"alpha": 0.7}
    assert b["train.averaging_options"] == {"decay": 0.99}
    assert c == {"transform_options": {"alpha": "auto", "against": None, "metric": None}}


def test_what_was_made_of_a_cell_that_is_gone_is_refused(
    made: Any, tiny: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(made.output, output, ignore=shutil.ignore_patterns("kto-s0"))
    with pytest.raises(RunError, match="half-s0 was made from kto-s0, which is gone"):
        check_definitions(make_plan(recipe(tiny), output), to_be_made=True)


@pytest.mark.parametrize("flag", ["--dry-run", "--report-only"])
def test_cells_of_another_recipe_are_not_shown_as_those_of_this_one(
    made: Any, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    content = recipe(tiny)
    content["base"]["train"]["steps"] = 4
    (tmp_path / "other.yaml").write_text(json.dumps(content))
    assert run_command(["compare", str(tmp_path / "other.yaml"), "-o", str(made.output), flag]) == 7
    assert "kto-s0 differs in config.train.steps" in capsys.readouterr().err


def test_cells_made_before_a_key_was_there_are_the_same_cells(made: Any, tiny: str) -> None:
    import clipalign

    record = made.output / "cells" / "kto-s0.json"
    kept = record.read_text()
    document = json.loads(kept)
    del document["sha256"], document["definition"]["config"]["train"]["log_every"]
    record.write_text(json.dumps(document))
    weights = made.output / "cells" / "kto-s0" / "model" / "open_clip_model.safetensors"
    before = weights.stat().st_mtime_ns
    try:
        clipalign.compare(recipe(tiny), output=made.output)
    finally:
        record.write_text(kept)
    assert weights.stat().st_mtime_ns == before


def test_a_base_model_whose_weights_changed_is_refused(
    made: Any, tiny: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    import clipalign

    model, output = tmp_path / "model", tmp_path / "out"
    shutil.copytree(tiny.removeprefix("local-dir:"), model)
    content = recipe(f"local-dir:{model}", methods={"reference": {"model": "base"}})
    clipalign.compare(content, output=output)
    weights = load_file(model / "open_clip_model.safetensors")
    save_file({k: v + 0.1 for k, v in weights.items()}, model / "open_clip_model.safetensors")
    content["methods"]["kto"] = {"set": {"method": "kto"}}
    with pytest.raises(RunError, match="reference was made from and measured against"):
        clipalign.compare(content, output=output)
    assert not (output / "cells" / "kto-s0").exists()


def test_an_output_in_use_is_refused(made: Any, tiny: str) -> None:
    from filelock import FileLock

    import clipalign

    lock = FileLock(made.output / ".lock")
    with lock, pytest.raises(RunError, match="in use by another comparison"):
        clipalign.compare(recipe(tiny), output=made.output)


def test_the_command_says_what_failed_by_its_exit_code(
    made: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = ["compare", str(made.output), "--report-only", "--quiet"]
    assert run_command(shown) == 1  # a DataError and a RunError
    text = capsys.readouterr().out
    assert "3 of 5 cells are finished, 2 failed." in text
    assert f"What is missing is made by: clipalign compare {made.output}" in text
    assert run_command([*shown, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["summary"]["title"] == "Tiny"
    assert document["files"][0] == str(made.output / "compare.json")


def test_a_stop_keeps_what_was_done_and_says_how_to_go_on(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import clipalign

    def stopped(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("clipalign.evals.evaluate.evaluate", stopped)
    content = recipe(tiny, methods={"reference": {"model": "base"}}, baseline=None)
    with pytest.raises(Interrupted, match=f"clipalign compare {tmp_path / 'out'}"):
        clipalign.compare(content, output=tmp_path / "out")
    record = json.loads((tmp_path / "out" / "cells" / "reference.json").read_text())
    assert record["state"] == "started"
    assert (tmp_path / "out" / "recipe.yaml").is_file()
