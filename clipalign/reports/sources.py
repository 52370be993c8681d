"""What a report is made from: runs, results and scans of t, found from the paths that are named.

A path is a run (runs/kto), a folder of results (results/) or of such folders, as `eval` makes of
several models, one result (results/typographic.json; the run that it lies in comes with it), a
model that has results of its own (models/neutral), or a scan (a folder with scan.json, or that
file).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clipalign.errors import DataError, RunError, UsageError, near_matches
from clipalign.evals.own_suite import OwnSuite, suite_of_run
from clipalign.evals.results import SuiteResult, read_result, read_rows
from clipalign.files import parse_json, read_regular
from clipalign.models.spec import CONFIG_NAME, is_run, run_around, runs_within
from clipalign.plain_yaml import read_yaml_mapping
from clipalign.training.rundir import RunDirectory
from clipalign.transforms.context import RECORD
from clipalign.transforms.scan_files import KEPT

__all__ = ["Measured", "Source", "find_sources"]

_MAX_BYTES = 1 << 28
_COMPARED = "compare.json"
_SCANS = ({"concept", "values", "k", "images"}, {"dataset", "split", "images"})
"""Keys of a scan of a concept, and of one of written words."""


@dataclass(frozen=True)
class Measured:
    """One result and the file it was read from."""

    path: Path
    result: SuiteResult

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The per-image rows; empty where the result has none, or was copied without them.

        Raises:
            DataError: they were changed.
        """
        recorded = self.result.rows
        if recorded is None or not self.path.with_name(recorded.file).exists():
            return []
        return read_rows(self.path)


