"""`clipalign runs`: filters, curves, paired comparison, and a removal that harms nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from filelock import FileLock

from clipalign.cli import console
from clipalign.cli.app import run as run_command
from clipalign.cli.run_facts import Condition
from clipalign.config import RunConfig
from clipalign.config_text import dump_config
from clipalign.errors import UsageError
from clipalign.evals.results import DatasetIdentity, ModelIdentity, SuiteResult, write_result
from clipalign.reports.sparklines import curve_rows, read_curves, sparkline


def make_run(folder: Path, right: list[int], **config) -> Path:
    """A finished run with curves and a result in which `right` images are given their class."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(RunConfig(**config)))
    rows = [{"step": s, "loss": 1 / s, "margin": float(s), "lr": 1e-3} for s in range(1, 9)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "model").mkdir()
    (folder / "model" / "open_clip_config.json").write_text("{}")
    n = len(right)
    metric = {"value": sum(right) / n, "n": n, "higher_is_better": True, "unit": "share",
              "description": ""}  # fmt: skip
    result = SuiteResult(
        suite="retention", suite_version=1, seed=0,
        model=ModelIdentity(spec="x", sha256="0" * 64, name="x"),
        dataset=DatasetIdentity(name="d", split="test", fingerprint="f", licence="", n=n),
        metrics={"accuracy": metric, "recall_at_5": metric},
    )  # fmt: skip
    images = [
        {"key": f"i{i}", "group": f"i{i}", "label": "cat", "predicted": "cat" if r else "dog"}
        for i, r in enumerate(right)
    ]
    write_result(folder / "results" / "retention-d-test.json", result, images)
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/a"), [1, 0, 0, 0], method="kto", train={"lr": 1e-3})
    make_run(Path("runs/b"), [1, 1, 1, 0], method="dpo", method_options={"beta": 2}, seed=1)
    make_run(Path("runs/c"), [1, 1, 0, 0], method="kto", train={"lr": 1e-4})
    return tmp_path


def listed(capsys, *arguments):
    assert run_command(["runs", "list", *arguments, "--json"]) == 0
    return [Path(row["run"]).name for row in json.loads(capsys.readouterr().out)]


def test_list_filters_and_sorts_by_config_log_and_result(runs, capsys):
    assert listed(capsys) == ["a", "b", "c"]
    assert listed(capsys, "--where", "method=kto") == ["a", "c"]
    assert listed(capsys, "--where", "method!=kto") == ["b"]
    assert listed(capsys, "--where", "train.lr<=1e-4") == ["c"]
    assert listed(capsys, "--where", "accuracy>=0.5", "--where", "method=kto") == ["c"]
    assert listed(capsys, "--sort", "accuracy") == ["a", "c", "b"]
    assert listed(capsys, "--sort", "retention-d-test.accuracy", "-r") == ["b", "c", "a"]
    assert listed(capsys, "--sort", "train.lr", "-r") == ["a", "c", "b"]  # b has none: last
    assert listed(capsys, "--where", "state=unfinished") == []


def test_list_shows_more_columns(runs, capsys):
    assert run_command(["runs", "list", "--show", "accuracy", "--show", "loss"]) == 0
    text = capsys.readouterr().out
    assert "ACCURACY  LOSS" in text
    assert "0.75      0.125" in text


def add_result(run: Path, split: str, accuracy: float) -> None:
    """One more result of a run, as it stands on the disk."""
    document = {"dataset": {"split": split}, "metrics": {"accuracy": {"value": accuracy}}}
    (run / "results" / f"a-d-{split}.json").write_text(json.dumps(document))


def test_a_plain_metric_is_that_of_the_split_test(runs, capsys):
    for name, unseen in (("a", 0.9), ("b", 0.1)):
        add_result(Path("runs") / name, "test-unseen-concepts", unseen)
    assert listed(capsys, "--sort", "accuracy") == ["a", "c", "b"]
    assert listed(capsys, "--sort", "accuracy@test-unseen-concepts") == ["b", "a", "c"]
    assert listed(capsys, "--where", "accuracy>=0.5") == ["b", "c"]
    assert run_command(["runs", "list", "--show", "accuracy"]) == 0
    assert "test-unseen-concepts" not in capsys.readouterr().out


