"""Dataset `table`: a CSV, TSV, JSON Lines or Parquet file that names images and their labels."""

from __future__ import annotations

import ntpath
import os
import posixpath
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from clipalign.datasets.base import Example, dated
from clipalign.datasets.images import read_image
from clipalign.datasets.options import (
    DEFAULT_TEMPLATES,
    Template,
    in_order,
    label_problem,
    label_text,
    of_split,
    split_name,
)
from clipalign.datasets.rows import Row, read_rows
from clipalign.errors import DataError
from clipalign.files import canonical_json, sha256_bytes, sha256_file
from clipalign.option_flags import dataset_option

__all__ = ["Table", "left_out_note"]

_IMAGE_COLUMNS = ("image", "file_name", "path")
_SHOWN = 20


class Table:
    """Labelled images as rows of a table.

    Columns: `image` (or `file_name`, or `path`), and where there are, `label`, `split`, `group` and
    `attack_text`; all others are kept as attributes, but for those that hold neither text nor
    numbers nor times in any row (`left_out`). Other names are given as options. Files are found
    from the table's folder, or from `root`, and lie below it; an absolute path may lead there, too.
    Without a column `split` all rows are the split `train`; "val" is read as validation. With
    `wrong_rows=quarantine` rows that are wrong are passed over and counted (`skipped`); else they
    are an error.

    `fingerprint` covers the table's bytes, the names and sizes in bytes of the images, and the
    options that change how the table is read; `cache_key` also when each image was last changed.
    Neither covers the images' content.

    Raises:
        DataError: naming every row that is wrong, unless they are quarantined: missing files, paths
            out of the root, labels that are empty, files named twice, text that is not UTF-8.
    """

    name = "table"

    class Options(BaseModel):
        """Options of the dataset."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        path: Path = Field(description="The table: .csv, .tsv, .jsonl or .parquet.")
        root: Path | None = Field(
            None, description="Folder that image paths start from; null for the table's."
        )
        image_column: str | None = Field(
            None, description="Column of the image; null for image, file_name or path."
        )
        label_column: str | None = Field(
            "label",
            description="Column of the class name; left out, `label` where there is such a column. "
            "null for images without labels.",
        )
        split_column: str = Field("split", description="Column of the split, if there is one.")
        group_column: str = Field(
            "group", description="Column of what makes images dependent, if there is one."
        )
        attack_column: str = Field(
            "attack_text", description="Column of the word on an attacked image, if there is one."
        )
        wrong_rows: Literal["refuse", "quarantine"] = Field(
            "refuse",
            description="Whether a wrong row is an error, or passed over and counted.",
        )
        repeats: bool = Field(False, description="Whether several rows may name one image.")
        templates: tuple[Template, ...] = Field(
            DEFAULT_TEMPLATES, min_length=1, description="Prompts with one {}; the first is used."
        )
        licence: str = Field("not stated", description="Of the images; goes into the manifest.")

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)
        self.path, self.licence = self.options.path, self.options.licence
        self.templates: Sequence[str] = self.options.templates
        self.root = self.options.root or self.path.parent
        reader = _Reader(self.options, self.root)
        self._examples = reader.examples(read_rows(self.path))
        self._skipped, self.left_out = reader.skipped, reader.left_out
        labels = {e.label for split in self._examples.values() for e in split}
        self.classnames: Sequence[str] = tuple(sorted(label for label in labels if label))
        reading = self.options.model_dump(mode="json", exclude={"path", "root", "licence"})
        files = sorted(reader.files)
        sizes = [(source, size) for source, size, _ in files]
        content = [sha256_file(self.path), sizes, reading]
        self.fingerprint = sha256_bytes(canonical_json(content))
        changed = [changed for _, _, changed in files]
        self.cache_key, self.changed = dated(self.fingerprint, changed), max(changed)

    def splits(self) -> Sequence[str]:
        """The names of the splits: train, validation, test, then others."""
        return tuple(self._examples)

    def examples(self, split: str) -> Sequence[Example]:
        """The rows of a split, in the table's order."""
        return of_split(self._examples, split, self.path)

    def skipped(self, split: str) -> Sequence[tuple[str, str]]:
        """Rows of a split that were passed over, each with the reason."""
        return self._skipped.get(split, ())

    def image(self, example: Example) -> Image.Image:
        """Read one image as upright RGB."""
        return read_image(self.root / example.source, name=example.key)


