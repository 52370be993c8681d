"""`clipalign datasets`: what is known by name, what each expects on disk, and whether it is so."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipalign.cli.console import Console, table, terminal_width
from clipalign.cli.flags import JsonFlag, QuietFlag, complete, options_of, set_option
from clipalign.errors import DataError, UsageError
from clipalign.plugins import Entry, registry

if TYPE_CHECKING:
    from clipalign.datasets.known.check import Checked
    from clipalign.datasets.known.description import Description

app = typer.Typer(no_args_is_help=True, help="List, show and check datasets.")

_complete = complete("datasets")


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
        rows.append(
            {"name": name, "spec": _spec(entry), "package": entry.package, "is": entry.summary}
        )
    text = table(("NAME", "WRITTEN", "SUMMARY"), [(r["name"], r["spec"], r["is"]) for r in rows])
    Console(json=as_json, quiet=quiet).result(rows, text)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME[:PATH]",
            help="Dataset, as the list names it; a path after it is not looked at.",
            autocompletion=_complete,
        ),
    ],
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Show a dataset: what it holds, its splits, licence and options.

    Of a known benchmark also what it expects on disk, and where it comes from.

    \b
    Examples:
      clipalign datasets show oxford-pets
      clipalign datasets show emoji
    """
    out = Console(json=as_json, quiet=quiet)
    from clipalign.datasets.known.description import catalogue

    entry = registry("datasets").entry(name.partition(":")[0])
    if entry.name in catalogue():
        known = catalogue()[entry.name]
        document = known.model_dump(mode="json", by_alias=True, exclude_none=True)
        out.result(document, _description_text(known))
        return
    document = _described(entry)
    out.result(document, _described_text(document))


