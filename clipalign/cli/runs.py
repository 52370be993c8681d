"""`clipalign runs`: read run directories. There is no database: the folders are the record."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from clipalign.cli.console import Console, JsonFlag, table
from clipalign.errors import ConfigError, RunError, near_matches

app = typer.Typer(no_args_is_help=True, help="List and show training runs.")

ROOT = Path("runs")
MAX_BYTES = 1 << 26
_TAIL = 1 << 20


def complete_runs(incomplete: str) -> list[str]:
    """Shell completion for an argument that takes a run directory."""
    return [str(run) for run in find_runs(ROOT) if str(run).startswith(incomplete)]


@app.command("list")
def list_(
    root: Annotated[Path, typer.Argument(help="Folder that holds run directories.")] = ROOT,
    as_json: JsonFlag = False,
) -> None:
    """List the runs below a folder.

    \b
    Examples:
      clipalign runs list
      clipalign runs list experiments/ --json
    """
    documents = [summarise(run) for run in find_runs(root)]
    columns = ("run", "state", "step", "task", "method", "model")
    rows = [[document[column] for column in columns] for document in documents]
    text = table([c.upper() for c in columns], rows) if rows else f"There are no runs in {root}."
    Console(json=as_json).result(documents, text)


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="Run directory.", autocompletion=complete_runs)],
    as_json: JsonFlag = False,
) -> None:
    """Show one run: how it was configured, how far it came, what was measured.

    \b
    Example:
      clipalign runs show runs/typographic-kto-1
    """
    if not is_run(run):
        known = [str(r) for r in find_runs(run.parent)]
        raise RunError(
            f"{run} is not a run directory: it has no config.yaml.{near_matches(str(run), known)}"
        )
    document = summarise(run) | {
        "config": read_config(run),
        "metrics": last_metrics(run),
        "results": {
            path.stem: _read_json(path) for path in sorted((run / "results").glob("*.json"))
        },
    }
    Console(json=as_json).result(document, _text(run, document))


def find_runs(root: Path) -> list[Path]:
    """Run directories in `root`, which may be one itself; kto-2 comes before kto-10."""
    if is_run(root):
        return [root]
    folders = [path for path in root.glob("*") if is_run(path)]
    return sorted(folders, key=lambda p: [t.zfill(9) for t in re.split(r"(\d+)", p.name)])


def is_run(path: Path) -> bool:
    """Whether `path` is a run directory."""
    return (path / "config.yaml").is_file()


def summarise(run: Path) -> dict[str, Any]:
    """The row of one run. A run that cannot be read says so in its state."""
    from clipalign.training.rundir import RunDirectory

    row = {"run": str(run), "task": "?", "method": "?", "model": "?", "step": None}
    try:
        config = read_config(run)
    except ConfigError as error:
        return row | {"state": f"unreadable ({' '.join(str(error).split())})"}
    finished = RunDirectory(run).finished
    return row | {
        **{key: config.get(key, "?") for key in ("task", "method", "model")},
        "step": last_metrics(run).get("step"),
        "state": "finished" if finished else "unfinished",
    }


def read_config(run: Path) -> dict[str, Any]:
    """What `config.yaml` says, as it stands: it may be of an older version of clipalign."""
    from clipalign.plain_yaml import read_yaml_mapping

    return read_yaml_mapping(run / "config.yaml")


def last_metrics(run: Path) -> dict[str, Any]:
    """The last whole line of `metrics.jsonl`; empty when there is none.

    A line that a kill cut short is passed over.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            return row
    return {}


def _read_json(path: Path) -> Any:
    if path.stat().st_size > MAX_BYTES:
        raise RunError(f"{path} is larger than a result file can be ({MAX_BYTES} bytes).")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not a result file: {error}. Evaluate the run again.") from None


def _text(run: Path, document: dict[str, Any]) -> str:
    rows = [(k, v) for k, v in document["config"].items() if v not in (None, {}) and k != "train"]
    rows += [(f"train.{k}", v) for k, v in (document["config"].get("train") or {}).items()]
    lines = [f"{run}: {document['state']}", "", table(["KEY", "VALUE"], rows)]
    if document["metrics"]:
        lines += ["", table(["LAST STEP", ""], list(document["metrics"].items()))]
    if document["results"]:
        lines += ["", "Results: " + ", ".join(f"results/{n}.json" for n in document["results"])]
    if document["state"] == "finished":
        lines += ["", f'open_clip.create_model_and_transforms("local-dir:{run / "model"}")']
    else:
        lines += ["", f"Go on with: clipalign train --resume {run}"]
    return "\n".join(lines)
