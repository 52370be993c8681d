"""`clipalign plugins`: what is registered, where it is from, what is broken, and a new one."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from clipalign import hookspecs
from clipalign.cli.console import Console, table, wrapped
from clipalign.cli.flags import JsonFlag, QuietFlag, output_option
from clipalign.cli.plain_words import option_rows, value_words
from clipalign.errors import ClipAlignError, PluginError, UsageError, near_matches
from clipalign.plugins import Entry, PluginStatus, kind_of, plugin_report, registry

app = typer.Typer(no_args_is_help=True, help="List, show, diagnose and write plugins.")


def _kinds(incomplete: str) -> list[str]:
    """Completes --kind of `list`."""
    return [kind for kind in hookspecs.KINDS if kind.startswith(incomplete)]


def _new_kinds(incomplete: str) -> list[str]:
    """Completes --kind of `new`."""
    from clipalign.scaffold import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]


_ADVICE = {
    "error": "Update or remove it (`pip uninstall {package}`), or report the traceback to its "
    "author; CLIPALIGN_PLUGINS, set to a list of names, loads only those.",
    "clash": "The first to register a name keeps it, built-ins before all others. Ask the author "
    "to rename, or remove one of the packages.",
    "disabled": "Add it to CLIPALIGN_PLUGINS, or unset that variable, to load it.",
}


@app.command("list")
def list_(
    kind: Annotated[
        str,
        typer.Option(help="Only this kind, such as objective.", autocompletion=_kinds),
    ] = "",
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """List what is registered, and the plugins that could not be loaded.

    \b
    Examples:
      clipalign plugins list
      clipalign plugins list --kind objectives --json
    """
    rows = _rows(plugin_report(), kind_of(kind) if kind else "")
    columns = ("kind", "name", "package", "version", "status", "summary")
    text = table([c.upper() for c in columns], [[row[c] for c in columns] for row in rows])
    Console(json=as_json, quiet=quiet).result(rows, text)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="[KIND/]NAME", help="What to show.")],
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Show where a registered thing comes from, and its options.

    \b
    Examples:
      clipalign plugins show dpo
      clipalign plugins show tasks/typographic --json
    """
    documents = [_describe(entry) for entry in _find(name)]
    text = "\n\n".join(_describe_text(document) for document in documents)
    Console(json=as_json, quiet=quiet).result(
        documents if len(documents) > 1 else documents[0], text
    )


