"""Images with the judgements that were made of them: the rows of one image are one example."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from clipalign.datasets.base import Dataset, Example, rgb_image
from clipalign.datasets.images import UnreadableImage
from clipalign.datasets.table import left_out_note
from clipalign.errors import DataError
from clipalign.files import canonical_json, sha256_bytes
from clipalign.option_flags import task_option
from clipalign.tasks.judgements.reading import Columns, Judgement, judgement
from clipalign.tasks.kept import WithKept

__all__ = ["JudgedImages"]

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class _Judged:
    """Source of an example: that of the dataset, and all that was said of it."""

    example: Example
    judgements: tuple[Judgement, ...]


class JudgedImages(WithKept):
    """A dataset whose attributes say which texts are preferred, one example an image.

    Rows that cannot be read are passed over and counted (`skipped`).

    Args:
        dataset: images with the columns.
        columns: their names.
        keep: another dataset, whose images are held still beside these.

    Raises:
        DataError: the dataset has none of the columns, or lacks one that was named or is needed.
    """

    def __init__(self, dataset: Dataset, columns: Columns, keep: Dataset | None) -> None:
        super().__init__(dataset, keep)
        self._columns = columns
        self._examples: dict[str, Sequence[Example]] = {}
        self._skipped: dict[str, list[tuple[str, str]]] = {}
        found = {name for split in dataset.splits() for name in _attributes(dataset, split)}
        if not found & set(columns.names):
            raise DataError(_no_columns(dataset, columns, found))
        _check_columns(dataset, columns, found)
        for split in dataset.splits():
            self._skipped[split] = list(super().skipped(split))
            self._examples[split] = self._read(split)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of the datasets, and of how they are read."""
        parts = [[part.name, part.fingerprint] for part in self.parts]
        return sha256_bytes(canonical_json([parts, self._columns.names]))

    def examples(self, split: str) -> Sequence[Example]:
        """Every image that something was said of, in the order of the rows; then those kept."""
        if split not in self._examples:
            return self.dataset.examples(split)  # which says that there is no such split
        return [*self._examples[split], *self.kept_examples(split)]

    def skipped(self, split: str) -> Sequence[tuple[str, str]]:
        """Rows that were passed over, each with the reason."""
        return self._skipped.get(split, ())

    def own_image(self, example: Example) -> Image.Image:
        """Read one image; an error names the rows that are lost with it."""
        judged = self._judged(example)
        try:
            return rgb_image(self.dataset, judged.example)
        except DataError as error:
            rows = ", ".join(j.key.rpartition("#")[2] for j in judged.judgements)
            reason = getattr(error, "reason", str(error))
            raise UnreadableImage(example.key, f"{reason} (rows {rows})") from None

    def judgements(self, example: Example) -> Sequence[Judgement]:
        """All that was said of an image."""
        return self._judged(example).judgements

    def every_judgement(self, split: str) -> Iterator[Judgement]:
        """All that was said in a split."""
        for example in self._examples[split]:
            yield from self._judged(example).judgements

    @functools.cached_property
    def texts(self) -> tuple[str, ...]:
        """All texts of all splits, each once, in the order in which they come.

        All splits, so that they have the same candidates.
        """
        everything = (j for split in self.splits() for j in self.every_judgement(split))
        return tuple(dict.fromkeys(text for judged in everything for text in judged.texts))

    @functools.cached_property
    def extra(self) -> tuple[str, ...]:
        """Names of all further columns."""
        names = (n for s in self.splits() for j in self.every_judgement(s) for n in j.columns)
        return tuple(dict.fromkeys(names))

    def why_no_texts(self) -> str:
        """The first reasons why rows could not be read, one a line."""
        reasons = [reason for split in self.splits() for reason in self._skipped[split]]
        return "".join(f"\n  {name}: {reason}" for name, reason in reasons[:_SHOWN])

    # --- Parts ----------------------------------------------------------------------------------

    def _read(self, split: str) -> Sequence[Example]:
        firsts: dict[object, Example] = {}
        said: dict[object, list[Judgement]] = {}
        for example in self.dataset.examples(split):
            try:
                judged = judgement(example.key, example.attributes, self._columns)
            except ValueError as error:
                self._skipped[split].append((example.key, str(error)))
                continue
            firsts.setdefault(example.source, example)
            said.setdefault(example.source, []).append(judged)
        return [
            Example(
                key=source if isinstance(source, str) else first.key,
                label=first.label,
                source=_Judged(first, tuple(said[source])),
                group=first.group,
            )
            for source, first in firsts.items()
        ]

    def _judged(self, example: Example) -> _Judged:
        assert isinstance(example.source, _Judged)
        return example.source


def _attributes(dataset: Dataset, split: str) -> set[str]:
    return {name for example in dataset.examples(split) for name in example.attributes}


def _check_columns(dataset: Dataset, columns: Columns, found: set[str]) -> None:
    """A column that is missing by a slip must not pass for one that is empty in every row.

    Raises:
        DataError: one that was named, or without which a row says nothing, is not there; or one is
            not there and another is called nearly so.
    """
    paired = {columns.chosen, columns.rejected} & found
    usual = Columns().names
    for i, (option, name) in enumerate(dataclasses.asdict(columns).items()):
        named, begun = name != usual[i], columns.names[i ^ 1] in found  # the other of its pair
        if name in found or not (named or begun):
            continue
        near = _near(name, found - set(columns.names))
        if named or near or (i >= 2 and not paired):  # text and desirable need each other
            raise DataError(
                f"The dataset {dataset.name!r} has no column {name!r}; it has "
                f"{', '.join(sorted(found))}."
                + (f" Did you mean {near!r}?" if near else "")
                + f" A column of another name is given with {task_option(f'{option}_column=NAME')}."
            )


def _near(name: str, found: set[str]) -> str | None:
    """The column whose name may be a slip or another spelling of `name`."""
    folded = {column.casefold(): column for column in sorted(found)}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.8)
    return folded[near[0]] if near else None


def _no_columns(dataset: Dataset, columns: Columns, found: set[str]) -> str:
    has = f"it has {', '.join(sorted(found))}" if found else "it has no columns"
    left_out = left_out_note(getattr(dataset, "left_out", ()))
    return (
        f"The dataset {dataset.name!r} says nothing of preferences: {has}.{left_out} The task "
        f"takes rows of image, {columns.chosen}, {columns.rejected}, or of image, {columns.text}, "
        f"{columns.desirable}, such as --data my.csv. Columns of other names are given as "
        f"chosen_column, rejected_column, text_column and desirable_column."
    )
