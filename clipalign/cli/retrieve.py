"""`clipalign retrieve`: what a search brings up in one model and another, as a picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from clipalign.cli.console import Console, table
from clipalign.cli.flags import (
    DatasetSetOption,
    DeviceOption,
    JsonFlag,
    QuietFlag,
    all_settings,
    dataset_option,
    dataset_options,
    model_argument,
    output_option,
    set_option,
)
from clipalign.files import check_writable

app = typer.Typer()


@app.command()
def retrieve(
    query: Annotated[str, typer.Argument(help='What to search for: "a photo of a nurse."')],
    models: Annotated[
        list[str] | None,
        model_argument("Runs or other model specs, one row each; emoji-tiny if left out."),
    ] = None,
    dataset: Annotated[str, dataset_option("Images of the gallery.")] = "emoji-people",
    split: Annotated[
        str | None,
        typer.Option(help="Split that is the gallery; the first test split if left out."),
    ] = None,
    k: Annotated[int, typer.Option("--top", min=1, max=50, help="Images to bring up.")] = 10,
    column: Annotated[
        str | None,
        typer.Option(
            help="Column to count among them; gender where images say it, else the class."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, set_option("Option of the dataset.", "dataset.KEY=VALUE")
    ] = None,
    dataset_settings: DatasetSetOption = None,
    output: Annotated[
        Path | None, output_option("The picture; retrieve-QUERY.png here if left out.", "FILE")
    ] = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Search a gallery with several models: counts for each, and a picture.

    \b
    Examples:
      clipalign retrieve "a photo of a police officer."
      clipalign retrieve "a photo of a nurse." emoji-tiny runs/gender -o nurse.png
      clipalign retrieve "a dog." ViT-B-32/openai --dataset photos --column label
      clipalign retrieve "a dog." --dataset pets.csv --dataset-set root=/data/pets
    """
    out = Console(json=as_json, quiet=quiet)
    options = dataset_options(all_settings(settings, dataset_settings))
    out.load("torch", "open_clip")
    from clipalign.evals.retrieve import retrieve as search
    from clipalign.reports.retrieval_picture import write_retrieval_picture

    name = re.sub(r"\W+", "-", query.lower()).strip("-")[:60] or "query"
    picture = output or Path(f"retrieve-{name}.png")
    check_writable(picture)
    found = search(
        query,
        models or ["emoji-tiny"],
        dataset=dataset,
        dataset_options=options,
        split=split,
        k=k,
        column=column,
        device=device,
        reporter=out,
    )
    write_retrieval_picture(found, picture)
    values = list(found.values)
    rows = [(f.model, *(str(f.counts.get(value, 0)) for value in values[:8])) for f in found.found]
    headings = ("MODEL", *(value.upper() for value in values[:8]))
    if not values or len(values) > 8:  # too many for columns
        headings = ("MODEL", "TOP")
        rows = [
            (f.model, ", ".join(f"{n} × {value}" for value, n in f.counts.items()))
            for f in found.found
        ]
    text = (
        f"Top {k} of {found.gallery:,} images for {query!r}, by {found.column}:\n\n"
        f"{table(headings, rows)}\n\nPicture: {picture}"
    )
    out.result(found.document() | {"picture": str(picture)}, text)
