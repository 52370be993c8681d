"""`clipalign demo`: both tasks on the embedded world, step by step, and a report at the end."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipalign.cli.console import Console, terminal_width, wrapped
from clipalign.cli.flags import DeviceOption, JsonFlag, OpenFlag, QuietFlag, output_option
from clipalign.errors import Interrupted, RunError

if TYPE_CHECKING:
    from clipalign.evals.results import SuiteResult

app = typer.Typer()

_WELCOME = """\
CLIP puts images and texts into one space and picks the text that lies nearest. This walk teaches
a small one, which ships with clipalign, two preferences, and measures what each gained and cost."""

_TYPOGRAPHIC = """\
CLIP reads: write "fox" on a picture of glasses, and it sees a fox. Training shows it such pictures
with both texts and rewards the true one over the written one (KTO), while clean pictures hold it
where it was."""

_GENDER = """\
Searched for "a police officer", this model brings up men, as the labour market that it was shown
would. A linear map on its frozen features learns the opposite preference: woman and man swapped,
the occupation kept."""

_NEUTRAL = """\
The map can be turned by a dial t: 0 is the model as it was, 1 has the bias reversed. In between
lies t*, where it is indifferent to gender and still knows the occupation; validation images find
it."""

_REPORT = """\
One page shows all of it: before and after with intervals, the pictures that were attacked, and a
slider over t that shows whom each search brings up."""


@dataclass(frozen=True)
class _Walk:
    """The places of one demo, and how much it does.

    Attributes:
        folder: holds everything.
        fast: a short form that shows the way and no good numbers.
        device: as for `clipalign train`.
        out: where it is told.
    """

    folder: Path
    fast: bool
    device: str | None
    out: Console

    @property
    def again(self) -> str:
        """The command that goes on."""
        words = ["clipalign", "demo", "-o", str(self.folder), *(["--fast"] if self.fast else [])]
        return shlex.join(words)

    def keys(self, task: str) -> dict[str, Any]:
        """Configuration of a task's run: the defaults; few images and steps for the short form."""
        keys: dict[str, Any] = {"task": task, "method": "kto"}
        if self.fast and task == "typographic":
            keys |= {
                "dataset_options": {"concepts": 25, "train_views": 1},
                "train.steps": 3,
                "train.batch_size": 16,
            }
        elif self.fast:
            keys |= {"dataset": "emoji-people", "dataset_options": {"test_views": 1}}
            keys |= {"train.steps": 60}
        return keys


