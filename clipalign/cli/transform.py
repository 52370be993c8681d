"""`clipalign transform`: turn what was learnt up, down or to neutral, without training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from clipalign.cli.console import Console, table, with_near_paths, wrapped
from clipalign.cli.export import also, check_words
from clipalign.cli.flags import (
    AlsoFormatOption,
    DatasetSetOption,
    DeviceOption,
    JsonFlag,
    PushOption,
    QuietFlag,
    all_settings,
    check_dataset_is_named,
    complete,
    dataset_option,
    model_argument,
    model_option,
    options_of,
    output_option,
    set_option,
    with_flags,
)
from clipalign.cli.report import report_line
from clipalign.errors import UsageError
from clipalign.plugins import registry
from clipalign.transforms.scan_values import parse_scan

app = typer.Typer()

_FLAGS = ("t", "epsilon", "range", "alpha", "against", "calibration")
"""Options of methods that have a flag of their own; others are given by --set."""
_OF_AUTO = ("epsilon", "range", "resamples", "seed")
"""Options of `power` that say how t is found."""


@app.command()
def transform(
    run: Annotated[
        str,
        model_argument(
            "Run directory; interpolate --against, project and most packages take any model.", "RUN"
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            help="power, interpolate, project or a package's; plugins list names them.",
            autocompletion=complete("transforms"),
        ),
    ] = "power",
    t: Annotated[
        str | None,
        typer.Option(
            "--t",
            metavar="T",
            help="power: 0 the reference, 1 the trained model, auto the neutral one.",
        ),
    ] = None,
    scan: Annotated[
        str | None,
        typer.Option(
            "--scan", metavar="A:B:STEP", help="power: a table and a plot over t, as -2:1.2:0.1."
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(help="--t auto: largest drop of activity accuracy; 0.03 if left out."),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option("--range", metavar="A:B", help="--t auto: where to look; 0:1 if left out."),
    ] = None,
    after: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN=T", help="power: map of another run that goes before. May be repeated."
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("--top", min=1, help="--scan: images retrieved; 10 if left out."),
    ] = None,
    alpha: Annotated[
        str | None,
        typer.Option(
            metavar="ALPHA",
            help="interpolate: 0 the reference, 1 the trained model, auto by validation.",
        ),
    ] = None,
    against: Annotated[
        str | None, model_option("interpolate: another model than the run's reference.")
    ] = None,
    calibration: Annotated[
        float | None,
        typer.Option(help="project: its λ; 1000 if left out, 0 for the plain projection."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task of captions and labels: gender, concept or a plugin's; the run's own if "
            "left out.",
            autocompletion=complete("tasks"),
        ),
    ] = None,
    dataset: Annotated[
        str | None, dataset_option("Labelled images; the run's own if left out.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="--scan: split to measure on; validation if left out.")
    ] = None,
    settings: Annotated[
        list[str] | None, set_option("Option of the method, or dataset.KEY of the dataset.")
    ] = None,
    dataset_settings: DatasetSetOption = None,
    output: Annotated[
        Path | None, output_option("Directory to make; models/… if left out.")
    ] = None,
    form: AlsoFormatOption = None,
    push: PushOption = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Turn what was learnt up, down or to neutral, without training.

    The result is an ordinary open_clip directory, with transform.yaml, which says how it was made.

    \b
    Examples:
      clipalign transform runs/gender --t auto -o models/neutral
      clipalign transform runs/gender --t 0.4
      clipalign transform runs/gender --scan -2:1.2:0.1
      clipalign transform runs/gender --scan 0:1:0.1 --split test
      clipalign transform runs/gender --t auto --dataset people.csv
      clipalign transform runs/gender --t 0.5 --after runs/age=0.3
      clipalign transform runs/dpo --method interpolate --alpha 0.5
      clipalign transform emoji-tiny --method project --calibration 0
    """
    out = Console(json=as_json, quiet=quiet)
    registry("transforms").entry(method)
    before = _maps(after or ())
    flags: dict[str, Any] = {
        "t": _number("--t", t),
        "epsilon": epsilon,
        "range": _range(search),
        "after": before or None,
        "alpha": _number("--alpha", alpha),
        "against": against,
        "calibration": calibration,
    }
    own, of_dataset = options_of(all_settings(settings, dataset_settings), "resamples=200")
    options = with_flags(own, flags)
    check_dataset_is_named(of_dataset, dataset)
    makes = not scan or "t" in options
    if split is not None and makes:
        raise UsageError(
            "--split says where --scan measures, and does not go with --t: nothing is fitted "
            "on a split of choice."
        )
    _check(method, scan, options, k)
    check_words(form, push)
    if not makes:
        _check_scan_alone(options, {"--format": form, "--push": push})
    values = parse_scan(scan) if scan else []
    out.load("torch", "open_clip")
    from clipalign.transforms.scan_files import keep_scan, write_scan
    from clipalign.transforms.scanned import how_sure
    from clipalign.transforms.transform import default_name, open_context
    from clipalign.transforms.transform import scan as run_scan
    from clipalign.transforms.transform import transform as run_transform

    if form or push:
        from clipalign.evals.publish import check_export

        check_export(run, form, push)
    context = open_context(
        run,
        task=task,
        dataset=dataset,
        dataset_options=of_dataset,
        split=split,
        device=device,
        reporter=out,
    )
    document: dict[str, Any] = {}
    lines: list[str] = []
    scanned = run_scan(context, values, after=before, k=k or 10, reporter=out) if values else None
    folder = output or Path("models") / f"{default_name(context)}-scan"
    if makes:
        result = with_near_paths(
            run_transform(context, method=method, output=output, reporter=out, **options)
        )
        folder, document = result.model, result.document()
        exported, words = also(result.model, form, push, out)
        if exported is not None:
            document["export"] = exported
        model = f"Model: {result.model}{words}\n"
        lines = [wrapped(result.transform.statement()), model, result.open_clip_line]
    if scanned is not None:
        files = write_scan(scanned, folder, out)
        document["scan"] = scanned.document() | {"files": [str(file) for file in files]}
        if context.run is not None and not before:
            keep_scan(scanned, context.run.path)
        # the report of a run may turn its map by itself, over other values and images
        where = ["Scan:  " + ", ".join(map(str, files)), report_line(folder)]
        sure = wrapped(how_sure(scanned))
        lines = [table(*scanned.table()), sure and f"\n{sure}", "\n" + "\n".join(where), *lines]
    out.result(document, "\n".join(line for line in lines if line))


