"""What a user names a dataset by: a registered name, a folder, a table, or shards.

Nothing here imports a dataset.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from clipalign.errors import UsageError, near_matches
from clipalign.plugins import registry

__all__ = [
    "TABLES",
    "DatasetSpec",
    "is_shard_pattern",
    "is_table",
    "label_of",
    "locate_dataset",
    "no_dataset",
    "not_named",
    "place_of",
]

DatasetSpec: TypeAlias = Annotated[str, "dataset"]
"""An option that names a dataset; its own options may stand beside it, in NAME_options."""

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_ENDINGS = ", ".join([*TABLES, ".tar"])
_ROWS = "metadata.jsonl"  # of each split of a prepared set
_SAVED = (["dataset_dict.json"], ["state.json", "dataset_info.json"])  # of the library `datasets`


def is_table(path: str | Path) -> bool:
    """Whether a path is a file that the dataset `table` reads, by the ending of its name."""
    return Path(path).suffix.lower() in TABLES and os.path.isfile(path)


def is_shard_pattern(spec: str | Path) -> bool:
    """Whether a path names many tar shards at once, by * or braces."""
    return str(spec).lower().endswith(".tar") and any(mark in str(spec) for mark in "*{")


def locate_dataset(spec: str | Path, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The registered name and the options that a spec stands for.

        locate_dataset("emoji", {}) == ("emoji", {})
        locate_dataset("./photos", {}) == ("folder", {"root": "./photos"})
        locate_dataset("photos/index.csv", {}) == ("table", {"path": "photos/index.csv"})
        locate_dataset("./shards", {}) == ("webdataset", {"path": "./shards"})  # holds .tar files
        locate_dataset("food101:/data/food", {}) == ("food101", {"root": "/data/food"})

    Raises:
        UsageError: it is neither a registered name nor a path that exists; or a name that takes a
            path, without one; or a set that was prepared.
    """
    if not isinstance(spec, str | os.PathLike):
        raise UsageError(not_named(spec))
    known = registry("datasets").names()
    path = Path(spec)
    name, colon, place = str(spec).partition(":")
    if isinstance(spec, str) and name in known:
        options = _with_path(name, place if colon else None, options)
        if name == "folder":
            _check_folder(str(options["root"]))
        return name, options
    if not str(spec):  # Path would make the current folder of it
        raise UsageError(no_dataset(""))
    _check_folder(str(spec))
    if os.path.isdir(path):  # unlike Path's own, False for a name that is too long
        name, key = ("webdataset", "path") if _holds_shards(path) else ("folder", "root")
        return name, {key: str(spec), **options}
    if is_table(path):
        return "table", {"path": str(spec), **options}
    if is_shard_pattern(spec) or (os.path.isfile(path) and path.suffix.lower() == ".tar"):
        return "webdataset", {"path": str(spec), **options}
    if os.path.exists(path):
        raise UsageError(f"{path} is neither a folder nor a table nor shards ({_ENDINGS}).")
    raise UsageError(no_dataset(str(spec)))


def no_dataset(spec: str) -> str:
    """What to say of a spec that is neither a registered name nor a path that exists."""
    name, colon, _ = spec.partition(":")
    if not colon and ("/" in spec or os.sep in spec or Path(spec).suffix):
        return f"There is no folder or file {spec!r}."
    known = registry("datasets").names()
    return f"There is no dataset, folder or table {spec!r}.{near_matches(name, known)}"


def not_named(given: object) -> str:
    """What to say of a thing that stands where a dataset is named."""
    table = ""
    if hasattr(given, "to_csv"):  # of pandas
        table = " A table of paths and labels is read from its file: frame.to_csv('images.csv')."
    return (
        f"dataset: no {type(given).__name__} can be used here. Images that are in memory become "
        "one with clipalign.ImageList(images, labels), which prepare, evaluate and retrieve take; "
        "images on disk are named by their folder, or by a table file with the columns image and "
        "label."
        f"{table}"
    )


def _check_folder(spec: str) -> None:
    """A path must not lead to files of another kind, which a folder of photographs looks like.

    Raises:
        UsageError: it is a prepared set, or lies in one; or the library `datasets` wrote it.
    """
    if (made := _set_around(os.path.abspath(spec))) is not None:
        shown = made if os.path.isabs(spec) else os.path.relpath(made)
        what = "is" if made == os.path.abspath(spec) else "lies in"
        raise UsageError(
            f"{spec} {what} a prepared set of preferences; a dataset is the labelled images that "
            f"such a set is made of. To train on it: clipalign train --data {shlex.quote(shown)}"
        )
    if any(all(os.path.isfile(f"{spec}/{name}") for name in names) for names in _SAVED):
        raise UsageError(
            f"{spec} was written by the library datasets (save_to_disk): name it as "
            f"huggingface:{spec}."
        )


def _set_around(path: str) -> str | None:
    """The prepared set that an absolute path is or lies in; None where it lies in none."""
    if os.path.isfile(os.path.join(path, "manifest.yaml")):
        return path if any(Path(path).glob(f"*/{_ROWS}")) else None
    for split in (path, *map(str, list(Path(path).parents)[:2])):  # SET/train/images/0.png
        made = os.path.dirname(split)
        if all(map(os.path.isfile, (f"{split}/{_ROWS}", f"{made}/manifest.yaml"))):
            return made
    return None


def _with_path(name: str, place: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a registered dataset, with its path in the option that takes one."""
    key = registry("datasets").entry(name).metadata.get("path")
    if place is None:
        if key is not None and key not in options:
            raise UsageError(
                f"The dataset {name!r} is read from disk: say where it lies, as {name}:PATH."
            )
        return dict(options)
    if key is None:
        raise UsageError(f"The dataset {name!r} takes no path: name it alone, as {name}.")
    if key in options:
        raise UsageError(f"The dataset {name!r} is given two places: {place} and {options[key]}.")
    return {key: place, **options}


def place_of(name: str, options: Mapping[str, Any]) -> str | None:
    """Where the images of a dataset lie, as its options have it; None where they say nothing."""
    known = registry("datasets")
    key = known.entry(name).metadata.get("path") if name in known.names() else None
    place = options.get(key) if key is not None else None
    return None if place is None else str(place)


def label_of(name: str, options: Mapping[str, Any]) -> str:
    """What a dataset is called beside others of its kind.

        label_of("oxford-pets", {"root": "/data/pets"}) == "oxford-pets"
        label_of("table", {"path": "photos/index.csv"}) == "table index"

    A name says which data it stands for, unless it was registered with `named_by_path`: such a
    dataset reads whatever it is pointed at, and is called after that as well.
    """
    place = place_of(name, options)
    if place is None or not registry("datasets").entry(name).metadata.get("named_by_path"):
        return name
    path = Path(place)
    last = path.name if path.name not in ("", "..") else path.resolve().name
    for ending in (*TABLES, ".tar"):
        last = last.removesuffix(ending)
    return f"{name} {last}".strip()


def _holds_shards(folder: Path) -> bool:
    """Whether a folder holds .tar files, by itself or in its own folders, and no class folders."""
    return any(folder.glob("*.tar")) or any(folder.glob("*/*.tar"))
