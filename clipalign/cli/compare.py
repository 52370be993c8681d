"""`clipalign compare`: a grid of methods × seeds × models, trained, measured, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipalign.cli.console import Console, table, wrapped
from clipalign.cli.flags import DeviceOption, JsonFlag, QuietFlag, output_option

if TYPE_CHECKING:
    from clipalign.comparison.plan import Plan

app = typer.Typer()


def _recipes(incomplete: str) -> list[str]:
    """Completes a path: YAML files, and folders, of which some are comparisons."""
    folder = Path(incomplete[: incomplete.rfind("/") + 1])
    found = sorted(folder.glob("*")) if folder.is_dir() else []
    shown = [f"{p}/" if p.is_dir() else str(p) for p in found if p.name[0] != "."]
    ends = ("/", ".yaml", ".yml")
    return [path for path in shown if path.endswith(ends) and path.startswith(incomplete)]


@app.command()
def compare(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="Recipe (YAML), or the directory of an earlier comparison.",
            autocompletion=_recipes,
        ),
    ],
    output: Annotated[
        Path | None, output_option("Directory; comparisons/RECIPE if left out.")
    ] = None,
    only_missing: Annotated[
        bool,
        typer.Option(
            "--only-missing/--all",
            help="Pass over finished cells, or measure them again.",
        ),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe, list its cells, do nothing.")
    ] = False,
    report_only: Annotated[
        bool,
        typer.Option("--report-only", help="Make tables and plots of what there is; no model."),
    ] = False,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Train and measure methods × seeds × models, and show the Pareto front.

    It goes on where it stopped. A cell that fails is recorded with its reason, the others go on,
    and the exit code is that of the failure (1 where there are several kinds).

    \b
    Examples:
      clipalign compare examples/study/typographic.yaml --dry-run
      clipalign compare examples/study/typographic.yaml -o studies/typographic
      clipalign compare studies/typographic --only-missing
      clipalign compare studies/typographic --report-only --json

    \b
    A recipe:
      base: {task: typographic}        # any key of config show
      seeds: [0, 1, 2]
      methods:
        reference: {model: base}       # the model as it is
        kto: {set: {method: kto}}      # a training: the base with keys set
        half: {of: kto, transform: {method: interpolate, alpha: 0.5}}
      baseline: kto                    # what the paired tests are against
      evaluate: [{suite: typographic}, {suite: retention}]
    """  # noqa: D214, D405, D411 (a key, no section)
    out = Console(json=as_json, quiet=quiet)
    from clipalign.comparison.plan import make_plan
    from clipalign.comparison.records import check_definitions

    if report_only:
        from clipalign.comparison.compare import report

        plan = make_plan(recipe, output, check_options=False)
        check_definitions(plan, to_be_made=False)  # the tables are those of the recipe
        result = report(plan, reporter=out)
    else:
        make_plan(recipe, output, check_options=False)  # fails here, before torch is imported
        out.load("torch")
        if dry_run:
            plan = make_plan(recipe, output)
            check_definitions(plan, to_be_made=True)
            _list(plan, out)
            return
        from clipalign.comparison.compare import compare as run_comparison

        result = run_comparison(
            recipe, output=output, only_missing=only_missing, device=device, reporter=out
        )
    from clipalign.comparison.tables import terminal

    listed = "\n".join(f"  {file}" for file in result.files)
    text = f"{terminal(result.summary, table, wrapped)}\n\nReport:\n{listed}"
    if any(cell.state != "finished" for cell in result.summary.cells):
        text += f"\n\nWhat is missing is made by: clipalign compare {result.output}"
    out.result(result.document(), text)
    if result.failed:
        codes = {record.exit_code or 1 for record in result.failed.values()}
        raise typer.Exit(codes.pop() if len(codes) == 1 else 1)


def _list(plan: Plan, out: Console) -> None:
    """Print the cells of a plan and how far each is."""
    from clipalign.comparison.compare import state_of

    cells = [(cell, state_of(plan, cell)) for cell in plan.cells]
    rows = [
        (cell.name, cell.kind, cell.method, "–" if cell.seed is None else cell.seed, state)
        for cell, state in cells
    ]
    suites = ", ".join(e.label for e in plan.evaluations)
    models = ", ".join(plan.models)
    text = (
        f"{plan.recipe.title}: {len(cells)} cells on {models}, measured by {suites}.\n"
        f"Directory: {plan.output}\n\n"
        f"{table(('CELL', 'KIND', 'METHOD', 'SEED', 'STATE'), rows)}"
    )
    document: dict[str, Any] = {
        "title": plan.recipe.title,
        "output": str(plan.output),
        "models": list(plan.models),
        "evaluations": [e.model_dump(mode="json") for e in plan.evaluations],
        "cells": [cell.document() | {"state": state} for cell, state in cells],
    }
    out.result(document, text)
