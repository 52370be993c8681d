"""`clipalign report`: runs and results as one page that opens anywhere, and the gist here."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipalign.cli.console import Console, has_bars, terminal_width, wrapped
from clipalign.cli.flags import (
    DatasetSetOption,
    DeviceOption,
    JsonFlag,
    OpenFlag,
    QuietFlag,
    all_settings,
    check_dataset_is_named,
    complete_runs,
    dataset_option,
    dataset_options,
    output_option,
    run_argument,
    set_option,
)
from clipalign.errors import RunError, UsageError
from clipalign.transforms.scan_values import parse_scan

if TYPE_CHECKING:
    from clipalign.reports.report import ReportResult

app = typer.Typer()


@app.command()
def report(
    paths: Annotated[
        list[Path] | None,
        run_argument(
            "Runs, result files or folders of them, scans of t; the newest run if left out.",
            "RUN|RESULTS",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        output_option("The page; report.html in the one run, or here, if left out.", "FILE"),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write every plot there, as PNG and SVG."),
    ] = None,
    scan: Annotated[
        str, typer.Option(metavar="A:B:STEP", help="Values of t that the slider of a head visits.")
    ] = "-2:1.2:0.1",
    wall: Annotated[
        int, typer.Option(min=0, max=5000, help="Attacked images on the page, at most; 0 for none.")
    ] = 240,
    dataset: Annotated[
        str | None,
        dataset_option("Where the images are now, if not where they were measured."),
    ] = None,
    settings: Annotated[
        list[str] | None, set_option("Option of that dataset.", "dataset.KEY=VALUE")
    ] = None,
    dataset_settings: DatasetSetOption = None,
    device: DeviceOption = None,
    open_it: OpenFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Show runs and results as one page: what changed, what it cost, and the images behind it.

    The page is a single file. It needs no network, reads on a phone, prints, and follows the
    system's light or dark. Several runs stand side by side.

    \b
    Examples:
      clipalign report                                  # the newest run
      clipalign report runs/kto --open
      clipalign report runs/dpo runs/kto -o both.html --plots figures/
      clipalign report models/neutral/results/gender-emoji-people-test.json
      clipalign report runs/kto --dataset /data/photos  # the images have moved
    """
    out = Console(json=as_json, quiet=quiet)
    chosen = paths or [_newest()]
    options = dataset_options(all_settings(settings, dataset_settings))
    check_dataset_is_named(options, dataset)
    _check(chosen)
    parse_scan(scan)
    out.note("Gathering results and images…")
    from clipalign.reports.report import report as write_report

    made = write_report(
        *chosen,
        output=output,
        plots=plots,
        scan=scan,
        wall=wall,
        dataset=dataset,
        dataset_options=options,
        device=device,
        reporter=out,
    )
    for problem in made.problems:
        out.note(f"Warning: {problem}")
    out.result(made.document(), report_text(made))
    if open_it and not webbrowser.open(made.path.resolve().as_uri()):
        out.note(f"There is no browser here. Open {made.path} in one.")


def report_text(made: ReportResult) -> str:
    """The gist for a terminal: aims and costs of each result, the curves, and where the page is."""
    from clipalign.reports.legend import legend
    from clipalign.reports.sparklines import sparkline
    from clipalign.reports.tables import summary_table

    parts = [summary_table(made.headline, width=terminal_width())] if made.headline else []
    for name, series in made.curves.items():
        lines = [
            f"  {key.replace('_', ' '):<16} {sparkline(values, 40, bars=has_bars())}  "
            f"{values[0]:.3g} → {values[-1]:.3g}"
            for key, values in series.items()
        ]
        if lines:
            explained = [wrapped(words, indent="  ") for words in legend(series)]
            parts.append("\n".join([f"Training of {name}", *lines, *explained]))
    where = [f"Report: {made.path}"]
    if made.plots:
        where.append(f"Plots:  {made.plots[0].parent} ({len(made.plots)} files)")
    return "\n\n".join([*parts, "\n".join(where)])


def report_line(*paths: Path) -> str:
    """The line with which other commands end."""
    import shlex

    return f"Report: {shlex.join(['clipalign', 'report', *map(str, paths)])}"


def _newest() -> Path:
    from clipalign.training.rundir import newest_run

    run = newest_run()
    if run is None:
        raise UsageError(
            "There is no finished run in runs/. Name a run or a result, or make one: "
            "clipalign train"
        )
    return run


def _check(paths: list[Path]) -> None:
    """Refuse what is not there before anything heavy is loaded."""
    from clipalign.errors import near_matches

    for path in paths:
        if not path.exists():
            known = complete_runs("")
            raise RunError(f"There is no file or directory {path}.{near_matches(str(path), known)}")
