"""Options that datasets and tasks share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator

from clipalign.datasets.base import Dataset
from clipalign.errors import DataError, near_matches
from clipalign.text import JOINERS, can_be_printed

__all__ = [
    "DEFAULT_TEMPLATES",
    "SPLIT_NAMES",
    "Label",
    "Template",
    "in_order",
    "label_advice",
    "label_problem",
    "label_text",
    "of_split",
    "split_name",
]

T = TypeVar("T")

DEFAULT_TEMPLATES = ("a photo of a {}.",)

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What people call a split, and what it is called here."""


def split_name(name: str) -> str:
    """`validation` for "val", and so on; other names stay as they are."""
    return SPLIT_NAMES.get(name.lower(), name)


def in_order(splits: Iterable[str]) -> tuple[str, ...]:
    """Splits as a training meets them: train, validation, test, then others by name."""
    known = list(dict.fromkeys(SPLIT_NAMES.values()))
    return tuple(sorted(splits, key=lambda s: (known.index(s) if s in known else len(known), s)))


def of_split(by_split: Mapping[str, T], split: str, source: object) -> T:
    """What a dataset has of a split.

    Raises:
        DataError: it has no such split; `source` says where.
    """
    if split not in by_split:
        raise DataError(f"{source} has no split {split!r}.{near_matches(split, by_split)}")
    return by_split[split]


def _one_place(template: str) -> str:
    if template.count("{}") != 1 or "{" in (rest := template.replace("{}", "")) or "}" in rest:
        raise ValueError("a template has exactly one {} and no other braces")
    return template


Template = Annotated[str, AfterValidator(_one_place)]
"""A prompt with one place, {}, for the name of a class."""


_LONGEST_LABEL = 200
_SPACES = re.compile("[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")


def label_text(label: str) -> str:
    """A label in the one form that it has here, so that what reads the same is one class.

    Composed (NFC: a Mac writes é as two characters), single plain spaces, none at the ends.
    """
    return _SPACES.sub(" ", unicodedata.normalize("NFC", label.strip()))


Label = Annotated[str, AfterValidator(label_text)]
"""The name of a class, as an option gives it."""


def label_problem(label: str) -> str | None:
    """Why a text cannot name a class; None where it can."""
    if not label.strip(JOINERS):
        return "the label is empty"
    if len(label) > _LONGEST_LABEL:
        return f"the label is {len(label):,} characters long, and {_LONGEST_LABEL} is the most"
    if not can_be_printed(label):
        return f"the label {label!a} has characters that cannot be printed"
    return None


def label_advice(dataset: Dataset, split: str) -> str:
    """How to say what an unlabelled dataset shows, for the end of an error; "" where it cannot."""
    options: Any = getattr(dataset, "options", None)
    fields = getattr(type(options), "model_fields", {})
    option = next((name for name in fields if name.startswith("label")), None)
    columns = dict.fromkeys(name for e in dataset.examples(split) for name in e.attributes)
    if option is None or not columns:
        return ""
    return (
        f" Its columns are {', '.join(columns)}: name the one of the class with the dataset's "
        f"option {option}."
    )
