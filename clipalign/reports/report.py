"""`report`: one HTML file about runs and results, and the plots as files."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipalign.arguments import check_whole, plain_arguments
from clipalign.errors import UsageError
from clipalign.evals.results import SuiteResult
from clipalign.files import atomic_write_text, check_writable
from clipalign.progress import Reporter, heard_by
from clipalign.reports.boards import boards_of
from clipalign.reports.classes import class_tables
from clipalign.reports.curves import training_charts
from clipalign.reports.gallery import Gallery, build_gallery
from clipalign.reports.headline import headline
from clipalign.reports.html import Page, render
from clipalign.reports.pictures import Images
from clipalign.reports.plots import write_plots
from clipalign.reports.provenance import provenance_of
from clipalign.reports.scans import gallery_charts, turned
from clipalign.reports.sources import Source, find_sources
from clipalign.reports.wall import Wall, build_wall
from clipalign.transforms.scan_values import parse_scan

__all__ = ["WALL", "ReportResult", "report"]

WALL = 240
"""Attacked images on a page, if nothing else is said."""


@dataclass(frozen=True)
class ReportResult:
    """What was made.

    Attributes:
        path: the page.
        plots: files of plots.
        headline: results with their aims and costs alone.
        curves: measure → values over training, of each source by name.
        problems: what is missing on the page, in words.
    """

    path: Path
    plots: tuple[Path, ...]
    headline: tuple[SuiteResult, ...]
    curves: Mapping[str, Mapping[str, Sequence[float]]]
    problems: tuple[str, ...]

    def __fspath__(self) -> str:
        """The page, so that it stands wherever a path does: `open(result)`."""
        return str(self.path)

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "report": str(self.path),
            "plots": [str(path) for path in self.plots],
            "headline": [result.model_dump(mode="json") for result in self.headline],
            "problems": list(self.problems),
        }


@plain_arguments
def report(
    *paths: str | os.PathLike[str],
    output: str | Path | None = None,
    plots: str | Path | None = None,
    scan: str = "-2:1.2:0.1",
    wall: int = WALL,
    dataset: str | Path | None = None,
    dataset_options: Mapping[str, Any] | None = None,
    device: str | None = None,
    reporter: Reporter | bool | None = None,
) -> ReportResult:
    """Write one self-contained HTML file about runs and results.

        clipalign.report("runs/kto")
        clipalign.report("runs/dpo", "runs/kto", output="both.html", plots="figures/")

    Args:
        *paths: run directories, folders of results, results, or scans (see
            `clipalign.reports.sources`); several stand side by side.
        output: of the page; None for report.html in the one run, or here.
        plots: folder of the plots as PNG and SVG; None writes none.
        scan: "A:B:STEP", to which the map of a run that trained a head is turned.
        wall: attacked images on the page, at most.
        dataset: where the images are, if not where the results say: a name, folder or table.
        dataset_options: of that dataset.
        device: "cpu", "cuda", …, for features that are not in the cache.
        reporter: hears what is being done; True prints it in plain lines on standard error.

    Returns:
        Where it is, and what is missing in it.

    Raises:
        UsageError: a path is nothing to report on, a number cannot be, or a package is not
            installed.
        DataError, ConfigError, RunError: something that is read is damaged.
        StorageError: it cannot be written.
    """
    say = heard_by(reporter)
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            raise UsageError(
                f"report takes paths, and not a {type(path).__name__}: a list of them is given as "
                "report(*paths)."
            )
    named = [os.fspath(path) for path in paths]
    check_whole("wall", wall, 0)
    ts = parse_scan(scan)
    sources = find_sources(named)
    target = Path(output) if output is not None else _default_output(sources)
    for place in (target, plots):
        if place is not None:
            check_writable(place)
    images = Images(dataset, dataset_options or {})
    walls: list[Wall] = []
    galleries: list[Gallery] = []
    for source in sources:
        built = build_wall(source, images, wall, say) if wall else None
        walls += [built] if built else []
        galleries += build_gallery(source, images, ts, device, say)
    curves = training_charts(sources)
    shown = {g.title for g in galleries if g.scan}  # with curves of their own
    scans = [turned(s.name, s.scan) for s in sources if s.scan and s.name not in shown]
    page = Page(
        title=" and ".join(s.name for s in sources) if len(sources) < 4 else _counted(sources),
        sources=[(s.name, _about(s)) for s in sources],
        command=shlex.join(["clipalign", "report", *named]),
        boards=boards_of(sources),
        curves=curves,
        walls=walls,
        galleries=galleries,
        scans=scans,
        tables=[table for s in sources for table in class_tables(s)],
        provenance=[provenance_of(s) for s in sources],
        notes=[note for s in sources if (note := _unmeasured(s))],
    )
    atomic_write_text(target, render(page))
    drawn = [*curves, *(c for each in scans for c in each.charts)]
    drawn += [chart for g in galleries if g.scan for chart in gallery_charts(g)]
    written = () if plots is None else write_plots(Path(plots), drawn, page.boards)
    return ReportResult(
        path=target,
        plots=tuple(written),
        headline=tuple(headline(m.result) for s in sources for m in s.results),
        curves={s.name: _series(s) for s in sources},
        problems=tuple(p for w in walls for p in w.problems)
        + tuple(p for g in galleries for p in g.problems),
    )


def _default_output(sources: Sequence[Source]) -> Path:
    run = sources[0].run if len(sources) == 1 else None
    return (run.path if run else Path()) / "report.html"


def _counted(sources: Sequence[Source]) -> str:
    return f"{sources[0].name} and {len(sources) - 1} more"


def _about(source: Source) -> str:
    """What a source is, in a line."""
    if source.scan is not None and source.run is None:
        return f"a scan over t, {source.scan['images']:,} images"
    config = source.config
    if not config:
        models = dict.fromkeys(m.result.model.name for m in source.results)
        return f"results of {', '.join(models)}"
    trained = f"{config.get('method')} on {config.get('task')}, {config.get('trainable')}"
    steps = f", {source.metrics[-1]['step']:,} steps" if source.metrics else ""
    return f"{trained} of {config.get('model')}{steps}, seed {config.get('seed')}"


def _unmeasured(source: Source) -> str:
    """A note where a run was not evaluated, or has not finished."""
    if source.run is None:
        return ""
    if not source.run.finished:
        return (
            f"{source.name} has not finished training. "
            f"Go on with: clipalign train --resume {source.run.path}"
        )
    if source.results:
        return ""
    return f"{source.name} was not evaluated. Measure it with: clipalign eval {source.run.path}"


def _series(source: Source) -> dict[str, list[float]]:
    keys = ("loss", "margin", "reward_accuracy", "regulariser")
    series = {key: [row[key] for row in source.metrics if key in row] for key in keys}
    return {key: values for key, values in series.items() if values}