@app.command()
def doctor(
    everything: Annotated[
        bool, typer.Option("--all", help="Import the built-ins' targets too (slow).")
    ] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Import what every plugin registered, and explain what is broken. Exit code 4 if any is.

    \b
    Examples:
      clipalign plugins doctor
      CLIPALIGN_PLUGINS= clipalign plugins doctor    # the built-ins alone
    """
    out = Console(json=as_json, quiet=quiet)
    checked = [(status, _broken_targets(status, everything)) for status in plugin_report()]
    documents = [_diagnosis(status, broken) for status, broken in checked]
    out.result(documents, "\n\n".join(_diagnosis_text(document) for document in documents))
    bad = [d["plugin"] for d in documents if d["status"] in ("error", "clash")]
    if bad:
        if as_json:
            raise typer.Exit(PluginError.exit_code)
        raise PluginError(
            f"{len(bad)} of {len(documents)} plugins need attention: {', '.join(bad)}."
        )


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What users will type, such as my-loss.")],
    kind: Annotated[
        str,
        typer.Option(
            help="objective, regulariser, task, dataset, suite, transform or tracker.",
            autocompletion=_new_kinds,
        ),
    ],
    output: Annotated[
        Path | None, output_option("Folder to make; ./clipalign-NAME if left out.")
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Write a package of your own that installs and passes its tests.

    \b
    Examples:
      clipalign plugins new my-loss --kind objective
      clipalign plugins new my-photos --kind dataset -o packages/my-photos
    """
    from clipalign.scaffold import new_package

    made = new_package(name, kind, output)
    document = {
        "package": str(made.folder),
        "kind": kind_of(kind)[:-1],
        "name": made.name,
        "files": list(made.files),
        "use": made.use,
    }
    lines = [f"Wrote {made.folder}:", *(f"  {file}" for file in made.files), "", "Next:"]
    lines += [f"  pip install -e {made.folder}", f"  python -m pytest {made.folder}"]
    Console(json=as_json, quiet=quiet).result(document, "\n".join([*lines, f"  {made.use}"]))


def _rows(report: list[PluginStatus], kind: str) -> list[dict[str, str]]:
    rows = []
    for status in report:
        entries = [(entry, "ok") for entry in status.registered]
        entries += [(entry, "clash") for entry in status.refused]
        for entry, state in entries:
            if kind in ("", entry.kind):
                rows.append(_row(status, entry.kind, entry.name, state, entry.summary))
        if not entries:
            rows.append(_row(status, "-", status.name, status.status, status.detail))
    order = {kind: i for i, kind in enumerate(hookspecs.KINDS)}
    return sorted(rows, key=lambda row: order.get(row["kind"], len(order)))


def _row(status: PluginStatus, kind: str, name: str, state: str, summary: str) -> dict[str, str]:
    return {
        "kind": kind,
        "name": name,
        "package": status.package,
        "version": status.version,
        "status": state,
        "summary": summary,
    }


def _find(name: str) -> list[Entry]:
    """Entries called `name`, of every kind, or of one when it is written "kind/name"."""
    kind, slash, bare = name.rpartition("/")
    if slash:
        return [registry(kind).entry(bare)]
    known = {k: registry(k).names() for k in hookspecs.KINDS}
    found = [registry(k).entry(bare) for k in hookspecs.KINDS if bare in known[k]]
    if not found:
        names = {n for names in known.values() for n in names}
        raise UsageError(f"Nothing is registered as {bare!r}.{near_matches(bare, names)}")
    return found


def _describe(entry: Entry) -> dict[str, Any]:
    target = registry(entry.kind).load(entry.name)
    facts = {k: dict(v) if k == "metadata" else v for k, v in _fields(entry).items()}
    return facts | {"options": option_rows(target), "documentation": _documentation(target)}


def _fields(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Entry.__slots__}


def _documentation(target: Any) -> str:
    import inspect

    return inspect.getdoc(target) or "" if inspect.isclass(target) or callable(target) else ""


def _describe_text(document: dict[str, Any]) -> str:
    metadata = {key: value_words(value) for key, value in document["metadata"].items()}
    package = f"{document['package']} {document['version']}"
    facts = {"package": package, "target": document["target"], "origin": document["origin"]}
    width = max(map(len, facts | metadata))
    lines = [wrapped(f"{document['kind']}/{document['name']}: {document['summary']}")]
    lines += [f"  {key:<{width}}  {value}" for key, value in (facts | metadata).items()]
    if document["options"]:
        lines += ["", options_table(document["options"])]
    if document["documentation"]:
        lines += ["", _folded(document["documentation"])]
    return "\n".join(lines)


def options_table(options: list[dict[str, Any]]) -> str:
    """What `option_rows` gives, as a table."""
    rows = [(o["name"], o["type"], _default(o["default"]), o["description"]) for o in options]
    said = 4 if any(o["description"] for o in options) else 3  # no heading over nothing
    return table(("NAME", "TYPE", "DEFAULT", "DESCRIPTION")[:said], [row[:said] for row in rows])


def _default(value: Any) -> str:
    return "required" if value == "required" else value_words(value)


def _folded(text: str) -> str:
    """Paragraphs at the width of the terminal; what is indented stays as it is."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(p if re.search(r"^ ", p, re.M) else wrapped(p) for p in paragraphs)


def _broken_targets(status: PluginStatus, everything: bool) -> list[ClipAlignError]:
    """What cannot be imported of what a plugin registered."""
    if status.package == "clipalign" and not everything:
        return []
    broken = []
    for entry in status.registered:
        try:
            registry(entry.kind).load(entry.name)
        except ClipAlignError as error:
            broken.append(error)
    return broken


def _diagnosis(status: PluginStatus, broken: list[ClipAlignError]) -> dict[str, Any]:
    state = "error" if broken else status.status
    traces = ["".join(traceback.format_exception(e.__cause__ or e)) for e in broken]
    return {
        "plugin": status.name,
        "package": status.package,
        "version": status.version,
        "status": state,
        "registered": [f"{e.kind}/{e.name}" for e in status.registered],
        "refused": [f"{e.kind}/{e.name}" for e in status.refused],
        "detail": " ".join([status.detail, *map(str, broken)]).strip(),
        "advice": _ADVICE.get(state, "").format(package=status.package or status.name),
        "traceback": "\n".join([status.traceback, *traces]).strip(),
    }


def _diagnosis_text(document: dict[str, Any]) -> str:
    head = (
        f"{document['plugin']} ({document['package']} {document['version']}): {document['status']}"
    )
    lines = [head]
    if document["registered"]:
        lines.append(f"  registers {', '.join(document['registered'])}")
    lines += [f"  {document[key]}" for key in ("detail", "advice") if document[key]]
    lines += [f"  | {line}" for line in document["traceback"].rstrip().splitlines()]
    return "\n".join(lines)
