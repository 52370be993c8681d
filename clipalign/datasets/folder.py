"""Dataset `folder`: photographs in one sub-folder a class, with or without folders of splits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, field_validator

from clipalign.dataset_specs import is_table
from clipalign.datasets.base import Example, dated
from clipalign.datasets.images import read_image
from clipalign.datasets.options import (
    DEFAULT_TEMPLATES,
    SPLIT_NAMES,
    Template,
    label_problem,
    label_text,
    of_split,
    split_name,
)
from clipalign.errors import DataError
from clipalign.files import canonical_json, sha256_bytes

__all__ = ["Folder"]

_EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".avif",
)  # fmt: skip
_CLUTTER = ("thumbs.db", "desktop.ini", "__macosx")
_SHOWN = 10


class Folder:
    """Labelled images as folders: `root/cat/001.jpg`, or `root/train/cat/001.jpg`.

    A folder that is named as a split (train, val, validation, test, …) and holds folders is a
    split; without one, all images are the split `train`. A class is called what its folder is
    called, underscores read as spaces. Files whose names are not those of images are passed over
    and counted (`skipped`), and so are symbolic links that lead out of the root; hidden files are
    ignored.

    `fingerprint` covers the names of all image files, their sizes in bytes, and the templates;
    `cache_key` also when each was last changed. Neither covers their content.

    Raises:
        DataError: no images, one class, a class without images, images without a class, or a
            folder that is a symbolic link out of the root.
    """

    name = "folder"

    class Options(BaseModel):
        """Options of the dataset."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        root: Path = Field(description="The folder that holds one folder a class.")
        templates: tuple[Template, ...] = Field(
            DEFAULT_TEMPLATES, min_length=1, description="Prompts with one {}; the first is used."
        )
        extensions: tuple[str, ...] = Field(
            _EXTENSIONS, min_length=1, description="How the names of image files end."
        )
        licence: str = Field("not stated", description="Of the images; goes into the manifest.")

        @field_validator("extensions")
        @classmethod
        def _with_dot(cls, extensions: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(f".{e.lower().lstrip('.')}" for e in extensions)

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)
        self.root, self.licence = self.options.root, self.options.licence
        self.templates: Sequence[str] = self.options.templates
        if not self.root.is_dir():
            raise DataError(f"There is no folder {self.root}.")
        scan = _Scan(self.root, self.options.extensions)
        self._splits = {split: scan.split(folder) for split, folder in scan.split_folders()}
        everything = [e for split in self._splits.values() for e in split.examples]
        self.classnames: Sequence[str] = tuple(sorted({str(e.label) for e in everything}))
        if len(self.classnames) < 2:
            raise DataError(
                f"{self.root} has one class only, {self.classnames[0]!r}. Put the images of each "
                f"class into a folder of its own, side by side.{scan.table_there()}"
            )
        files = sorted(scan.files)
        content = [self.templates, [(name, size) for name, size, _ in files]]
        self.fingerprint = sha256_bytes(canonical_json(content))
        changed = [changed for _, _, changed in files]
        self.cache_key, self.changed = dated(self.fingerprint, changed), max(changed)

    def splits(self) -> Sequence[str]:
        """The names of the splits: train, validation, test."""
        return tuple(self._splits)

    def examples(self, split: str) -> Sequence[Example]:
        """The images of a split, sorted by class and name."""
        return of_split(self._splits, split, self.root).examples

    def skipped(self, split: str) -> Sequence[tuple[str, str]]:
        """Files of a split that were passed over, each with the reason."""
        return of_split(self._splits, split, self.root).skipped

    def image(self, example: Example) -> Image.Image:
        """Read one image as upright RGB."""
        return read_image(os.path.join(self.root, example.source), name=example.key)


@dataclass
class _Split:
    examples: list[Example] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


