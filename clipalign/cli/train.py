"""`clipalign train`: align a model with preferences, and show what that gained and cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipalign.cli.console import Console, table, terminal_width, with_near_paths
from clipalign.cli.export import also, check_words
from clipalign.cli.flags import (
    TASK_HELP,
    AlsoFormatOption,
    ConfigSetOption,
    DatasetSetOption,
    DeviceOption,
    JsonFlag,
    PushOption,
    QuietFlag,
    all_settings,
    complete,
    complete_runs,
    dataset_option,
    model_option,
    output_option,
    seed_option,
)
from clipalign.cli.report import report_line
from clipalign.cli.runs import sparklines
from clipalign.errors import Interrupted, ModelError

if TYPE_CHECKING:
    from clipalign.training.rundir import RunDirectory

app = typer.Typer()


@app.command()
def train(
    method: Annotated[
        str | None,
        typer.Option(
            help="The preference loss: kto, dpo, ipo, rlhf, cross-entropy (the control) or a "
            "plugin's.",
            autocompletion=complete("objectives"),
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help=TASK_HELP, autocompletion=complete("tasks")),
    ] = None,
    model: Annotated[
        str | None, model_option("Model spec, such as ViT-B-32/openai or local-dir:PATH.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A prepared preference set, or a table for --task preferences."),
    ] = None,
    dataset: Annotated[
        str | None,
        dataset_option("Labelled images, where no --data is given; the task's own if left out."),
    ] = None,
    output: Annotated[
        Path | None, output_option("Run directory to make; runs/TASK-METHOD-N if left out.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="YAML configuration, such as config cp makes; flags override it."
        ),
    ] = None,
    trainable: Annotated[
        str | None,
        typer.Option(
            help="What is trained: image-encoder, last:K of its blocks, lora:R of rank R, or "
            "head, a linear map that trains in seconds."
        ),
    ] = None,
    regulariser: Annotated[
        str | None,
        typer.Option(
            help="What holds clean images where they were: forward-kl, reverse-kl, js or none.",
            autocompletion=complete("regularisers"),
        ),
    ] = None,
    regulariser_weight: Annotated[
        float | None, typer.Option(help="λ: the larger, the closer to the model as it was.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the preferences.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; overrides epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Preference images a step.")] = None,
    averaging: Annotated[
        str | None,
        typer.Option(help="Average of the weights along the way: bma (the paper's), ema or none."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Precision of the forward pass: fp32, bf16 or fp16.")
    ] = None,
    seed: Annotated[int | None, seed_option("Seed of everything random.")] = None,
    settings: ConfigSetOption = None,
    dataset_settings: DatasetSetOption = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Go on with a run that was stopped.", autocompletion=complete_runs
        ),
    ] = None,
    device: DeviceOption = None,
    evaluate: Annotated[
        bool, typer.Option("--eval/--no-eval", help="Compare with the reference afterwards.")
    ] = True,
    form: AlsoFormatOption = None,
    push: PushOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Align a model with preferences, and show what that gained and cost.

    What is left out is as the configuration says, and else as `clipalign config show` lists it.

    \b
    Examples:
      clipalign train --method kto --task typographic
      clipalign train --method dpo --model ViT-B-32/openai --data prefs -o runs/a
      clipalign train --method kto --task preferences --data my.csv
      clipalign train --config recipe.yaml --set train.epochs=1
      clipalign train --resume runs/dpo
    """
    out = Console(json=as_json, quiet=quiet)
    settings = all_settings(settings, dataset_settings)
    keys: dict[str, Any] = {
        "method": method,
        "task": task,
        "model": model,
        "data": data,
        "dataset": dataset,
        "output": output,
        "trainable": trainable,
        "regulariser": regulariser,
        "regulariser_weight": regulariser_weight,
        "train.lr": lr,
        "train.epochs": epochs,
        "train.steps": steps,
        "train.batch_size": batch_size,
        "train.averaging": averaging,
        "train.precision": precision,
        "seed": seed,
    }
    from clipalign.config import load_config
    from clipalign.models.spec import parse_model_spec
    from clipalign.training.rundir import RunDirectory

    check_words(form, push)
    # names and bounds fail here, before torch is imported
    known = earlier = None
    if resume is None:
        known = load_config(config, settings, check_model=parse_model_spec, **keys)
    elif not any(value is not None for value in (config, settings or None, *keys.values())):
        earlier, known = RunDirectory.open(resume)
    if earlier is not None and _is_over(earlier):
        _finish(earlier, evaluate, device, form, push, out)
        return
    out.load("torch")
    if known and (form or push):
        from clipalign.evals.publish import check_export

        check_export(known.model, form, push)
    from clipalign.training.train import train as run_training

    result = with_near_paths(
        run_training(config, resume=resume, overrides=settings, device=device, reporter=out, **keys)
    )
    rows = [(g, t, f"{p:,}", "yes" if on else "") for g, t, p, on in result.trainable]
    out.say(table(("PART", "TENSORS", "PARAMETERS", "TRAINED"), rows))
    if curves := sparklines(result.run, ("loss", "margin", "reward_accuracy", "regulariser")):
        out.say("\n" + curves)
    document = result.document()
    if evaluate:
        try:
            document["results"] = _evaluate(result.run, device, out)
        except KeyboardInterrupt:
            raise Interrupted(
                f"Interrupted. {result.run} is trained; measure it with: "
                f"clipalign eval {result.run}"
            ) from None
    exported, words = also(result.model, form, push, out)
    if exported is not None:
        document["export"] = exported
    text = (
        f"\nRun:   {result.run}\nModel: {result.model}{words}\n{report_line(result.run)}\n\n"
        f"{result.open_clip_line}"
    )
    out.result(document, text)


def _is_over(run: RunDirectory) -> bool:
    """Whether a run has nothing left to train; a damaged model is written again."""
    from clipalign.models.soundness import check_sums

    try:
        check_sums(run.model) if run.complete else None
    except ModelError:
        return False
    return run.complete


def _finish(
    run: RunDirectory,
    evaluate: bool,
    device: str | None,
    form: str | None,
    push: str | None,
    out: Console,
) -> None:
    """Of a run that has finished, measure what is not measured yet, and say where all is."""
    from clipalign.models.load_lines import open_clip_line

    document: dict[str, Any] = {"run": str(run.path), "model": str(run.model), "finished": True}
    if evaluate:
        out.load("torch")
        document["results"] = _evaluate(run.path, device, out, only_missing=True)
    exported, words = also(run.model, form, push, out)
    if exported is not None:
        document["export"] = exported
    measured = any(run.results.glob("*.json"))
    text = f"{run.path} has finished; its model is {run.model}{words}" + (
        f", its results are in {run.results}." if measured else "."
    )
    document["open_clip_line"] = open_clip_line(run.model)
    out.result(document, text)


def _evaluate(
    run: Path, device: str | None, out: Console, *, only_missing: bool = False
) -> list[Any]:
    """Evaluate the run and its reference with the suite of its task, and print both."""
    from clipalign.evals.evaluate import evaluate_run
    from clipalign.reports.tables import summary_table

    results = evaluate_run(run, device=device, only_missing=only_missing, reporter=out)
    if not results:
        return []
    out.say("\n" + summary_table(results, width=terminal_width()))
    return [r.model_dump(mode="json") for r in results]
