"""Options and arguments that several commands take: each is declared here, once.

What reads the same everywhere is an annotation (`device: DeviceOption = None`). Where a command has
words of its own for what it does with an option, a function takes them:
`Annotated[Path | None, output("Run directory to make.")]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer

from clipalign.cli.run_facts import ROOT, find_runs
from clipalign.errors import UsageError
from clipalign.models.formats import FORMATS
from clipalign.plugins import registry

__all__ = [
    "FORMAT_HELP",
    "TASK_HELP",
    "AlsoFormatOption",
    "ConfigSetOption",
    "DatasetSetOption",
    "DeviceOption",
    "JsonFlag",
    "OpenFlag",
    "PushOption",
    "QuietFlag",
    "all_settings",
    "check_dataset_is_named",
    "complete",
    "complete_formats",
    "complete_models",
    "complete_runs",
    "dataset_option",
    "dataset_options",
    "key_value",
    "model_argument",
    "model_option",
    "options_of",
    "output_option",
    "run_argument",
    "seed_option",
    "set_option",
    "with_flags",
]


def complete(kind: str) -> Callable[[str], list[tuple[str, str]]]:
    """Shell completion for an option that takes a registered name, for `typer.Option`."""

    def names(incomplete: str) -> list[tuple[str, str]]:
        found = registry(kind)
        return [
            (name, found.entry(name).summary)
            for name in found.names()
            if name.startswith(incomplete)
        ]

    return names


def complete_runs(incomplete: str) -> list[str]:
    """Shell completion for an argument that takes a run directory."""
    return [str(run) for run in find_runs(ROOT) if str(run).startswith(incomplete)]


def complete_models(incomplete: str) -> list[str]:
    """Shell completion for an argument that takes a model spec: the embedded model, and runs."""
    return [m for m in ("emoji-tiny", *complete_runs("")) if m.startswith(incomplete)]


def complete_formats(incomplete: str) -> list[str]:
    """Shell completion for the format of a model on disk."""
    return [name for name in FORMATS if name.startswith(incomplete)]


JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]
OpenFlag = Annotated[bool, typer.Option("--open", help="Open the report in a browser.")]

DeviceOption = Annotated[
    str | None,
    typer.Option(help="Where models run: cpu, cuda, cuda:1 or mps; a GPU if there is one."),
]

DatasetSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset-set",
        metavar="KEY=VALUE",
        help="Option of the dataset, as --set dataset.KEY=VALUE. May be repeated.",
    ),
]

TASK_HELP = (
    "What makes the preferences: typographic, gender, concept (one of your own), preferences (a "
    "file of your own) or a plugin's."
)
FORMAT_HELP = "open_clip, transformers (CLIP with a ViT) or onnx."

AlsoFormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        help=f"Also write the model for: {FORMAT_HELP}",
        autocompletion=complete_formats,
    ),
]
PushOption = Annotated[
    str | None,
    typer.Option(
        metavar="hf-hub:ORG/NAME", help="Send the model to this repository of the Hugging Face hub."
    ),
]


def output_option(help: str, metavar: str = "DIR") -> Any:
    """--output, -o: where a command writes."""
    return typer.Option("--output", "-o", metavar=metavar, help=help)


def dataset_option(help: str) -> Any:
    """--dataset: a source of images; `help` says which, and what is taken without it."""
    return typer.Option(
        metavar="DATASET",
        help=f"{help} A name, NAME:PATH, a folder, a table or tar shards.",
        autocompletion=complete("datasets"),
    )


def seed_option(help: str) -> Any:
    """--seed."""
    return typer.Option(min=0, help=help)


def set_option(help: str, metavar: str = "KEY=VALUE") -> Any:
    """--set: an option of what the command builds."""
    return typer.Option("--set", metavar=metavar, help=f"{help} May be repeated.")


ConfigSetOption = Annotated[
    list[str] | None,
    set_option(
        "Any key that config show lists, such as train.epochs=1; method.KEY, task.KEY and "
        "dataset.KEY are options of those."
    ),
]


def model_option(help: str) -> Any:
    """An option that takes a model spec."""
    return typer.Option(metavar="MODEL", help=help, autocompletion=complete_models)


def model_argument(help: str, metavar: str = "MODEL") -> Any:
    """An argument that takes a model spec, or several."""
    return typer.Argument(metavar=metavar, help=help, autocompletion=complete_models)


def run_argument(help: str, metavar: str = "RUN") -> Any:
    """An argument that takes a run directory, or several."""
    return typer.Argument(metavar=metavar, help=help, autocompletion=complete_runs)


def all_settings(settings: list[str] | None, of_dataset: list[str] | None) -> list[str]:
    """What --set and --dataset-set say, all as --set takes it."""
    return [*(settings or ()), *(f"dataset.{setting.strip()}" for setting in of_dataset or ())]


def key_value(setting: str, such_as: str) -> tuple[str, Any]:
    """What one --set says; the value is YAML.

    Raises:
        UsageError: it is not KEY=VALUE, of which `such_as` is an example.
    """
    from clipalign.plain_yaml import parse_yaml

    key, equals, text = setting.partition("=")
    name = key.strip()
    if not equals or not name or name.endswith("."):
        raise UsageError(f"--set {setting}: must be KEY=VALUE, such as {such_as}.")
    try:
        return name, parse_yaml(text)
    except ValueError as error:
        raise UsageError(f"--set {setting}: {error}.") from None


def options_of(
    settings: Iterable[str] | None, such_as: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of what a command builds, and those of its dataset (dataset.KEY=VALUE).

    Raises:
        UsageError: one is not KEY=VALUE.
    """
    own: dict[str, Any] = {}
    of_dataset: dict[str, Any] = {}
    for setting in settings or ():
        key, value = key_value(setting, such_as)
        name = key.removeprefix("dataset.")
        (own if name == key else of_dataset)[name] = value
    return own, of_dataset


def with_flags(options: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """What --set gives, with the options that have flags of their own; None is one left out.

    Raises:
        UsageError: one is given both ways.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    for name in given:
        if name in options:
            raise UsageError(f"--set {name} is also given by its own flag: give it once.")
    return {**options, **given}


def dataset_options(settings: Iterable[str] | None) -> dict[str, Any]:
    """The options of a dataset, for a command that has options of nothing else.

    Raises:
        UsageError: one is not dataset.KEY=VALUE.
    """
    own, found = options_of(settings, such_as := "dataset.label_column=name")
    for key in own:
        raise UsageError(f"--set {key}=…: must be dataset.KEY=VALUE, such as {such_as}.")
    return found


def check_dataset_is_named(of_dataset: Mapping[str, Any], dataset: str | None) -> None:
    """Refuse options of a dataset that nobody named.

    Raises:
        UsageError: there are some.
    """
    if of_dataset and dataset is None:
        raise UsageError(
            "--set dataset.KEY=VALUE is an option of --dataset, and none is named: add --dataset."
        )