def test_a_plain_metric_of_another_split_names_it(runs, capsys):
    (Path("runs/a/results") / "retention-d-test.json").unlink()
    add_result(Path("runs/a"), "all", 0.3)
    assert run_command(["runs", "list", "--show", "accuracy", "--where", "run=runs/a"]) == 0
    assert "0.3 (all)" in capsys.readouterr().out
    add_result(Path("runs/a"), "test-unseen-style", 0.4)  # after "all" by name, and yet before it
    assert run_command(["runs", "list", "--show", "accuracy", "--where", "run=runs/a"]) == 0
    assert "0.4 (test-unseen-style)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--where", "method"], "must be KEY=VALUE"),
        (["--where", "metod=kto"], "No run has a key 'metod'. Did you mean 'method'"),
        (["--sort", "zzzz"], "A key is a column of the list"),
    ],
)
def test_a_wrong_filter_is_said_in_words(runs, capsys, arguments, words):
    assert run_command(["runs", "list", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_filter_that_nothing_meets_says_so(runs, capsys):
    assert run_command(["runs", "list", "--where", "method=ipo"]) == 0
    assert capsys.readouterr().out == "There are no runs in runs of which this holds: method=ipo.\n"


def test_conditions():
    assert Condition.parse("train.lr <= 1e-4").holds({"train.lr": "1e-5"})
    assert not Condition.parse("loss<1").holds({})
    assert Condition.parse("loss!=1").holds({})
    assert Condition.parse("data=null").holds({"data": None})
    with pytest.raises(UsageError, match="must be KEY=VALUE"):
        Condition.parse("=3")


def test_show_draws_the_curves_and_says_where_to_look_next(runs, capsys):
    assert run_command(["runs", "show", "runs/a"]) == 0
    text = capsys.readouterr().out
    assert "loss    1      █▄▃▂▂▁▁▁  0.125" in text
    assert "margin  1      ▁▂▃▄▅▆▇█  8" in text
    assert "Where to look next:" in text
    assert "clipalign transform runs/a --method interpolate --alpha auto" in text


def test_sparklines_by_hand():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 2, 6, 8], 2) == "▁█"  # means 1 and 7
    assert sparkline([3, 3, 3], 8) == "▄▄▄"
    assert sparkline([0, 7], 8, bars=False) == "_@"
    assert sparkline([], 8) == sparkline([float("nan")], 8) == ""
    assert len(sparkline(range(1000), 40)) == 40


