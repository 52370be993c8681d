"""`clipalign export`: write a model for open_clip, transformers or ONNX, with its card; push it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clipalign.cli.console import Console
from clipalign.cli.flags import (
    FORMAT_HELP,
    JsonFlag,
    PushOption,
    QuietFlag,
    complete_formats,
    model_argument,
    output_option,
)
from clipalign.errors import UsageError

app = typer.Typer()


@app.command()
def export(
    model: Annotated[str, model_argument("Run or any other model spec.")],
    form: Annotated[
        str, typer.Option("--format", help=FORMAT_HELP, autocompletion=complete_formats)
    ] = "open_clip",
    output: Annotated[
        Path | None, output_option("Directory to make; MODEL-FORMAT if left out.")
    ] = None,
    push: PushOption = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let a repository that --push makes be public.")
    ] = False,
    results: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Results for the card; a run's own if left out."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights, for the card: mit, apache-2.0, …")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="fp32, fp16 or bf16 on the disk, for open_clip.")
    ] = "fp32",
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Write a model for open_clip, transformers or ONNX, with its model card.

    A pushed repository is private unless --public is given. Log in first: hf auth login.

    \b
    Examples:
      clipalign export runs/dpo --format transformers -o apple-not-ipod
      clipalign export runs/dpo --format onnx
      clipalign export ViT-B-32/openai --format onnx -o onnx/
      clipalign export runs/dpo --push hf-hub:me/apple-not-ipod --licence mit
    """
    from clipalign.models.formats import check_dtype, parse_format

    out = Console(json=as_json, quiet=quiet)
    check_words(form, push)
    if public and push is None:
        raise UsageError(
            "--public is of the repository that --push makes, and nothing is pushed: name one with "
            "--push hf-hub:ORG/NAME, or leave --public out."
        )
    check_dtype(dtype, parse_format(form))
    out.load("torch")
    from clipalign.evals.publish import export as run_export

    result = run_export(
        model,
        output,
        format=form,
        push=push,
        private=not public,
        results=results,
        licence=licence,
        dtype=dtype,
        reporter=out,
    )
    out.result(result.document(), said(result))


def check_words(form: str | None, push: str | None) -> None:
    """Refuse a wrong --format or --push before torch is imported."""
    from clipalign.models.formats import parse_format
    from clipalign.models.push import parse_push_target

    if form is not None:
        parse_format(form)
    if push is not None:
        parse_push_target(push)


def also(model: Path, form: str | None, push: str | None, out: Console) -> tuple[Any, str]:
    """The export that `train` and `transform` make of what they made, where one is asked for.

    Returns:
        Its document and its text; None and "" where none is asked for.
    """
    if push is None and form in (None, "open_clip"):
        return None, ""
    from clipalign.evals.publish import export as run_export

    result = run_export(model, format=form or "open_clip", push=push, reporter=out)
    return result.document(), f"\n\n{said(result)}"


def said(result: Any) -> str:
    """An export in words."""
    lines = [f"{result.format}: {result.model}", "", *result.load]
    return "\n".join([*lines, *(["", f"Pushed: {result.pushed}"] if result.pushed else [])])