@dataclass(frozen=True)
class Source:
    """One thing that a report shows.

    Attributes:
        name: for headings and labels; of several sources no two are alike.
        path: as named.
        run: the run, where it is one or lies in one.
        results: in the order of their file names; retention, which is what a gain cost, last.
        scan: what scan.json holds, where that was named or the run keeps one.
    """

    name: str
    path: Path
    run: RunDirectory | None = None
    results: tuple[Measured, ...] = ()
    scan: Mapping[str, Any] | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The run's resolved configuration as it stands; empty without a run.

        Raises:
            ConfigError: it cannot be read.
        """
        if self.run is None:
            return {}
        self.run.check(self.run.config)
        return read_yaml_mapping(self.run.config)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The run's environment.json; empty where there is none."""
        path = None if self.run is None else self.run.path / "environment.json"
        if self.run is None or path is None or not path.is_file():
            return {}
        self.run.check(path)
        return dict(_json(path, "environment"))

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl; a line that a kill cut short is passed over.

        Raises:
            RunError: the log of a finished run was changed.
        """
        if self.run is None or not self.run.metrics.is_file():
            return []
        self.run.check(self.run.metrics)
        return self.run.logged()


def find_sources(paths: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """Read what the paths name, each once, in that order.

    Raises:
        UsageError: none is named, or a path is nothing that a report is made from.
        DataError, ConfigError: a result, a scan or a configuration is damaged.
        RunError: a run has neither steps nor results.
    """
    if not paths:
        raise UsageError("Name a run, a result or a scan to report on.")
    found: list[Source] = []
    for path in dict.fromkeys(each for p in paths for each in _parts(Path(p))):
        source = _source(path)
        same = next((s for s in found if s.run and source.run and s.run == source.run), None)
        if same is None:
            found.append(source)
        else:  # several results of one run are one column
            found[found.index(same)] = _together(same, source)
    return _told_apart(found)


def _parts(path: Path) -> list[Path]:
    """The folders of results that a folder holds which is nothing itself; else the folder."""
    if not path.is_dir() or _is_something(path) or any(path.glob("*.json")):
        return [path]
    within = (sub for sub in sorted(path.iterdir()) if sub.is_dir() and not _is_something(sub))
    return [sub for sub in within if any(sub.glob("*.json"))] or [path]


def _is_something(folder: Path) -> bool:
    """Whether a folder is a run, or a model."""
    return is_run(folder) or (folder / CONFIG_NAME).is_file()


def _source(path: Path) -> Source:
    if not path.exists():
        near = [str(p) for p in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UsageError(
            f"There is no file or directory {path}.{near_matches(str(path), near) if near else ''}"
        )
    _check_no_comparison(path if path.is_dir() else path.parent)
    scan = path / KEPT if path.is_dir() else path
    if scan.name == KEPT and scan.is_file() and not is_run(path):
        return Source(_name(scan.parent), path, scan=_scan(scan))
    if path.is_file():
        folder = path.parent
        run = folder.parent if folder.name == "results" else folder
        name = _name(run) if is_run(run) else path.stem
        return Source(name, path, _run(run), (Measured(path, _read(path)),))
    path = run_around(path) or path
    if is_run(path):
        return _of_run(path)
    if (path / CONFIG_NAME).is_file():
        return _of_model(path)
    results = _results(path)
    if not results:
        raise UsageError(
            f"{path} is neither a run (it has no config.yaml) nor a folder of results or a scan."
            f"{runs_within(path) or ' `clipalign runs list` shows the runs that there are.'}"
        )
    return Source(_name(path), path, results=results)


def _check_no_comparison(folder: Path) -> None:
    """Refuse a comparison, which has a report of its own.

    Raises:
        UsageError: it is one.
    """
    if (folder / _COMPARED).is_file():
        cells = [cell for cell in sorted(folder.glob("cells/*")) if cell.is_dir()]
        named = f": clipalign report {shlex.quote(str(cells[0]))}" if cells else "."
        raise UsageError(
            f"{folder} is a comparison. What it came to is in {folder / 'compare.md'}. To look at "
            f"its models, report on their cells{named}"
        )


def _of_run(path: Path) -> Source:
    kept = path / KEPT
    scan = _scan(kept) if kept.is_file() else None
    source = Source(_name(path), path, _run(path), _results(path / "results"), scan)
    if not source.results and not source.metrics:
        raise RunError(
            f"{path} has neither logged a step nor been evaluated, so there is nothing to report. "
            f"Go on with: clipalign train --resume {path}"
        )
    return source


def _of_model(path: Path) -> Source:
    """The results that lie in a model's own folder.

    Raises:
        UsageError: there are none.
    """
    results = _results(path / "results")
    if not results:
        raise UsageError(
            f"{path} is a model, and there are no results of it in {path / 'results'}. Measure it "
            f"with: {shlex.join(_measuring(path))}"
        )
    return Source(path.resolve().name, path, results=results)


def _measuring(model: Path) -> list[str]:
    """The command that measures a model: as its run is, against what it was made from."""
    record = model / RECORD
    made = read_yaml_mapping(record) if record.is_file() else {}
    run = Path(str(made.get("source")))
    own = (suite_of_run(run) if is_run(run) else None) or OwnSuite("typographic")
    against = made.get("model")
    return [
        *("clipalign", "eval", str(model), "--suite", own.name),
        *(word for key, value in own.options.items() for word in ("--set", f"{key}={value}")),
        *(("--against", against) if isinstance(against, str) else ()),
        *("-o", str(model / "results")),
    ]


def _results(folder: Path) -> tuple[Measured, ...]:
    paths = sorted(folder.glob("*.json"), key=lambda p: p.stem) if folder.is_dir() else []
    found = [Measured(path, _read(path)) for path in paths if path.name != KEPT]
    return tuple(sorted(found, key=lambda m: m.result.suite == "retention"))


def _read(path: Path) -> SuiteResult:
    return read_result(path, check_rows=False)


def _run(path: Path) -> RunDirectory | None:
    return RunDirectory(path) if is_run(path) else None


def _scan(path: Path) -> Mapping[str, Any]:
    scan = _json(path, "scan")
    rows = scan.get("rows")
    known = any(keys <= set(scan) for keys in _SCANS)
    if (
        not known
        or not rows
        or not isinstance(rows, list)
        or not all(isinstance(r, dict) and "t" in r for r in rows)
        or not _are_intervals(scan.get("intervals", {}), len(rows))
    ):
        raise DataError(f"{path} is not a scan. Make it again: clipalign transform RUN --scan …")
    return scan


def _are_intervals(intervals: Any, rows: int) -> bool:
    """Whether they are, by field of a row, one pair of numbers or null a row."""
    return isinstance(intervals, dict) and all(
        isinstance(each, list)
        and len(each) == rows
        and all(
            pair is None
            or (
                isinstance(pair, list)
                and len(pair) == 2
                and all(isinstance(end, int | float) for end in pair)
            )
            for pair in each
        )
        for each in intervals.values()
    )


def _json(path: Path, what: str) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path} is larger than a file of its kind can be.")
        content = parse_json(read_regular(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a {what}: a JSON object is wanted.")
    return content


def _name(path: Path) -> str:
    """The name of a folder; of RUN/results, that of the run."""
    path = path.resolve()
    return path.parent.name if path.name == "results" else path.name


def _together(a: Source, b: Source) -> Source:
    results = {m.path.resolve(): m for m in (*a.results, *b.results)}
    return Source(a.name, a.path, a.run, tuple(results.values()), a.scan or b.scan)


def _told_apart(sources: list[Source]) -> list[Source]:
    """Equal names are replaced by paths."""
    names = [s.name for s in sources]
    return [
        s if names.count(s.name) == 1 else Source(str(s.path), s.path, s.run, s.results, s.scan)
        for s in sources
    ]
