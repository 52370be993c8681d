"""`clipalign cache`: look at what is kept to be used again, and remove it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipalign.cli.console import Console, table
from clipalign.cli.flags import JsonFlag, QuietFlag

app = typer.Typer(no_args_is_help=True, help="Look at what is kept to be used again; remove it.")


@app.command("list")
def list_(as_json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """List what the cache holds, with sizes and ages.

    \b
    Examples:
      clipalign cache list
      CLIPALIGN_CACHE=/scratch/cache clipalign cache list --json
    """
    from clipalign.cache import cache_root, entries, size_text

    found = entries()
    documents = [
        {
            "entry": e.name,
            "kind": e.kind,
            "bytes": e.size,
            "age_seconds": round(e.age),
            "of": e.about,
            "path": e.path,
        }
        for e in found
    ]
    rows = [(e.name, e.kind, size_text(e.size), _age(e.age), e.about or "?") for e in found]
    total = size_text(sum(e.size for e in found))
    text = (
        f"{table(('ENTRY', 'KIND', 'SIZE', 'AGE', 'OF'), rows)}\n\n{total} in {cache_root()}"
        if rows
        else f"There is nothing in {cache_root()}."
    )
    Console(json=as_json, quiet=quiet).result(documents, text)


@app.command()
def rm(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="ENTRY", help="As the list names them; the first letters will do."),
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="All of a kind, such as trunk. May be repeated.")
    ] = None,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="All that are older.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Remove entries from the cache. Nothing is lost: they are computed again when needed.

    \b
    Examples:
      clipalign cache rm images-3f2a
      clipalign cache rm --kind trunk --older-than 30
      clipalign cache rm --all

    An entry that a process is using goes when that process ends.
    """
    from clipalign.cache import remove, select, size_text

    chosen = select(names or (), kind or (), older_than, everything=everything)
    for entry in chosen:
        remove(entry)
    freed = sum(entry.size for entry in chosen)
    document = {"removed": [Path(e.path) for e in chosen], "bytes": freed}
    lines = [f"Removed {e.name} ({size_text(e.size)}): {e.about or e.kind}" for e in chosen]
    text = "\n".join([*lines, f"{size_text(freed)} freed."]) if chosen else "There is none of it."
    Console(json=as_json, quiet=quiet).result(document, text)


def _age(seconds: float) -> str:
    """An age such as 3 h, in the largest unit that gives at least 2."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