@dataclass(frozen=True, slots=True, order=True)
class _Problem:
    """What is wrong with one row; the image and the split that it names, where it does."""

    number: int
    words: str
    image: str
    split: str


class _Reader:
    """Makes examples of rows, and gathers what is wrong."""

    def __init__(self, options: Table.Options, root: Path) -> None:
        self._options, self._root = options, root
        self._real = os.path.realpath(root)
        self._roots = [os.path.join(path, "") for path in (os.path.abspath(root), self._real)]
        self._lost = False  # whether an image was not found
        self._folders: dict[str, str] = {}
        self._inside: dict[str, bool] = {}
        self._problems: list[_Problem] = []
        self._seen: dict[str, int] = {}
        self.skipped: dict[str, list[tuple[str, str]]] = {}
        self.left_out: tuple[str, ...] = ()
        self.files: list[tuple[str, int, int]] = []
        """Source, bytes, and when it was last changed, in ns."""

    def examples(self, rows: list[Row]) -> dict[str, list[Example]]:
        """Examples by split.

        Raises:
            DataError: naming everything that is wrong.
        """
        path = self._options.path
        if not rows:
            raise DataError(f"{path} has no rows.")
        for row in rows:
            self._wrong(row.number, "", row.problems)
        rows = [row for row in rows if not row.problems]
        if not rows:
            raise self._error()
        columns = self._columns(rows)
        image_column = self._image_column(columns)
        label_column = self._label_column(columns)
        found: dict[str, list[Example]] = {}
        for row in rows:
            example, split = self._example(row, image_column, label_column, columns)
            if example is not None:
                found.setdefault(split, []).append(example)
        if self._problems and (self._options.wrong_rows == "refuse" or not found):
            raise self._error()
        splits = {split: found[split] for split in in_order(found)}

        def place(problem: _Problem) -> int:
            return problem.number

        for number, of_row in groupby(sorted(self._problems, key=place), key=place):
            first, *more = of_row
            # a row that belongs to no split is counted with the first
            split = first.split if first.split in splits else next(iter(splits))
            where = f"{first.image or self._options.path.name}#{number}"
            reason = "; ".join(problem.words for problem in (first, *more))
            self.skipped.setdefault(split, []).append((where, reason))
        return splits

    def _columns(self, rows: Sequence[Row]) -> list[str]:
        """The columns that hold text in some row, or nothing but empty cells."""
        columns = list(dict.fromkeys(column for row in rows for column in row.cells))
        if others := {column for row in rows for column in row.others}:
            said = {column for row in rows for column, cell in row.cells.items() if cell}
            self.left_out = tuple(sorted(others - said))
        return [column for column in columns if column not in self.left_out]

    def _wrong(self, number: int, image: str, problems: Sequence[str], split: str = "") -> None:
        self._problems += [_Problem(number, words, image, split) for words in problems]

    def _error(self) -> DataError:
        """Of everything that is wrong, in the order of the rows."""
        problems = [f"row {p.number}: {p.words}" for p in sorted(self._problems)]
        more = len(problems) - _SHOWN
        lines = problems[:_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        if self._lost:
            lines.append(
                f"Paths of images start from {self._root}; another folder is given with "
                f"{dataset_option('root=FOLDER')}."
            )
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        return DataError(f"{self._options.path}: {count}:\n  " + "\n  ".join(lines))

    def _image_column(self, columns: Sequence[str]) -> str:
        asked = self._options.image_column
        for column in (asked,) if asked is not None else _IMAGE_COLUMNS:
            if column in columns:
                return column
        wanted = repr(asked) if asked is not None else " or ".join(map(repr, _IMAGE_COLUMNS))
        raise DataError(
            f"{self._options.path} has no column {wanted} of images; it has "
            f"{', '.join(columns)}.{left_out_note(self.left_out)} Name the column with "
            f"{dataset_option('image_column=COLUMN')}."
        )

    def _label_column(self, columns: Sequence[str]) -> str | None:
        asked = self._options.label_column
        if asked is None or asked in columns:
            return asked
        if "label_column" not in self._options.model_fields_set:
            return None  # not every use needs a class: who does says so
        raise DataError(
            f"{self._options.path} has no column {asked!r} of labels; it has "
            f"{', '.join(columns)}. Name the column with {dataset_option('label_column=COLUMN')}."
        )

    def _example(
        self, row: Row, image_column: str, label_column: str | None, columns: Sequence[str]
    ) -> tuple[Example | None, str]:
        cells, options = dict(row.cells), self._options
        wrong = [column for column in row.others if column not in self.left_out]
        problems = [f"{column} holds neither text nor a number" for column in wrong]
        source = self._from_root(cells.pop(image_column, "").strip())
        problem = self._file_problem(source, row.number)
        problems += [problem] if problem else []
        label = None
        if label_column is not None:
            label = label_text(cells.pop(label_column, ""))
            problem = label_problem(label)
            problems += [problem] if problem else []
        split = "train"
        if options.split_column in columns:
            split = split_name(cells.pop(options.split_column, "").strip())
            problems += [] if split else ["the split is empty"]
        if problems:
            self._wrong(row.number, source, problems, split)
            return None, split
        group = cells.pop(options.group_column, "").strip()
        if options.attack_column in cells:
            cells["attack_text"] = cells.pop(options.attack_column).strip()
        attributes = {c: cells.get(c, "") for c in self._kept(columns, image_column, label_column)}
        key = f"{source}#{row.number}" if options.repeats else source
        return Example(key, label, source, group or source, attributes), split

    def _kept(
        self, columns: Sequence[str], image_column: str, label_column: str | None
    ) -> list[str]:
        options = self._options
        used = {image_column, label_column, options.split_column, options.group_column}
        return [
            "attack_text" if c == options.attack_column else c for c in columns if c not in used
        ]

    def _from_root(self, source: str) -> str:
        """An absolute path that leads below the root, as a path from there; others as they are."""
        root = next((root for root in self._roots if source.startswith(root)), "")
        return source.removeprefix(root)

    def _file_problem(self, source: str, number: int) -> str | None:
        if not source:
            return "there is no image"
        if "\0" in source:
            return "the image's path has a zero byte"
        if posixpath.isabs(source) or ntpath.splitdrive(source)[0]:
            self._lost = True
            return f"{source!a} is an absolute path that lies outside of {self._root}"
        real, found = self._real_file(os.path.join(self._real, source))
        if not self._is_inside(os.path.dirname(real)):
            self._lost = True
            return f"{source!a} lies outside of {self._root}"
        if found is None:
            self._lost = True
            return f"there is no file {source!a} in {self._root}"
        if real in self._seen:
            if self._options.repeats:
                return None
            return f"{source!a} is already named by row {self._seen[real]}"
        self._seen[real] = number
        self.files.append((source, found.st_size, found.st_mtime_ns))
        return None

    def _real_file(self, path: str) -> tuple[str, os.stat_result | None]:
        """Where a path really leads, and the facts of the file there; None where there is none.

        Folders are resolved once: of a million files it is the folders that take the time.
        """
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        real = os.path.join(self._folders[folder], name)
        try:
            found = os.lstat(real)
            if stat.S_ISLNK(found.st_mode) or name in ("", ".", ".."):
                real = os.path.realpath(real)
                found = os.stat(real)
        except OSError:
            return real, None
        return real, found if stat.S_ISREG(found.st_mode) else None

    def _is_inside(self, folder: str) -> bool:
        if folder not in self._inside:
            self._inside[folder] = os.path.commonpath([folder, self._real]) == self._real
        return self._inside[folder]


def left_out_note(columns: Sequence[str]) -> str:
    """A sentence on columns that were left out, for the end of an error; "" where there are none.

    Files with images inside, as the library `datasets` writes them, are another dataset.
    """
    if not columns:
        return ""
    return (
        f" Left out, as they hold neither text nor numbers: {', '.join(columns)} (a Parquet file "
        "that holds the images themselves is read as huggingface:PATH)."
    )
