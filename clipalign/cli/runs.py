"""`clipalign runs`: read run directories. There is no database: the folders are the record."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipalign.cli.console import Console, has_bars, table, terminal_width, wrapped
from clipalign.cli.flags import JsonFlag, QuietFlag, run_argument
from clipalign.cli.plain_words import value_words
from clipalign.cli.run_facts import (
    COLUMNS,
    ROOT,
    Condition,
    check_keys,
    check_run,
    facts,
    find_runs,
    last_metrics,
    read_config,
    read_headlines,
    read_results,
    sort_key,
    summarise,
)
from clipalign.errors import RunError, UsageError
from clipalign.plugins import registry
from clipalign.reports.legend import legend
from clipalign.reports.sparklines import curve_rows, read_curves

if TYPE_CHECKING:
    from clipalign.comparison.runs import ResultPair
    from clipalign.evals.results import SuiteResult

__all__ = ["app", "find_runs", "last_metrics", "sparklines"]

app = typer.Typer(no_args_is_help=True, help="List, show, compare and remove training runs.")

_DETAIL = re.compile(r"(^|_)reverse_|_(median|p\d+)$")


@app.command("list")
def list_(
    root: Annotated[Path, typer.Argument(help="Folder that holds run directories.")] = ROOT,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Only runs of which this holds; also !=, <, <=, >, >=. May be repeated.",
        ),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="KEY", help="Sort by this; by name if left out.")
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", "-r", help="Largest first.")] = False,
    shown: Annotated[
        list[str] | None,
        typer.Option("--show", metavar="KEY", help="One more column. May be repeated."),
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """List the runs that lie directly in a folder.

    A KEY is a column, a key of the configuration (train.lr), a number of the log (loss), or a
    metric of a result: attacked_accuracy for that of the split test (without one, of the first
    test split, which is then named), attacked_accuracy@SPLIT for that of another, or
    typographic-emoji-test.attacked_accuracy for that of one file.

    \b
    Examples:
      clipalign runs list
      clipalign runs list --where method=kto --where state=finished
      clipalign runs list --sort attacked_accuracy -r --show attacked_accuracy
      clipalign runs list --show attacked_accuracy@test-unseen-concepts
      clipalign runs list experiments/ --where 'train.lr<=1e-4' --json
    """
    conditions = [Condition.parse(text) for text in where or ()]
    more = list(dict.fromkeys(shown or ()))
    if root != ROOT and not root.is_dir():
        raise RunError(f"There is no folder {root}. Name one that holds run directories.")
    runs = find_runs(root)
    asked = [*(c.key for c in conditions), *([sort] if sort else []), *more]
    if asked:
        known = [(run, facts(run)) for run in runs]
        check_keys(asked, [each for _, each in known])
        known = [(r, each) for r, each in known if all(c.holds(each) for c in conditions)]
        if sort:
            having = [pair for pair in known if pair[1].get(sort) is not None]
            lacking = [pair for pair in known if pair[1].get(sort) is None]
            having.sort(key=lambda pair: sort_key(pair[1][sort]), reverse=reverse)
            known = having + lacking  # what is absent comes last either way
        elif reverse:
            known.reverse()
        documents = [
            {**summarise(run), **{key: each.get(key) for key in more}} for run, each in known
        ]
        splits = [each.splits for _, each in known]
    else:
        documents = [summarise(run) for run in (reversed(runs) if reverse else runs)]
        splits = [{} for _ in documents]
    columns = [*COLUMNS, *(key for key in more if key not in COLUMNS)]
    rows = [
        [f"{_cell(d[c])} ({of[c]})" if c in of else _cell(d[c]) for c in columns]
        for d, of in zip(documents, splits, strict=True)
    ]
    nothing = f"There are no runs directly in {root}."
    if where and runs:
        nothing = f"There are no runs in {root} of which this holds: {', '.join(where)}."
    text = table([c.upper() for c in columns], rows) if rows else nothing
    Console(json=as_json, quiet=quiet).result(documents, text)


@app.command()
def show(
    run: Annotated[Path, run_argument("Run directory.")],
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Show one run: its settings, its curves, and what was measured.

    Of each result the numbers that matter: what was asked for, and what it cost. Under --json they
    are in `headline`, and the files themselves in `results`.

    \b
    Examples:
      clipalign runs show runs/typographic-kto-1
      clipalign runs show runs/typographic-kto-1 --json
    """
    check_run(run)
    document = summarise(run) | {
        "config": read_config(run),
        "metrics": last_metrics(run),
        "results": read_results(run),
    }
    found, refused = read_headlines(run)
    document["headline"] = {
        name: result.model_dump(mode="json", include=_HEADLINE) for name, result in found.items()
    }
    document["refused"] = refused
    text = _text(run, document, [] if as_json else _measured(found, refused))
    Console(json=as_json, quiet=quiet).result(document, text)


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        run_argument("Two run directories or more; each is compared with the first."),
    ],
    details: Annotated[
        bool, typer.Option("--details", help="Also percentiles and the reverse KL.")
    ] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Compare the settings of runs, and their results image by image.

    \b
    Examples:
      clipalign runs compare runs/typographic-kto-1 runs/typographic-dpo-1
      clipalign runs compare runs/a runs/b runs/c --json
    """
    if len(runs) < 2:
        raise UsageError(
            f"A comparison takes two runs at least: clipalign runs compare {runs[0]} OTHER-RUN"
        )
    for run in runs:
        check_run(run)
    from clipalign.comparison.runs import config_differences, result_pairs

    configs = config_differences([read_config(run) for run in runs])
    first, *others = runs
    pairs = {str(other): result_pairs(first, other) for other in others}
    document = {
        "runs": [str(run) for run in runs],
        "config": configs,
        "results": {name: [pair.document() for pair in found] for name, found in pairs.items()},
    }
    lines = ["The configurations are the same."]
    if configs:
        rows = [(key, *map(_cell, values)) for key, values in configs.items()]
        lines = [table(["KEY", *map(str, runs)], rows)]
    for other, found in pairs.items():
        lines += _compared(first, other, found, details)
    Console(json=as_json, quiet=quiet).result(document, "\n\n".join(lines))


@app.command()
def rm(
    runs: Annotated[list[Path], run_argument("Run directories.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also where other files lie in it than a run writes.")
    ] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Remove run directories, after asking. What is no run, a link, or in use is left alone.

    \b
    Examples:
      clipalign runs rm runs/typographic-kto-1
      clipalign runs rm runs/typographic-kto-* --yes
    """
    from clipalign.training.removal import check_removal, remove_run

    chosen = [check_removal(run, strangers=force) for run in dict.fromkeys(runs)]
    out = Console(json=as_json, quiet=quiet)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise UsageError("Nobody can be asked here: say --yes. Nothing was removed.")
        rows = [(r.path, _bytes(r.bytes)) for r in chosen]
        typer.echo(table(("RUN", "SIZE"), rows))  # whoever is asked must see it, --quiet or not
        if not typer.confirm(f"Remove {_runs(len(chosen))} for good?"):
            raise RunError("Nothing was removed.")
    for removal in chosen:
        remove_run(removal.path, strangers=force)
    removed = [{"run": str(r.path), "bytes": r.bytes} for r in chosen]
    total = _bytes(sum(r.bytes for r in chosen))
    out.result({"removed": removed}, f"Removed {_runs(len(chosen))}, {total}.")