def test_a_torn_log_has_the_curves_of_its_whole_lines(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n[1]\n{"step": 2, "lo')
    assert read_curves(tmp_path) == {"loss": [(1, 2.0)]}
    assert curve_rows(read_curves(tmp_path)) == [("loss", "2", "▄", "2")]
    assert read_curves(tmp_path / "nowhere") == {}


def test_compare_shows_different_keys_and_paired_differences(runs, capsys):
    assert run_command(["runs", "compare", "runs/a", "runs/b", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["config"] == {
        "method": ["kto", "dpo"],
        "method_options.beta": ["–", 2],
        "seed": [0, 1],
        "train.lr": [0.001, None],
    }
    [result] = document["results"]["runs/b"]
    accuracy = result["metrics"]["accuracy"]
    assert (accuracy["a"], accuracy["b"], accuracy["difference"]) == (0.25, 0.75, 0.5)
    assert (accuracy["test"], accuracy["p_value"]) == ("mcnemar-exact", 0.5)  # 2 · (1/2)²
    assert accuracy["interval"]["low"] <= 0.5 <= accuracy["interval"]["high"]
    assert result["metrics"]["recall_at_5"]["interval"] is None
    assert run_command(["runs", "compare", "runs/a", "runs/b", "runs/c"]) == 0
    text = capsys.readouterr().out
    assert "+50.0 [" in text
    assert "retention-d-test: runs/c against runs/a, 4 images" in text
    assert "Without brackets: a plain difference" in text


def test_compare_refuses_results_of_other_images(runs, capsys):
    path = Path("runs/b/results/retention-d-test.json")
    result = SuiteResult.model_validate_json(path.read_bytes())
    other = result.dataset.model_copy(update={"fingerprint": "g"})
    write_result(path, result.model_copy(update={"dataset": other, "content_sha256": None}), [])
    assert run_command(["runs", "compare", "runs/a", "runs/b"]) == 0
    assert "They were measured with different images." in capsys.readouterr().out
    assert run_command(["runs", "compare", "runs/a"]) == 2
    assert run_command(["runs", "compare", "runs/a", "runs/d"]) == 7


class TestRemoval:
    def test_yes_removes_the_runs_and_nothing_else(self, runs, capsys):
        assert run_command(["runs", "rm", "runs/a", "runs/b", "--yes"]) == 0
        assert "Removed 2 runs" in capsys.readouterr().out
        assert [p.name for p in Path("runs").iterdir()] == ["c"]

    def test_it_asks_and_a_no_keeps_everything(self, runs, capsys, monkeypatch):
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("typer.confirm", lambda question: False)
        assert run_command(["runs", "rm", "runs/a"]) == 7
        shown = capsys.readouterr()
        assert "Nothing was removed." in shown.err
        assert "runs/a" in shown.out
        assert Path("runs/a/config.yaml").is_file()
        monkeypatch.setattr("typer.confirm", lambda question: True)
        assert run_command(["runs", "rm", "runs/a"]) == 0
        assert not Path("runs/a").exists()

    def test_where_nobody_can_be_asked_it_wants_a_yes(self, runs, capsys, monkeypatch):
        monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
        for more in ([], ["--json"]):
            assert run_command(["runs", "rm", "runs/a", *more]) == 2
        assert Path("runs/a").is_dir()

    def refused(self, capsys, words, *arguments):
        assert run_command(["runs", "rm", *arguments, "--yes"]) == 7
        assert words in capsys.readouterr().err

    def test_a_link_to_a_run_is_left_alone_and_so_is_the_run(self, runs, capsys):
        os.symlink("a", "runs/link")
        self.refused(capsys, "runs/link is a link to a", "runs/link")
        self.refused(capsys, "is a link", "runs/link/")
        assert Path("runs/a/config.yaml").is_file()
        assert Path("runs/link").is_symlink()

    def test_one_refusal_keeps_all(self, runs, capsys):
        self.refused(capsys, "runs is not a run directory", "runs/a", "runs")
        assert Path("runs/a").is_dir()

    @pytest.mark.parametrize("content", ["a: [", "method: kto\n", "- 1\n", ""])
    def test_a_folder_that_happens_to_hold_a_config_is_no_run(self, runs, capsys, content):
        Path("project").mkdir()
        Path("project/config.yaml").write_text(content)
        self.refused(capsys, "project is left alone", "project", "--force")
        assert Path("project/config.yaml").read_text() == content

    def test_a_linked_config_makes_no_run(self, runs, capsys):
        Path("project").mkdir()
        os.symlink(Path("runs/a/config.yaml").resolve(), "project/config.yaml")
        self.refused(capsys, "project is not a run directory", "project")
        assert Path("project/config.yaml").is_symlink()

    def test_a_file_that_no_run_writes_is_kept_unless_forced(self, runs, capsys):
        Path("runs/a/thesis.tex").write_text("years of work")
        self.refused(capsys, "it holds thesis.tex, which no run writes", "runs/a")
        assert Path("runs/a/thesis.tex").is_file()
        assert run_command(["runs", "rm", "runs/a", "--yes", "--force"]) == 0
        assert not Path("runs/a").exists()

    def test_a_run_in_use_is_refused(self, runs, capsys):
        with FileLock("runs/a/.lock"):
            self.refused(capsys, "in use by another process", "runs/a")
        assert Path("runs/a/model").is_dir()

    def test_what_a_link_within_a_run_leads_to_stays(self, runs):
        Path("precious").mkdir()
        Path("precious/file").write_text("x")
        os.symlink(Path("precious").resolve(), "runs/a/results/link")
        os.symlink(Path("precious/file").resolve(), "runs/a/model/weights")
        assert run_command(["runs", "rm", "runs/a", "--yes"]) == 0
        assert not Path("runs/a").exists()
        assert Path("precious/file").read_text() == "x"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_tables_fit_terminals_of_any_sane_width(width):
    rows = [("runs/typographic-cross-entropy-12", "finished", 1200, "word " * 20)] * 2
    text = console.table(("RUN", "STATE", "STEP", "WHAT"), rows, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "typographic" in text
    assert ("RUN  " in text.splitlines()[0]) is True


def test_a_header_that_is_wider_than_half_the_terminal_gets_a_line(monkeypatch):
    text = console.table(("name", "difference to the reference"), [("a" * 30, "b" * 30)], width=40)
    assert text.splitlines()[2:4] == ["difference to the reference", " " * 20 + "b" * 20]


def test_no_colour_and_no_bars_where_they_cannot_be_shown(monkeypatch):
    class Ascii:
        encoding = "ascii"

    monkeypatch.setattr("sys.stdout", Ascii())
    assert not console.has_bars()
