"""Dataset `huggingface`: what the library `datasets` opens, from disk or, when asked, the hub."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from clipalign.datasets.base import Example
from clipalign.datasets.images import UnreadableImage, read_image
from clipalign.datasets.options import (
    DEFAULT_TEMPLATES,
    Template,
    in_order,
    label_problem,
    label_text,
    of_split,
    split_name,
)
from clipalign.errors import DataError
from clipalign.files import canonical_json, sha256_bytes
from clipalign.option_flags import dataset_option

__all__ = ["HuggingFace"]


class HuggingFace:
    """Images of a dataset of the library `datasets` (extra `hf`).

    The path is a directory that `save_to_disk` wrote, or a folder or a file that `load_dataset`
    opens by itself (Parquet, an image folder). With `download=true` it may be the name of a dataset
    on the hub; nothing is ever downloaded otherwise. Rows stay on disk and are read where they lie.

    All columns of text and numbers but the label are attributes; numbers that stand for names are
    read as names.

    Raises:
        DataError: the library is missing, it cannot open the path, or there is no column of images
            or of labels.
    """

    name = "huggingface"

    class Options(BaseModel):
        """Options of the dataset."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        path: str = Field(min_length=1, description="Directory, file, or name on the hub.")
        config: str | None = Field(None, description="Which of the configurations of a dataset.")
        revision: str | None = Field(None, description="Commit or tag on the hub.")
        download: bool = Field(False, description="Whether the hub may be asked.")
        image_column: str | None = Field(
            None, description="Column of images; null for the one there is."
        )
        label_column: str | None = Field(
            "label",
            description="Column of the class name; left out, `label` where there is such a column. "
            "null for images without labels.",
        )
        templates: tuple[Template, ...] = Field(
            DEFAULT_TEMPLATES, min_length=1, description="Prompts with one {}; the first is used."
        )
        licence: str | None = Field(None, description="Of the images; null for what it says.")

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)
        self.templates: Sequence[str] = self.options.templates
        tables = self._tables
        first = next(iter(tables.values()))
        self._image_column = self._find_image(first.features)
        self._label_column = self._find_label(first.features)
        self.licence = self.options.licence or first.info.license or "not stated"
        self._examples = {split: self._read(split, table) for split, table in tables.items()}
        found = {e.label for split in self._examples.values() for e in split if e.label}
        names = getattr(first.features.get(self._label_column or ""), "names", None)
        self.classnames: Sequence[str] = tuple(map(label_text, names or sorted(found)))
        content = [[split, table._fingerprint] for split, table in tables.items()]
        reading = self.options.model_dump(mode="json", exclude={"path", "licence"})
        self.fingerprint = sha256_bytes(canonical_json([content, reading]))

    def splits(self) -> Sequence[str]:
        """The names of the splits: train, validation, test, then others."""
        return in_order(self._examples)

    def examples(self, split: str) -> Sequence[Example]:
        """The rows of a split, in their order."""
        return of_split(self._examples, split, self.options.path)

    def image(self, example: Example) -> Image.Image:
        """Read one image as upright RGB."""
        split, row = example.source
        cell = self._tables[split][row][self._image_column]
        if not cell or not (cell.get("bytes") or cell.get("path")):
            raise UnreadableImage(example.key, "there is no image in this row")
        return read_image(cell.get("bytes") or cell["path"], name=example.key)

    def __getstate__(self) -> dict[str, Any]:
        """Without the tables, which a worker process opens for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_tables"}

    # --- Parts ----------------------------------------------------------------------------------

    @functools.cached_property
    def _tables(self) -> Mapping[str, Any]:
        """Split → `datasets.Dataset`, images not decoded."""
        try:
            library = importlib.import_module("datasets")
        except ImportError:
            raise DataError(
                "Reading a Hugging Face dataset needs the library datasets: "
                "`pip install 'clipalign[hf]'`."
            ) from None
        found = self._opened(library)
        if not isinstance(found, Mapping):
            found = {str(found.split or "train"): found}
        tables = {}
        for split, table in found.items():
            for column, feature in table.features.items():
                if isinstance(feature, library.Image):  # our own reader decodes
                    table = table.cast_column(column, library.Image(decode=False))
            name = split_name(str(split))
            if name in tables:
                raise DataError(
                    f"{self.options.path} has two splits {name!r}: {', '.join(map(str, found))}. "
                    "Rename one, or put them together."
                )
            tables[name] = table
        if not any(len(table) for table in tables.values()):
            raise DataError(f"{self.options.path} has no rows.")
        return tables

    def _opened(self, library: Any) -> Any:
        options, place = self.options, Path(self.options.path)
        if not place.exists() and not options.download:
            raise DataError(
                f"There is no {place} on this disk. If it is the name of a dataset on the hub, "
                f"allow to download it with {dataset_option('download=true')}."
            )
        try:
            if (place / "state.json").is_file() or (place / "dataset_dict.json").is_file():
                return library.load_from_disk(str(place))
            if place.suffix.lower() == ".parquet" and place.is_file():
                return library.load_dataset("parquet", data_files=str(place))
            return library.load_dataset(
                str(options.path), options.config, revision=options.revision
            )
        except Exception as error:  # the library raises whatever its readers come across
            words = " ".join(str(error).split())[:300] or type(error).__name__
            raise DataError(f"{options.path} cannot be opened as a dataset: {words}") from None

    def _find_image(self, features: Mapping[str, Any]) -> str:
        images = [name for name, f in features.items() if type(f).__name__ == "Image"]
        wanted = self.options.image_column
        if wanted is None and len(images) == 1:
            return images[0]
        if wanted in images:
            return str(wanted)
        what = "no column of images" if not images else f"the columns of images {', '.join(images)}"
        raise DataError(
            f"{self.options.path} has {what}; all its columns: {', '.join(features)}. Name one "
            f"with {dataset_option('image_column=COLUMN')}."
        )

    def _find_label(self, features: Mapping[str, Any]) -> str | None:
        wanted = self.options.label_column
        if wanted is None or wanted in features:
            return wanted
        if "label_column" not in self.options.model_fields_set:
            return None  # not every use needs a class: who does says so
        raise DataError(
            f"{self.options.path} has no column {wanted!r} of labels; it has "
            f"{', '.join(features)}. Name it with {dataset_option('label_column=COLUMN')}."
        )

    def _read(self, split: str, table: Any) -> list[Example]:
        """Every row but its image."""
        plain = ("Value", "ClassLabel")
        columns = [name for name, f in table.features.items() if type(f).__name__ in plain]
        texts = table.select_columns(columns)
        words = {name: _words(texts.features[name]) for name in columns}
        found = []
        for row, cells in enumerate(texts):
            cells = {name: words[name](value) for name, value in cells.items()}
            label = label_text(cells.pop(self._label_column, "")) if self._label_column else ""
            if problem := label and label_problem(label):
                raise DataError(f"{self.options.path}, {split}, row {row}: {problem}.")
            key = f"{split}/{row:08}"
            found.append(Example(key, label or None, (split, row), key, cells))
        return found


def _words(feature: Any) -> Any:
    """What turns a cell of a column into text."""
    names = getattr(feature, "names", None)
    if names is None:
        return lambda value: "" if value is None else str(value)
    return lambda value: names[value] if value is not None and 0 <= value < len(names) else ""