def sparklines(run: Path, names: Sequence[str] | None = None) -> str:
    """The curves of a run as a table; empty where nothing was logged twice."""
    width = min(40, max(8, (terminal_width() or 80) - 42))
    curves = {n: values for n, values in read_curves(run).items() if len(values) > 1}
    more = {} if names is None else {"names": names}
    rows = curve_rows(curves, width=width, bars=has_bars(), **more)
    if not rows:
        return ""
    said = legend(name for name in curves if names is None or name in names)
    return "\n".join([table(("CURVE", "FIRST", "", "LAST"), rows), *map(wrapped, said)])


_TURNED = {"gender": "--t auto", "concept": "--t auto", "typographic": "--scan -1:1:0.1"}
"""How a head may be turned, by what it learnt: only a concept has a neutral t to be found."""


def where_next(run: Path, document: dict[str, Any]) -> list[str]:
    """Commands that go on from a run."""
    if document["state"] != "finished":
        return [f"clipalign train --resume {run}"]
    found = [] if document["results"] else [f"clipalign eval {run}{_suite(document)}"]
    if "report" in registry("commands").names():
        found.append(f"clipalign report {run}")
    turned = "--method interpolate --alpha auto"
    if document["config"].get("trainable") == "head":
        turned = _TURNED.get(str(document["task"]), "--t 0.5")
    return [*found, f"clipalign transform {run} {turned}"]