@app.command()
def check(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME[:PATH]",
            help="Dataset, as the list names it, or the path of your own.",
            autocompletion=_complete,
        ),
    ],
    path: Annotated[
        str | None, typer.Argument(help="Where it lies, if not said as NAME:PATH.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at names and sizes; do not read every image.")
    ] = False,
    download: Annotated[
        bool, typer.Option("--download", help="Download it first, where torchvision offers it.")
    ] = False,
    settings: Annotated[list[str] | None, set_option("Option of the dataset.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read images.")] = 2,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Check a dataset on disk: splits, counts, classes, every image.

    Exit code 5 when something is wrong. Pictures that two splits share are warned of. Any dataset
    can be checked, your own folder too.

    \b
    Examples:
      clipalign datasets check oxford-pets /data/pets
      clipalign datasets check oxford-pets:/data/pets
      clipalign datasets check food101 /data/food --download
      clipalign datasets check folder ./photos --quick --json
    """
    out = Console(json=as_json, quiet=quiet)
    from clipalign.datasets.known.check import check_dataset
    from clipalign.datasets.known.check import download as fetch
    from clipalign.datasets.locate import load_dataset

    own, prefixed = options_of(settings, "label_column=name")
    options = own | prefixed
    name, path = _place(name, path, options)
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


def _place(name: str, path: str | None, options: Mapping[str, Any]) -> tuple[str, str | None]:
    """The name and the path of NAME PATH or NAME:PATH.

    Raises:
        UsageError: two paths, or none where one is needed.
    """
    found = registry("datasets")
    bare, colon, place = name.partition(":")
    if colon and bare in found.names():
        if path is not None:
            raise UsageError(f"The dataset {bare!r} is given two places: {place} and {path}.")
        name, path = bare, place
    key = found.entry(name).metadata.get("path") if name in found.names() else None
    if path is None and key is not None and key not in options:
        raise UsageError(
            f"The dataset {name!r} is read from disk: say where it lies, as clipalign datasets "
            f"check {name} PATH, or {name}:PATH."
        )
    return name, path


def _known(name: str) -> Description:
    """The description of a dataset that torchvision may download.

    Raises:
        UsageError: there is no such dataset, or it is none of the catalogue.
    """
    from clipalign.datasets.known.description import catalogue

    registry("datasets").entry(name)
    if name not in catalogue():
        raise UsageError(
            f"{name!r} cannot be downloaded: torchvision offers known datasets alone. "
            f"`clipalign datasets show {name}` shows how it is used."
        )
    return catalogue()[name]


def _described(entry: Entry) -> dict[str, Any]:
    """A dataset that is none of the catalogue: what is known of it, without a path to read."""
    from clipalign.cli.plain_words import option_rows
    from clipalign.options import component

    target = registry("datasets").load(entry.name)
    options = option_rows(target)
    document: dict[str, Any] = {
        "name": entry.name,
        "title": entry.summary,
        "package": entry.package,
        "about": _about(target),
        "spec": _spec(entry),
    }
    if "path" in entry.metadata:
        document |= {"splits": None, "licence": None, "templates": None}
    else:
        made = component("datasets", entry.name)
        document |= {"splits": {split: len(made.examples(split)) for split in made.splits()}}
        document |= {"licence": made.licence, "templates": list(made.templates)}
    return document | {"options": options}


def _about(target: Any) -> str:
    """The first paragraph of a documentation, without the name of what it is of."""
    text = " ".join((inspect.getdoc(target) or "").partition("\n\n")[0].split())
    text = re.sub(r"^Dataset `[^`]*`: ", "", text)
    return text[:1].upper() + text[1:]


def _described_text(document: Mapping[str, Any]) -> str:
    from clipalign.cli.plugins import options_table

    splits = document["splits"]
    named = {option["name"] for option in document["options"]}
    licence = document["licence"] or "not stated"
    facts = {
        "About": document["about"],
        "Package": document["package"],
        "Splits": "those that are found there"
        if splits is None
        else ", ".join(f"{split} ({count:,} images)" for split, count in splits.items()),
        "Licence": f"{licence}; --set dataset.licence=…"
        if splits is None and "licence" in named
        else licence,
        "Prompt": (document["templates"] or [""])[0],
        "Use": f"--dataset {document['spec']}",
    }
    rows = [(f"{title}:", words) for title, words in facts.items() if words]
    lines = [f"{document['name']}: {document['title']}", "", _facts(rows)]
    if document["options"]:
        lines += ["", options_table(document["options"])]
    return "\n".join(lines)


def _facts(rows: Sequence[tuple[str, str]]) -> str:
    """Titles and what is said of each, folded at the width of the terminal."""
    width = max((terminal_width() or 10_000) - 12, 20)
    return "\n".join(
        textwrap.fill(
            " ".join(words.split()), width, subsequent_indent=" " * 12, break_on_hyphens=False
        ).join([f"{title:<12}", ""])
        for title, words in rows
    )


def _spec(entry: Entry) -> str:
    """How a dataset is written after --dataset."""
    return f"{entry.name}:PATH" if "path" in entry.metadata else entry.name


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
    rows = [(f"{title}:", words) for title, words in facts.items() if words]
    return "\n".join([f"{known.name}: {known.title}", "", _facts(rows)])


def _checked_text(checked: Checked, spec: str) -> str:
    rows: list[tuple[Any, ...]] = []
    for split, found in checked.splits.items():
        sizes = f"{found.smallest:,} to {found.largest:,}" if found.classes else "-"
        if found.classes and found.smallest == found.largest:
            sizes = f"{found.smallest:,}"
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
    for shared in checked.shared:
        earlier, later = shared.splits
        named = [f"{mine} is {theirs}" for theirs, mine in shared.examples]
        if more := shared.images - len(named):
            named.append(f"and {more:,} more")
        lines += [
            "",
            f"Warning: images of {later} that are in {earlier} too, pixel for pixel: "
            f"{shared.images:,} ({'; '.join(named)}).",
        ]
    if not checked.decoded:
        lines += ["", "Images were not read (--quick)."]
    return "\n".join([*lines, "", f"Use it: --dataset {shlex.quote(spec)}"])
