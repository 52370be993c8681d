"""`clipalign eval`: measure models, with intervals, beside the models that they started from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from clipalign.cli.console import Console, near, terminal_width
from clipalign.cli.flags import (
    DatasetSetOption,
    DeviceOption,
    JsonFlag,
    QuietFlag,
    all_settings,
    complete,
    dataset_option,
    key_value,
    model_argument,
    model_option,
    output_option,
    seed_option,
    set_option,
)
from clipalign.cli.report import report_line
from clipalign.errors import Interrupted, UsageError, near_matches
from clipalign.plugins import registry

app = typer.Typer()

_DEFAULT_MODEL = "emoji-tiny"


@app.command("eval")
def evaluate_(
    models: Annotated[
        list[str] | None,
        model_argument("Runs or other model specs; the newest run in runs/ if left out."),
    ] = None,
    suites: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            help="What to measure: typographic, gender, reading, retention or a plugin's; if left "
            "out, that of the run's task on the run's images, else typographic. May be repeated.",
            autocompletion=complete("suites"),
        ),
    ] = None,
    against: Annotated[
        str | None,
        model_option("reference (what a run started from; its default), none, or a model spec."),
    ] = None,
    dataset: Annotated[
        str | None,
        dataset_option("Images to measure on; the run's or the suite's own if left out."),
    ] = None,
    splits: Annotated[
        list[str] | None,
        typer.Option(
            "--split", help="Split to measure on; the test splits if left out. May be repeated."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        set_option(
            "Option of the suite, as SUITE.KEY where there are several; dataset.KEY of the dataset."
        ),
    ] = None,
    dataset_settings: DatasetSetOption = None,
    seed: Annotated[int, seed_option("Seed of attacks and resampling.")] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images encoded at once; what suits the device if left out."),
    ] = None,
    device: DeviceOption = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep image features for next time.")
    ] = True,
    output: Annotated[
        Path | None, output_option("Folder of the results; a run's results/ if left out.")
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Measure models, with intervals, beside the models that they started from.

    A run is measured as after its training, unless --suite says otherwise.

    \b
    Examples:
      clipalign eval                                    # the newest run
      clipalign eval --suite typographic
      clipalign eval runs/dpo runs/kto --suite gender --against reference --json
      clipalign eval ViT-B-32/openai --dataset photos --set styles=[note] -o out
      clipalign eval runs/dpo --dataset oxford-pets:/data/pets
      clipalign eval runs/dpo --dataset paint/index.csv --split test
      clipalign eval --dataset-set views=2 --split test
      clipalign eval --suite typographic --suite gender --set gender.resamples=500
    """
    out = Console(json=as_json, quiet=quiet)
    given = all_settings(settings, dataset_settings)
    named = list(dict.fromkeys(suites or ()))
    chosen = list(dict.fromkeys(models or [_newest(out)]))
    for spec in [*chosen, *([against] if against not in (None, "reference", "none") else [])]:
        _check(spec)
    options = {spec: _options(given, named or [_own_suite(spec)]) for spec in chosen}
    out.load("torch", "open_clip")
    from clipalign.evals.evaluate import evaluate, result_path
    from clipalign.models.spec import parse_model_spec
    from clipalign.reports.tables import results_document, summary_table
    from clipalign.training.signals import StopSignal

    results, files = [], []
    try:
        with StopSignal():
            for spec in chosen:
                run = parse_model_spec(spec).run
                folder = output if output is None or len(chosen) == 1 else output / _plain(spec)
                if folder is None and run is not None:
                    folder = run / "results"
                found = evaluate(
                    spec,
                    suites=named or None,
                    against=_other(against, run),
                    dataset=dataset,
                    suite_options={k: v for k, v in options[spec].items() if k != "dataset"},
                    dataset_options=options[spec]["dataset"],
                    splits=splits,
                    seed=seed,
                    output=folder,
                    device=device,
                    batch_size=batch_size,
                    use_cache=cache,
                    retention=True,
                    reporter=out,
                )
                results += found
                files += [near(result_path(folder, r)) for r in found] if folder else []
    except Interrupted as error:
        kept = " What was encoded is kept: the same command goes on from there." if cache else ""
        raise Interrupted(f"{error}{kept}") from None
    written = "\n         ".join(map(str, files)) or "not written; -o DIR keeps them."
    shown = list(dict.fromkeys(map(_shown, files)))
    line = f"\n{report_line(*shown)}" if shown else ""
    tables = summary_table(results, details=True, width=terminal_width())
    text = f"{tables}\n\nResults: {written}{line}"
    out.result(results_document(results, files), text)


def _newest(out: Console) -> str:
    """The newest run; the default model where there is none."""
    from clipalign.training.rundir import newest_run

    run = newest_run()
    if run is None:
        out.note(
            f"There is no finished run in runs/, so {_DEFAULT_MODEL} stands alone. "
            "`clipalign train` makes one."
        )
        return _DEFAULT_MODEL
    out.note(f"The newest run is {run}.")
    return str(run)


def _own_suite(spec: str) -> str:
    """The suite that measures a model where none is named."""
    from clipalign.evals.own_suite import own_suite
    from clipalign.models.spec import parse_model_spec

    return own_suite(parse_model_spec(spec)).name


def _check(spec: str) -> None:
    """Refuse what names no model before torch is imported."""
    from clipalign.models.spec import parse_model_spec

    parse_model_spec(spec)


def _other(against: str | None, run: Path | None) -> str | None:
    """What a model stands against: a run against its reference, unless something else is said."""
    if against is None:
        return "reference" if run else None
    return None if against == "none" else against


def _options(settings: Sequence[str], suites: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    """Options by suite and, under "dataset", those of the dataset.

    Raises:
        UsageError: no such suite, or a setting that belongs to none.
    """
    for name in suites:
        registry("suites").entry(name)
    found: dict[str, dict[str, Any]] = {owner: {} for owner in ("dataset", *suites)}
    for setting in settings:
        key, value = key_value(setting, "attacks_per_image=3")
        owner, dot, option = key.rpartition(".")
        if not dot and len(suites) > 1:
            raise UsageError(
                f"--set {setting}: say of which suite, such as {suites[0]}.{setting.strip()}."
            )
        owner = owner or suites[0]
        if owner not in found:
            raise UsageError(f"--set {setting}: no suite {owner!r}.{near_matches(owner, found)}")
        found[owner][option] = value
    return found


def _shown(file: Path) -> Path:
    """What a report names for a result: the run that it lies in, or its folder."""
    from clipalign.models.spec import is_run

    run = file.parent.parent
    return run if is_run(run) else file.parent


def _plain(spec: str) -> str:
    """A model spec as the name of a folder."""
    return re.sub(r"[^\w.-]+", "_", spec).strip("_.") or "model"