def _suite(document: dict[str, Any]) -> str:
    """What eval must be told to measure a run; "" where its task has a suite."""
    from clipalign.evals.own_suite import suite_of_task

    task = str(document["task"])
    known = task in registry("tasks").names() and suite_of_task(task, {})
    return "" if known else " --suite retention"


_HEADLINE = {"suite", "model", "against", "dataset", "metrics", "comparisons", "warnings"}


def _measured(found: Mapping[str, SuiteResult], refused: Mapping[str, str]) -> list[str]:
    """Aims and costs of each result as a table, then the files that they are from."""
    from clipalign.reports.tables import summary_table

    if not (found or refused):
        return []
    tables = [summary_table(list(found.values()), width=terminal_width()), ""] if found else []
    files = [f"  results/{name}.json" for name in sorted([*found, *refused])]
    why = [wrapped(f"results/{name}.json is not shown: {refused[name]}") for name in refused]
    return ["", *tables, "Results:", *files, *why]


def _text(run: Path, document: dict[str, Any], measured: Sequence[str]) -> str:
    config = document["config"]
    train = config.get("train") if isinstance(config.get("train"), dict) else {}
    known = {k: v for k, v in config.items() if v not in (None, {}) and k != "train"}
    known |= {f"train.{k}": v for k, v in train.items()}
    rows = [(key, value_words(value)) for key, value in known.items()]
    lines = [f"{run}: {document['state']}", "", table(["KEY", "VALUE"], rows)]
    if curves := sparklines(run):
        lines += ["", f"Curves, to step {document['step']}:", "", curves]
    elif document["metrics"]:
        lines += ["", table(["LAST STEP", ""], list(document["metrics"].items()))]
    lines += measured
    if document["state"] == "finished":
        lines += ["", f'open_clip.create_model_and_transforms("local-dir:{run / "model"}")']
    words = "Where to look next:" if document["state"] == "finished" else "Go on with:"
    lines += ["", words, *(f"  {line}" for line in where_next(run, document))]
    return "\n".join(lines)


def _compared(first: Path, other: str, pairs: Sequence[ResultPair], details: bool) -> list[str]:
    """A table for each result that both runs have."""
    from clipalign.comparison.tables import difference_cells
    from clipalign.evals.words import label, number
    from clipalign.reports.tables import TableRow, laid_out

    if not pairs:
        return [wrapped(f"{first} and {other} have no result of the same name to compare.")]
    blocks = []
    for pair in pairs:
        title = f"{pair.name}: {other} against {first}"
        if pair.refused or pair.a is None or pair.b is None:
            blocks.append(wrapped(f"{title}. {pair.refused}"))
            continue
        rows = [TableRow("METRIC", [(h, "") for h in ("FIRST", "OTHER", "OTHER − FIRST", "P")])]
        for c in pair.comparisons:
            a, b = pair.a.metrics[c.metric], pair.b.metrics[c.metric]
            if (details or not _DETAIL.search(c.metric)) and a.value is not None:
                assert b.value is not None
                difference, p = difference_cells(c, a.unit)
                value, _, bounds = difference.partition(" [")
                cells = [(number(a.value, a.unit), ""), (number(b.value, a.unit), "")]
                cells += [(value, f"[{bounds}" if bounds else ""), (p, "")]
                rows.append(TableRow(label(c.metric), cells))
        blocks += [
            wrapped(f"{title}, {pair.a.dataset.n:,} images; in brackets 95 % intervals"),
            "\n".join(laid_out(rows, terminal_width())),
        ]
    plain = any(c.interval is None for pair in pairs for c in pair.comparisons)
    says = (
        "Without brackets: a plain difference, of a number that is no mean over images or has too "
        "few of them for an interval."
    )
    return [*blocks, wrapped(says)] if plain else blocks


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool | list | dict):
        return value_words(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _runs(count: int) -> str:
    return "one run" if count == 1 else f"{count} runs"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
