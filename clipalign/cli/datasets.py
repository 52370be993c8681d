"""`clipalign datasets`: what is known by name, what each expects on disk, and whether it is so."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipalign.cli.console import Console, JsonFlag, QuietFlag, complete, table
from clipalign.cli.prepare import options_of
from clipalign.errors import DataError, UsageError
from clipalign.plugins import registry

if TYPE_CHECKING:
    from clipalign.datasets.known.check import Checked
    from clipalign.datasets.known.description import Description

app = typer.Typer(no_args_is_help=True, help="List, show and check datasets.")

_Name = Annotated[str, typer.Argument(help="Of the dataset.", autocompletion=complete("datasets"))]


@app.command("list")
def list_(as_json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """List every dataset that can be named, and how it is named.

    \b
    Examples:
      clipalign datasets list
      clipalign eval --suite typographic --dataset oxford-pets:/data/pets
    """
    found = registry("datasets")
    rows = []
    for name in found.names():
        entry = found.entry(name)
        spec = f"{name}:PATH" if "path" in entry.metadata else name
        rows.append({"name": name, "spec": spec, "package": entry.package, "is": entry.summary})
    text = table(("NAME", "WRITTEN", "SUMMARY"), [(r["name"], r["spec"], r["is"]) for r in rows])
    Console(json=as_json, quiet=quiet).result(rows, text)


@app.command()
def show(name: _Name, as_json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """Show a known dataset: what it expects on disk, where it comes from, its licence and splits.

    \b
    Examples:
      clipalign datasets show oxford-pets
    """
    known = _known(name)
    document = known.model_dump(mode="json", by_alias=True, exclude_none=True)
    Console(json=as_json, quiet=quiet).result(document, _description_text(known))


@app.command()
def check(
    name: _Name,
    path: Annotated[str | None, typer.Argument(help="Where it lies.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at names and sizes; do not read every image.")
    ] = False,
    download: Annotated[
        bool, typer.Option("--download", help="Download it first, where torchvision offers it.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any option of the dataset."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read images.")] = 2,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Check a dataset on disk: splits, counts, classes, and whether every image can be read.

    Exit code 5 when something is wrong. Any dataset can be checked, your own folder too.

    \b
    Examples:
      clipalign datasets check oxford-pets /data/pets
      clipalign datasets check food101 /data/food --download
      clipalign datasets check folder ./photos --quick --json
    """
    out = Console(json=as_json, quiet=quiet)
    from clipalign.datasets.known.check import check_dataset
    from clipalign.datasets.known.check import download as fetch
    from clipalign.datasets.locate import load_dataset

    options = options_of(settings, "--set")
    if download:
        if path is None:
            raise UsageError("Say where to: clipalign datasets check NAME PATH --download.")
        fetch(_known(name), Path(path), out)
    dataset = load_dataset(name if path is None else f"{name}:{path}", options)
    checked = check_dataset(dataset, out, decode=not quick, workers=workers)
    spec = name if path is None else f"{name}:{path}"
    document = {"name": name, "path": path, "sound": checked.sound, **dataclasses.asdict(checked)}
    out.result(document, _checked_text(checked, spec))
    if not checked.sound:
        if as_json:
            raise typer.Exit(DataError.exit_code)
        raise DataError(f"Something is wrong with {spec}; see above.")


def _known(name: str) -> Description:
    """The description of a dataset.

    Raises:
        UsageError: there is no such dataset, or it is none of the catalogue.
    """
    from clipalign.datasets.known.description import catalogue

    registry("datasets").entry(name)
    if name not in catalogue():
        raise UsageError(
            f"{name!r} has no layout of its own: `clipalign plugins show datasets/{name}` shows "
            "its options."
        )
    return catalogue()[name]


def _description_text(known: Description) -> str:
    whole = ", ".join(f"{count:,} {what}" for what, count in known.counts.items())
    splits = ", ".join(known.split_names)
    if known.share:
        shares = ", ".join(f"{split} {share} %" for split, share in known.share.items())
        splits = f"{shares}: by the SHA-256 of each path, since the authors fixed no test split"
    where = "PATH" if not known.folders else f"PATH, or PATH/{' or PATH/'.join(known.folders)}"
    facts = {
        "About": known.about,
        "Source": known.source,
        "Licence": known.licence,
        "Expects": f"{known.layout}",
        "In": where,
        "Splits": splits,
        "Prompt": known.templates[0],
        "Whole copy": whole or "not known",
        "Download": (
            f"clipalign datasets check {known.name} PATH --download"
            if known.torchvision
            else "by hand, from the source"
        ),
        "Note": known.note,
        "Use": f"--dataset {known.name}:PATH",
    }
    lines = [f"{title + ':':<12}{words}" for title, words in facts.items() if words]
    return "\n".join([f"{known.name}: {known.title}", "", *lines])


def _checked_text(checked: Checked, spec: str) -> str:
    rows: list[tuple[Any, ...]] = []
    for split, found in checked.splits.items():
        sizes = f"{found.smallest:,} to {found.largest:,}" if found.classes else "-"
        whole = "-" if found.expected is None else f"{found.expected:,}"
        counts = (f"{found.images:,}", whole, f"{found.classes:,}", sizes, f"{found.unusable:,}")
        rows.append((split, *counts, ", ".join(found.attributes)))
    header = ("SPLIT", "IMAGES", "WHOLE COPY", "CLASSES", "A CLASS", "UNUSABLE", "COLUMNS")
    lines = [table(header, rows)]
    for split, found in checked.splits.items():
        if found.problems:
            lines += ["", f"{split}:", *(f"  {problem}" for problem in found.problems)]
            more = found.unusable - len(found.problems)
            lines += [f"  and {more:,} more"] if more else []
    if checked.missing:
        lines += ["", f"Not there: {', '.join(checked.missing)}"]
    if checked.differences:
        lines += ["", *(f"Differs: {words}" for words in checked.differences)]
    if not checked.decoded:
        lines += ["", "Images were not read (--quick)."]
    return "\n".join([*lines, "", f"Use it: --dataset {shlex.quote(spec)}"])