class _Scan:
    """Walks the folders once."""

    def __init__(self, root: Path, extensions: tuple[str, ...]) -> None:
        self._root, self._extensions = root, extensions
        self._real, self._prefix = os.path.realpath(root), os.path.join(root, "")
        self.files: list[tuple[str, int, int]] = []
        """Name, bytes, and when it was last changed, in ns."""

    def split_folders(self) -> list[tuple[str, Path]]:
        """Name and folder of each split, in the order of a training."""
        folders = self._folders(self._entries(self._root))
        splits = {e.name: split_name(e.name) for e in folders if self._is_split(e)}
        if not splits:
            return [("train", self._root)]
        others = [e.name for e in folders if e.name not in splits and self._holds_images(e)]
        if others:
            raise DataError(
                f"{self._root} has folders of splits ({', '.join(splits)}) beside folders of other "
                f"images ({_listed(others)}). Move one or the other away."
            )
        if len(set(splits.values())) < len(splits):
            raise DataError(
                f"{self._root} has two folders for one split: {', '.join(splits)}. Rename one, "
                "or put them together."
            )
        order = list(dict.fromkeys(SPLIT_NAMES.values()))
        found = sorted(splits.items(), key=lambda item: order.index(item[1]))
        return [(split, self._root / name) for name, split in found]

    def table_there(self) -> str:
        """Names a table that lies beside the images, which may be what was meant; "" for none."""
        tables = [e.path for e in self._entries(self._root) if is_table(e.path)]
        return f" Or name the table that lies there, {tables[0]}." if tables else ""

    def split(self, folder: Path) -> _Split:
        """The images of one split."""
        split = _Split()
        empty = []
        entries = self._entries(folder)
        folders = self._folders(entries)
        loose = [
            self._name(e.path) for e in entries if not _is_folder(e) and self._is_image(e.name)
        ]
        for entry in folders:
            before = len(split.examples)
            self._read_class(entry, split)
            if len(split.examples) == before:
                empty.append(entry.name)
        if not split.examples:
            raise DataError(
                f"{folder} holds {len(loose)} images and no folders of classes: put the images of "
                f"each class into a folder that is called as the class.{self.table_there()}"
                if loose and not folders
                else f"There are no images in {folder}: one folder a class is expected, with files "
                f"that end in {' '.join(self._extensions)}."
            )
        if empty:
            raise DataError(f"{folder}: there are no images of the classes {_listed(empty)}.")
        split.skipped += [(name, "it lies in no folder of a class") for name in loose]
        return split

    def _read_class(self, folder: os.DirEntry[str], split: _Split) -> None:
        label = label_text(folder.name.replace("_", " "))
        if problem := label_problem(label):
            raise DataError(f"{self._root}, folder {folder.name!a}: {problem}.")
        for file in self._files(folder.path):
            name = self._name(file.path)
            key = name.encode("utf-8", "backslashreplace").decode()
            if not self._stays_inside(file):
                split.skipped.append((key, f"it is a symbolic link that leads out of {self._root}"))
            elif _is_folder(file):
                split.skipped.append((key, "it is a symbolic link to a folder"))
            elif not self._is_image(file.name):
                split.skipped.append((key, "its name is not that of an image file"))
            elif not os.path.isfile(file.path):
                split.skipped.append((key, "it is not a file, or a link to nothing"))
            else:
                found = file.stat()
                self.files.append((name, found.st_size, found.st_mtime_ns))
                split.examples.append(Example(key, label, name, key))

    def _files(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """All files below a folder; a link to a folder is given and not followed."""
        for entry in self._entries(folder):
            if entry.is_dir(follow_symlinks=False):
                yield from self._files(entry.path)
            else:
                yield entry

    def _entries(self, folder: str | Path) -> list[os.DirEntry[str]]:
        """What a folder holds, sorted, without what is hidden."""
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda e: e.name)
        except OSError as error:
            raise DataError(f"{folder} cannot be read: {error.strerror}.") from None
        return [e for e in entries if not _is_clutter(e.name)]

    def _folders(self, entries: list[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
        """The folders among what a folder holds; without one of them there would be a class less.

        Raises:
            DataError: one is a symbolic link that leads out of the root.
        """
        folders = [e for e in entries if _is_folder(e)]
        for folder in folders:
            if not self._stays_inside(folder):
                raise DataError(
                    f"{folder.path} is a symbolic link that leads out of {self._root}, to "
                    f"{os.path.realpath(folder.path)}; such links are not followed. Copy what it "
                    "leads to, or name the real folder."
                )
        return folders

    def _stays_inside(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry is no link, or one to something below the root."""
        if not entry.is_symlink():
            return True
        real = os.path.realpath(entry.path)
        return os.path.commonpath([real, self._real]) == self._real

    def _is_split(self, folder: os.DirEntry[str]) -> bool:
        if folder.name.lower() not in SPLIT_NAMES:
            return False
        entries = self._entries(folder.path)
        return any(_is_folder(e) for e in entries) and not any(
            self._is_image(e.name) for e in entries
        )

    def _holds_images(self, folder: os.DirEntry[str]) -> bool:
        return any(self._is_image(file.name) for file in self._files(folder.path))

    def _is_image(self, name: str) -> bool:
        return name.lower().endswith(self._extensions)

    def _name(self, path: str) -> str:
        return path.removeprefix(self._prefix).replace(os.sep, "/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link that goes round in circles is none."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
