"""`clipalign config`: show, check, describe and copy configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipalign.cli.console import Console
from clipalign.cli.flags import ConfigSetOption, JsonFlag, QuietFlag
from clipalign.errors import ConfigError, ModelError, UsageError, near_matches

app = typer.Typer(no_args_is_help=True, help="Show, check, describe and copy configurations.")


def _shipped() -> dict[str, Path]:
    """The recipes that ship with clipalign, by name."""
    from clipalign import recipes

    return {file.stem: file for file in Path(recipes.__path__[0]).glob("*.yaml")}


def _to_copy() -> dict[str, Path]:
    """What `cp` copies, by name: the recipes, and the concept files."""
    from clipalign.tasks import concepts

    files = Path(concepts.__path__[0]).glob("*.yaml")
    return _shipped() | {f"concept/{file.stem}": file for file in files}


def _recipes(incomplete: str) -> list[str]:
    """Completes the name of a recipe."""
    return sorted(name for name in _shipped() if name.startswith(incomplete))


def _copies(incomplete: str) -> list[str]:
    """Completes the name of what is copied."""
    return sorted(name for name in _to_copy() if name.startswith(incomplete))


def _file(path: Path) -> Path:
    """The file that is named, or else the recipe.

    Raises:
        ConfigError: there is neither.
    """
    shipped = _shipped()
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    if str(path) not in shipped:
        near = near_matches(str(path), shipped)
        raise ConfigError(f"There is neither a file nor a recipe {str(path)!r}.{near}")
    return shipped[str(path)]


@app.command()
def show(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE|RECIPE",
            help="A file, or a recipe that ships with clipalign; the defaults if left out.",
            autocompletion=_recipes,
        ),
    ] = None,
    overrides: ConfigSetOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Print a resolved configuration, every key with what it means.

    \b
    Examples:
      clipalign config show
      clipalign config show gender
      clipalign config show recipe.yaml --set method=dpo --set train.lr=1e-5
    """
    from clipalign.config import load_config
    from clipalign.config_text import dump_config

    config = load_config(None if path is None else _file(path), overrides or ())
    text = dump_config(config, comments=True).rstrip()
    Console(json=as_json, quiet=quiet).result(config.model_dump(mode="json"), text)


@app.command()
def validate(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration to check.")],
    overrides: ConfigSetOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Check a configuration and the options of what it names. Exit code 3 if anything is wrong.

    \b
    Example:
      clipalign config validate recipe.yaml
    """
    from clipalign.config import load_config
    from clipalign.models.spec import parse_model_spec

    try:
        load_config(path, overrides or (), check_options=True, check_model=parse_model_spec)
    except ModelError as error:
        raise ConfigError(f"There is something wrong in {path}:\n  model: {error}") from None
    Console(json=as_json, quiet=quiet).result(
        {"file": str(path), "valid": True}, f"{path} is valid."
    )


@app.command()
def schema(as_json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """Print the JSON schema of a configuration, for editors. It is JSON in any case.

    \b
    Example:
      clipalign config schema > clipalign.schema.json
    """
    from clipalign.config import RunConfig

    Console(json=True).result(RunConfig.model_json_schema())


@app.command()
def cp(
    name: Annotated[
        str,
        typer.Argument(
            help="Recipe that ships with clipalign, or concept/NAME for a concept file.",
            autocompletion=_copies,
        ),
    ],
    to: Annotated[
        Path | None, typer.Argument(help="Where to write it; ./NAME.yaml if left out.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Copy a recipe or a concept file, with its comments, to edit.

    \b
    Examples:
      clipalign config cp typographic my-recipe.yaml
      clipalign config cp concept/gender age.yaml      # for train --task concept
    """
    shipped = _to_copy()
    if name not in shipped:
        raise UsageError(f"There is no recipe {name!r}.{near_matches(name, shipped)}")
    target = to or Path(shipped[name].name)
    if target.is_dir():
        target /= shipped[name].name
    try:
        with target.open("w" if force else "x", encoding="utf-8") as file:
            file.write(shipped[name].read_text(encoding="utf-8"))
    except FileExistsError:
        raise ConfigError(
            f"{target} exists. Name another file, or write over it with --force."
        ) from None
    except FileNotFoundError:
        raise ConfigError(
            f"There is no folder {target.parent}. Make it first, or name another place."
        ) from None
    Console(json=as_json, quiet=quiet).result({"file": str(target)}, f"Wrote {target}.")