@app.command()
def demo(
    output: Annotated[
        Path | None, output_option("Folder of everything; demo/ if left out.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="A short form, to see the way and not the numbers.")
    ] = False,
    open_it: OpenFlag = False,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Walk through both tasks on the embedded world in a few minutes, and write a report.

    Nothing is downloaded. Ctrl-C is safe: the same command goes on where it stopped.

    \b
    Examples:
      clipalign demo
      clipalign demo --open
      clipalign demo --fast -o /tmp/demo
    """
    out = Console(json=as_json, quiet=quiet)
    folder = output or Path("demo-fast" if fast else "demo")
    walk = _Walk(folder, fast, device, out)
    out.say(f"{wrapped(_WELCOME)}\n")
    out.load("torch")
    from clipalign.training.signals import StopSignal

    try:
        with StopSignal():
            document, path = _walk(walk)
    except Interrupted:
        raise Interrupted(f"Stopped. What was done is kept. Go on with: {walk.again}") from None
    text = f"Report: {path}\n\nNext, with your own images: clipalign train --help"
    out.result(document, text)
    if open_it:
        import webbrowser

        if not webbrowser.open(path.resolve().as_uri()):
            out.note(f"There is no browser here. Open {path} in one.")


def _walk(walk: _Walk) -> tuple[dict[str, Any], Path]:
    """All steps; those that are done are passed over."""
    from clipalign.reports.report import report

    typographic = _step(walk, 1, "A word on the picture", _TYPOGRAPHIC, "typographic")
    gender = _step(walk, 2, "Whom a search brings up", _GENDER, "gender")
    _explain(walk, "3 of 4. Neither", _NEUTRAL)
    neutral, statement = _neutral(walk)
    walk.out.say(f"{wrapped(statement)}\n")
    _tell(walk, neutral)
    _explain(walk, "4 of 4. The report", _REPORT)
    folder = walk.folder
    made = report(
        folder / "typographic",
        folder / "gender",
        folder / "neutral" / "results",
        output=folder / "report.html",
        wall=24 if walk.fast else 240,
        scan="-1:1:0.5" if walk.fast else "-2:1.2:0.1",
        device=walk.device,
        reporter=walk.out,
    )
    results = [*typographic, *gender, *neutral]
    document = {
        "report": str(made.path),
        "neutral": statement,
        "headline": [result.model_dump(mode="json") for result in made.headline],
        "results": len(results),
        "problems": list(made.problems),
    }
    return document, made.path


def _step(walk: _Walk, number: int, title: str, words: str, task: str) -> list[SuiteResult]:
    """Train a task's run and measure it, as far as that is not done."""
    _explain(walk, f"{number} of 4. {title}", words)
    run = walk.folder / task
    _trained(walk, run, task)
    results = _measured(walk, run)
    _tell(walk, results)
    return results


def _trained(walk: _Walk, run: Path, task: str) -> None:
    """Train the run, go on with it, or leave it as it is.

    Raises:
        RunError: it is the run of the other form of the demo.
    """
    from clipalign.config import load_config
    from clipalign.models.spec import is_run
    from clipalign.training.defaults import resolved
    from clipalign.training.rundir import RunDirectory
    from clipalign.training.train import train

    keys = walk.keys(task)
    keys["dataset_options"] = keys.get("dataset_options", {})
    if not is_run(run):
        train(output=run, device=walk.device, reporter=walk.out, **keys)
        return
    directory, config = RunDirectory.open(run)
    if config != resolved(load_config(None, (), output=config.output, **keys)):
        raise RunError(
            f"{run} is a run of other settings than this demo's. Choose another --output."
        )
    if not directory.finished:
        train(resume=run, device=walk.device, reporter=walk.out)


def _measured(walk: _Walk, run: Path) -> list[SuiteResult]:
    """The results of a run, measured where one is missing."""
    from clipalign.config import load_config
    from clipalign.datasets.locate import load_dataset
    from clipalign.evals.evaluate import default_splits, evaluate_run
    from clipalign.evals.results import read_result

    config = load_config(run / "config.yaml")
    wanted = default_splits(load_dataset(config.dataset, config.dataset_options))
    paths = sorted((run / "results").glob("*.json"), key=lambda path: path.stem)
    found = [read_result(path) for path in paths]
    if {result.dataset.split for result in found} >= set(wanted):
        return found
    return evaluate_run(run, device=walk.device, reporter=walk.out)


def _neutral(walk: _Walk) -> tuple[list[SuiteResult], str]:
    """The model at t*, its results, and how t* was found."""
    from clipalign.config import load_config
    from clipalign.evals.evaluate import evaluate
    from clipalign.evals.results import read_result
    from clipalign.plain_yaml import read_yaml_mapping
    from clipalign.transforms.context import RECORD
    from clipalign.transforms.neutral import Neutral
    from clipalign.transforms.transform import transform

    run, model = walk.folder / "gender", walk.folder / "neutral"
    if not (model / RECORD).is_file():
        transform(run, t="auto", output=model, device=walk.device, reporter=walk.out)
    record = read_yaml_mapping(model / RECORD)
    statement = Neutral.rebuild(record["transform"]["neutral"]).statement()
    paths = sorted((model / "results").glob("*.json"))
    if paths:
        return [read_result(path) for path in paths], statement
    config = load_config(run / "config.yaml")
    results = evaluate(
        model,
        suites=["gender"],
        against=config.model,
        dataset=config.dataset,
        dataset_options=config.dataset_options,
        output=model / "results",
        device=walk.device,
        retention=True,
        reporter=walk.out,
    )
    return results, statement


def _explain(walk: _Walk, title: str, words: str) -> None:
    """What a step is about, before it is taken."""
    walk.out.say(f"{title}\n\n{wrapped(words)}\n")


def _tell(walk: _Walk, results: list[SuiteResult]) -> None:
    """Aims and costs of the first result, as a table."""
    from clipalign.reports.headline import headline
    from clipalign.reports.tables import summary_table

    if results:
        shown = summary_table([headline(results[0])], width=terminal_width())
        walk.out.say(f"{shown}\n")