def _check(method: str, scan: str | None, options: Mapping[str, Any], k: int | None) -> None:
    if method != "power" and scan:
        raise UsageError(
            f"--scan tries many values of t, so it goes with --method power and not with {method}. "
            "Give one --alpha at a time."
        )
    if method == "power" and not scan and "t" not in options:
        raise UsageError(
            "Say which t: --t 0.4, --t auto for the neutral one, or --scan -2:1.2:0.1 for a table."
        )
    if k is not None and not scan:
        raise UsageError("--top says how many images --scan retrieves, and there is no --scan.")
    if method == "power" and options.get("t", "auto") != "auto":
        idle = [_flag(name) for name in _OF_AUTO if name in options]
        if idle:
            raise UsageError(
                f"{idle[0]} says how --t auto finds t, and does not go with a t that is given."
            )


def _check_scan_alone(options: Mapping[str, Any], of_model: Mapping[str, str | None]) -> None:
    """Refuse what says how a model is made or written, where none is."""
    idle = [_flag(name) for name in options if name != "after"]
    idle += [name for name, value in of_model.items() if value is not None]
    if idle:
        raise UsageError(
            f"--scan alone makes no model, so {', '.join(idle)} would change nothing: add --t, or "
            f"leave {'them' if len(idle) > 1 else 'it'} out."
        )


def _flag(name: str) -> str:
    """An option of a method as it is given."""
    return f"--{name}" if name in _FLAGS else f"--set {name}"


def _number(name: str, text: str | None) -> float | str | None:
    """A number, or auto.

    Raises:
        UsageError: it is neither.
    """
    if text is None or text == "auto":
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{name} takes a number, such as 0.4, or auto; not {text!r}.")
    return value


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"--range takes a low and a high end, such as 0:1.5; not {text!r}.")
    return low, high


def _maps(texts: Sequence[str]) -> dict[str, float]:
    """RUN=T, in the order given."""
    found: dict[str, float] = {}
    for text in texts:
        path, _, t = text.rpartition("=")
        value = _number("--after RUN=T", t) if path else None
        if not isinstance(value, float):
            raise UsageError(f"--after takes RUN=T, such as runs/age=0.3; not {text!r}.")
        if path in found:
            raise UsageError(f"--after names {path} twice: give one t.")
        found[path] = value
    return found
