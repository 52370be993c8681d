"""From a recipe to its cells, in the order in which they run. Nothing here imports torch by itself;
checking the options of a method imports that method.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clipalign.comparison.recipe import (
    BASE,
    MAX_CELLS,
    Evaluation,
    Method,
    Recipe,
    folder_name,
    read_recipe,
)
from clipalign.config import RunConfig, build_config
from clipalign.errors import ConfigError, RunError, UsageError
from clipalign.evals.own_suite import suite_of_task
from clipalign.files import SUMS, changed_file
from clipalign.options import option_problems, options_model
from clipalign.plugins import registry

__all__ = ["OF_TRANSFORM", "RECIPE", "Cell", "Plan", "make_plan"]

RECIPE = "recipe.yaml"
"""The copy of the recipe in the output directory."""

OF_TRANSFORM = ("method", "task", "dataset", "dataset_options")
"""Keys of a transform that are no options of its method."""


@dataclass(frozen=True)
class Cell:
    """One model to be made and measured.

    Attributes:
        name: of its folder.
        method: row of the table.
        model: the grid's model spec, which it starts from and is measured against.
        seed: of its training; None where nothing is random.
        kind: how it is made.
        config: of a training, without `output`.
        transform: of an edit: method, options, and task and dataset where they are given.
        source: name of the cell that is edited; None for `model`.
        bare: spec of a bare model.
    """

    name: str
    method: str
    model: str
    seed: int | None
    kind: Literal["train", "transform", "model"]
    config: RunConfig | None = None
    transform: Mapping[str, Any] | None = None
    source: str | None = None
    bare: str | None = None

    def document(self) -> dict[str, Any]:
        """As plain values. Equal documents mean equal cells."""
        config = None if self.config is None else self.config.model_dump(mode="json")
        return {
            "name": self.name,
            "method": self.method,
            "model": self.model,
            "seed": self.seed,
            "kind": self.kind,
            "config": config,
            "transform": None if self.transform is None else dict(self.transform),
            "source": self.source,
            "bare": self.bare,
        }


@dataclass(frozen=True)
class Plan:
    """All that is to be done.

    Attributes:
        recipe: as read.
        output: directory of everything.
        base: the configuration that every training starts from.
        models: of the grid.
        cells: sources before what is made of them.
        evaluations: of every cell.
    """

    recipe: Recipe
    output: Path
    base: RunConfig
    models: tuple[str, ...]
    cells: tuple[Cell, ...]
    evaluations: tuple[Evaluation, ...] = field(default=())

    def folder(self, cell: Cell | str) -> Path:
        """Where a cell lies."""
        return self.output / "cells" / (cell if isinstance(cell, str) else cell.name)


def make_plan(
    recipe: Recipe | Path | str | Mapping[str, Any],
    output: Path | None = None,
    *,
    check_options: bool = True,
) -> Plan:
    """Read and check everything that can be checked before something is loaded.

    Args:
        recipe: a recipe, its YAML file or content, or the output directory of a comparison.
        output: another directory than the recipe's.
        check_options: also check the options of methods, tasks, transforms and suites, which
            imports them (and torch).

    Raises:
        ConfigError: something in the recipe is wrong; all of it is listed.
        UsageError: a folder is not a comparison.
    """
    recipe, output = _located(recipe, output)
    problems: list[str] = []
    base = build_config(recipe.base, "the recipe, under base", check_options=check_options)
    models = tuple(recipe.models or [base.model])
    evaluations = tuple(_evaluations(recipe, base, check_options, problems))
    cells: list[Cell] = []
    by_place: dict[tuple[str, str, int | None], Cell] = {}
    for model in models:  # outermost, so that each is loaded once
        for name, method in recipe.methods.items():
            if method.model not in (None, BASE) and model != models[0]:
                continue  # another model than the grid's: once is enough
            place = (name, model)
            try:
                made = _cells(recipe, method, *place, by_place, len(models) > 1, check_options)
            except (ConfigError, UsageError) as error:
                problems += [f"methods.{name}: {line}" for line in str(error).splitlines()]
                continue
            for cell in made:
                by_place[cell.method, cell.model, cell.seed] = cell
            cells += made
    names = [cell.name.casefold() for cell in cells]
    for twice in sorted({n for n in names if names.count(n) > 1}):
        problems.append(f"two cells would lie in cells/{twice}: name their methods differently")
    if len(cells) > MAX_CELLS:
        problems.append(f"{len(cells):,} cells are more than {MAX_CELLS:,}")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"There is something wrong in the recipe:\n{lines}")
    return Plan(recipe, output, base, models, tuple(cells), evaluations)


def _located(
    recipe: Recipe | Path | str | Mapping[str, Any], output: Path | None
) -> tuple[Recipe, Path]:
    """The recipe, and where its comparison lies."""
    if not isinstance(recipe, Recipe | str | Path | Mapping):
        raise UsageError(
            "A comparison is a recipe, its YAML file or content, or the directory of an earlier "
            f"one, and not {recipe!r:.80}."
        )
    path = Path(recipe) if isinstance(recipe, str | Path) else None
    if path is not None and path.is_dir():
        if not (path / RECIPE).is_file():
            raise UsageError(
                f"{path} is not the output of a comparison: it has no {RECIPE}. Name a recipe, "
                "such as examples/study/typographic.yaml."
            )
        if changed := changed_file(path, [RECIPE]):
            raise RunError(f"{changed} Name the recipe that it was made from, or remove {SUMS}.")
        return read_recipe(path / RECIPE), output or path
    if isinstance(recipe, Recipe):
        recipe = recipe.model_dump(exclude_defaults=True)
    found = read_recipe(path if isinstance(recipe, str | Path) and path else recipe)  # type: ignore[arg-type]
    name = path.stem if path else folder_name(found.title)
    return found, output or found.output or Path("comparisons") / name


def _cells(
    recipe: Recipe,
    method: Method,
    name: str,
    model: str,
    earlier: Mapping[tuple[str, str, int | None], Cell],
    several: bool,
    check_options: bool,
) -> list[Cell]:
    """The cells of one method on one model."""

    def cell(seed: int | None, kind: Literal["train", "transform", "model"], **more: Any) -> Cell:
        words = [model] if several and method.model in (None, BASE) else []
        words += [name] if seed is None else [name, f"s{seed}"]
        return Cell(folder_name("-".join(words)), name, model, seed, kind, **more)

    if method.model is not None:
        return [cell(None, "model", bare=model if method.model == BASE else method.model)]
    seeds = method.seeds or recipe.seeds
    if method.set is not None:
        tree = _merged(recipe.base, method.set)
        found = []
        for seed in seeds:
            whole = {**tree, "model": model, "seed": seed, "output": None}
            config = build_config(whole, "its configuration", check_options=check_options)
            found.append(cell(seed, "train", config=config))
        return found
    assert method.transform is not None
    edit = dict(method.transform)
    options = {k: v for k, v in edit.items() if k not in OF_TRANSFORM}
    registry("transforms").entry(edit["method"])
    if check_options:
        problems = option_problems("transforms", edit["method"], options, "transform")
        if problems:
            raise ConfigError("\n".join(problems))
    # how many cells there are depends on it, so it is looked up whatever else is checked
    declared = options_model(registry("transforms").load(edit["method"]))
    random = declared is not None and "seed" in declared.model_fields and "seed" not in options
    if method.of is None:
        # an edit of the model as it is has one outcome, unless it draws lots
        return [
            cell(seed, "transform", transform=edit if seed is None else {**edit, "seed": seed})
            for seed in (seeds if random else [None])
        ]
    sources = [c for c in earlier.values() if (c.method, c.model) == (method.of, model)]
    return [
        cell(
            c.seed,
            "transform",
            transform=edit if not random or c.seed is None else {**edit, "seed": c.seed},
            source=c.name,
        )
        for c in sources
    ]


def _evaluations(
    recipe: Recipe, base: RunConfig, check_options: bool, problems: list[str]
) -> list[Evaluation]:
    """The recipe's evaluations, or the suite of the base's task and what is retained."""
    own = suite_of_task(base.task, {})
    given: Sequence[Evaluation] | None = recipe.evaluate
    if given is None:
        names = [own.name, "retention"] if own else ["retention"]
        given = [Evaluation(suite=name) for name in dict.fromkeys(names)]
    found = []
    for evaluation in given:
        if own and evaluation.suite == own.name:
            evaluation = evaluation.model_copy(update=_of_base(evaluation, base))
        if check_options:
            where = f"evaluate.{evaluation.label}"
            problems += option_problems("suites", evaluation.suite, evaluation.options, where)
        found.append(evaluation)
    return found


def _of_base(evaluation: Evaluation, base: RunConfig) -> dict[str, Any]:
    """What an evaluation by the suite of the base's task takes from the base, if it says nothing.

    Raises:
        DataError: its prepared set is damaged or absent.
    """
    task_options, dataset, options = base.task_options, base.dataset, base.dataset_options
    if base.data is not None:
        from clipalign.tasks.preference_set import PreferenceSet

        manifest = PreferenceSet.open(base.data).manifest
        task_options = manifest.options
        dataset, options = manifest.dataset, manifest.dataset_options
    own = suite_of_task(base.task, task_options)
    found: dict[str, Any] = {"options": {**(own.options if own else {}), **evaluation.options}}
    if evaluation.dataset is None:
        found |= {"dataset": dataset, "dataset_options": evaluation.dataset_options or options}
    return found


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base with keys set: "a.b" is b within a, and a mapping adds to what is there.

    Raises:
        ConfigError: "a" holds a value and no keys.
    """
    tree: dict[str, Any] = copy.deepcopy(dict(base))
    for key, value in changes.items():
        *parents, last = key.split(".")
        inner = tree
        for parent in parents:
            if not isinstance(inner.setdefault(parent, {}), dict):
                raise ConfigError(f"set {key}: {parent} holds a value and no keys")
            inner = inner[parent]
        before = inner.get(last)
        both = isinstance(before, dict) and isinstance(value, Mapping)
        inner[last] = _merged(before, value) if both else copy.deepcopy(value)  # type: ignore[arg-type]
    return tree
