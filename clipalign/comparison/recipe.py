"""What a comparison is made of: the recipe of `clipalign compare`, one YAML file.

    title: Typographic attacks
    base: {task: typographic}             # a run's configuration; any key of `config show`
    models: [emoji-tiny]
    seeds: [0, 1, 2]

Methods:
      reference: {model: base}            # the model as it is
      kto: {set: {method: kto}}           # a training: the base with some keys set
      half: {of: kto, transform: {method: interpolate, alpha: 0.5}}
      projected: {transform: {method: project}}     # an edit of the model as it is
    baseline: reference                   # what the paired tests are against
    evaluate:
      - suite: typographic
        axes: [attacked_accuracy, clean_accuracy, kl_to_reference]

Nothing here imports torch.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from clipalign.config import RunConfig
from clipalign.errors import ConfigError, UsageError, near_matches
from clipalign.options import explain
from clipalign.plain_yaml import read_yaml_mapping
from clipalign.plugins import registry

__all__ = ["BASE", "SHOWN", "Axis", "Evaluation", "Method", "Recipe", "folder_name", "read_recipe"]

BASE = "base"
"""The model of a method that is the grid's model as it is."""

MAX_CELLS = 10_000

_SMALLEST = """The recipe of a comparison has at least:

  base: {task: typographic}      # any key of `clipalign config show`
  methods:                       # the rows of the table
    kto: {set: {method: kto}}
    dpo: {set: {method: dpo}}

Longer ones are in examples/study/ of clipalign's repository."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Axis(_Part):
    """One axis of the Pareto front. A metric that is good in itself may be given by its name."""

    metric: str = Field(min_length=1, description="Name of the metric in the suite's results.")
    better: Literal["higher", "lower"] | None = Field(
        None, description="Which way is better; null for what the result says of the metric."
    )


def _axis(value: Any) -> Any:
    return {"metric": value} if isinstance(value, str) else value


SHOWN = ("axes", "show")
"""Keys of an evaluation that choose what is shown, and change no result."""

_Axes = list[Annotated[Axis, BeforeValidator(_axis)]]


class Evaluation(_Part):
    """What every cell is measured by."""

    suite: str = Field(description="Registered name.")
    name: str | None = Field(
        None, description="Tells evaluations of one suite apart; null for the suite's name."
    )
    dataset: str | None = Field(
        None, description="Name, folder or table; null for the base's where the suite is its "
        "task's, else the suite's own."
    )  # fmt: skip
    dataset_options: dict[str, Any] = Field(default_factory=dict, description="Of the dataset.")
    splits: list[str] | None = Field(None, description="Null for the suite's own.")
    options: dict[str, Any] = Field(default_factory=dict, description="Of the suite.")
    seed: int = Field(0, ge=0, description="Of attacks and resampling; one for all cells.")
    axes: _Axes | None = Field(None, description="Of the front; null for the suite's own.")
    show: list[str] = Field(default_factory=list, description="More metrics for the table.")

    @property
    def label(self) -> str:
        """What it is called in files and tables."""
        return self.name or self.suite

    def measuring(self) -> dict[str, Any]:
        """As plain values, without what only chooses what is shown: equal ones measure the same."""
        return self.model_dump(mode="json", exclude=set(SHOWN))

    def axes_of_suite(self) -> list[Axis]:
        """The axes: those of the recipe, else those that the suite was registered with."""
        if self.axes is not None:
            return self.axes
        own = registry("suites").entry(self.suite).metadata.get("axes", ())
        return [Axis.model_validate(_axis(axis)) for axis in own]


class Method(_Part):
    """One row of the table: a training, an edit, or a bare model. Exactly one of the three."""

    set: dict[str, Any] | None = Field(
        None, description="A training: keys of the configuration, a.b for inner ones."
    )
    transform: dict[str, Any] | None = Field(
        None, description="An edit without training: method, and its options."
    )
    model: str | None = Field(
        None, description="A bare model: a spec, or base for the grid's model as it is."
    )
    of: str | None = Field(
        None, description="transform: the earlier method that is edited; null for the grid's model."
    )
    grid: dict[str, list[Any]] | None = Field(
        None, description="Keys of set or transform with several values: one method for each."
    )
    seeds: list[int] | None = Field(None, description="Other seeds than the recipe's.")

    @model_validator(mode="after")
    def _one_kind(self) -> Method:
        given = [k for k in ("set", "transform", "model") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                "says one of set (a training), transform (an edit) and model (a bare model)"
                + (f", not {' and '.join(given)}" if given else "")
            )
        if self.of is not None and self.transform is None:
            raise ValueError("of goes with transform")
        if self.transform is not None and not isinstance(self.transform.get("method"), str):
            raise ValueError("transform needs a method, such as {method: interpolate}")
        if self.grid is not None and (self.model is not None or not all(self.grid.values())):
            raise ValueError("grid goes with set or transform, and each key has a value at least")
        return self

    def spread(self, name: str) -> dict[str, Method]:
        """The methods of its grid, by name: `kto beta=0.5` and so on; itself without a grid.

        Raises:
            ValueError: two would have one name.
        """
        if self.grid is None:
            return {name: self}
        found: dict[str, Method] = {}
        for values in itertools.product(*self.grid.values()):
            chosen = dict(zip(self.grid, values, strict=True))
            words = [f"{key.rpartition('.')[2]}={_short(v)}" for key, v in chosen.items()]
            part = "set" if self.set is not None else "transform"
            update = {part: {**getattr(self, part), **chosen}, "grid": None}
            own = " ".join([name, *words])
            if own in found:
                raise ValueError(f"grid: two methods would be called {own!r}: give a value once")
            found[own] = self.model_copy(update=update)
        return found


class Recipe(_Part):
    """A comparison."""

    title: str = Field("Comparison", description="Heads the tables.")
    output: Path | None = Field(
        None, description="Directory of everything; null for comparisons/<name of the recipe>."
    )
    base: dict[str, Any] = Field(
        default_factory=dict, description="Configuration that every training starts from."
    )
    models: list[str] | None = Field(
        None, min_length=1, description="Model specs; null for the base's."
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        [0], min_length=1, description="Seeds of every training."
    )
    methods: dict[str, Method] = Field(min_length=1, description="The rows, by name.")
    baseline: str | None = Field(
        None, description="Method that the paired tests are against; null for none."
    )
    evaluate: list[Evaluation] | None = Field(
        None, min_length=1, description="Null for the suite of the base's task, and retention."
    )

    @model_validator(mode="after")
    def _sound(self) -> Recipe:
        problems = []
        earlier: list[str] = []
        for name, method in self.methods.items():
            if method.of is not None and method.of not in earlier:
                problems.append(
                    f"methods.{name}: of names {method.of!r}, which is no training or transform "
                    f"listed before it.{near_matches(method.of, earlier)}"
                )
            if method.model is None:
                earlier.append(name)
        if self.baseline is not None and self.baseline not in self.methods:
            problems.append(
                f"baseline names {self.baseline!r}, which is no method."
                + near_matches(self.baseline, self.methods)
            )
        labels = [folder_name(e.label) for e in self.evaluate or ()]
        for label in sorted({x for x in labels if labels.count(x) > 1}):
            problems.append(f"evaluate: two are called {label!r}; give each a name of its own")
        for evaluation in self.evaluate or ():
            try:
                registry("suites").entry(evaluation.suite)
            except UsageError as error:
                problems.append(f"evaluate: {error}")
        for what, values in (("seeds", self.seeds), ("models", self.models or [])):
            if len(set(values)) < len(values):
                problems.append(f"{what}: one stands there twice")
        if problems:
            raise ValueError("\n".join(problems))
        return self


def read_recipe(source: Path | Mapping[str, Any]) -> Recipe:
    """Read and check a recipe.

    Grids are spread: in what is returned no method has one.

    Args:
        source: YAML file, or its content.

    Raises:
        ConfigError: with one line for each thing that is wrong.
    """
    path = source if isinstance(source, Path) else None
    tree = read_yaml_mapping(path, advice=_SMALLEST) if path else dict(source)  # type: ignore[arg-type]
    if "methods" not in tree:
        raise ConfigError(f"{_no_recipe(tree, path)} {_SMALLEST}")
    problems: list[str] = []
    methods: dict[str, Method] = {}
    given = tree.get("methods")
    for name, entry in given.items() if isinstance(given, Mapping) else ():
        try:
            spread = Method.model_validate(entry).spread(name)
        except ValidationError as error:
            problems += [f"methods.{name}.{line}" for line in explain(error, Method)]
        except ValueError as error:
            problems.append(f"methods.{name}.{error}")
        else:
            problems += [
                f"methods.{name}: there is another method {twice!r}, of that name or of a grid"
                for twice in sorted(spread.keys() & methods.keys())
            ]
            methods |= spread
    if isinstance(given, Mapping) and (methods or problems):
        tree["methods"] = methods or {"?": Method(model=BASE)}
    if problems:  # what refers to a method cannot be checked
        tree = {k: v for k, v in tree.items() if k not in ("baseline", "methods")}
        tree["methods"] = {"?": Method(model=BASE)}
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        for line in explain(error, Recipe):
            problems += line.splitlines()
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"There is something wrong in {path or 'the recipe'}:\n{lines}")
    return recipe


def _no_recipe(tree: Mapping[str, Any], path: Path | None) -> str:
    """What a file without methods is instead."""
    training = set(RunConfig.model_fields) - set(Recipe.model_fields)
    if path and training & set(tree):
        return (
            f"{path} is the configuration of one training (clipalign train --config {path}), and "
            "a comparison names several."
        )
    return f"There are no methods in {path or 'the recipe'}."


def folder_name(text: str) -> str:
    """A name as that of a folder: letters, digits and . _ - = alone."""
    return re.sub(r"[^\w.=-]+", "-", text).strip("-.") or "_"


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
