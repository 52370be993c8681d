"""Task `preferences`: your own judgements of your own images, in any words.

A table (CSV, TSV, JSON Lines, Parquet) of `image, chosen, rejected`, or of `image, text,
desirable`; an image may be judged many times. There is no list of classes: an image chooses among
its row's own two texts, those of its batch, or a list that is given. Columns `reward_chosen,
reward_rejected` may say what the two are worth, in numbers, where a text that its row does
not judge is worth 0.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from clipalign.dataset_specs import DatasetSpec
from clipalign.datasets.base import Dataset, Example
from clipalign.datasets.locate import load_dataset
from clipalign.errors import DataError
from clipalign.files import read_regular, sha256_bytes
from clipalign.option_flags import task_option
from clipalign.tasks.base import Candidates, PreparedRow, Scope
from clipalign.tasks.judgements import reading
from clipalign.tasks.judgements.reading import Columns
from clipalign.tasks.judgements.source import JudgedImages

__all__ = ["Preferences"]


class Preferences:
    """Preferences as they were given, one row a judgement.

    The regulariser holds the images still that are judged, or those of another dataset (`keep`).
    """

    name = "preferences"

    class Options(BaseModel):
        """Options of the task."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        candidates: Scope | None = Field(
            None,
            description="What an image chooses among in training: the texts of the batch, of its "
            "row alone (pairs only), or all; null for batch, or all where texts are given.",
        )
        texts: tuple[str, ...] | Path | None = Field(
            None, description="Further texts to choose among: a list, or a file with one a line."
        )
        keep: DatasetSpec | None = Field(
            None,
            description="Dataset that the regulariser holds still: a name, folder or table; null "
            "for the images that are judged.",
        )
        keep_options: dict[str, Any] = Field(
            default_factory=dict, description="Options of that dataset."
        )
        chosen_column: str = Field("chosen", description="Column of the preferred text.")
        rejected_column: str = Field("rejected", description="Column of the dispreferred text.")
        text_column: str = Field("text", description="Column of a text that is judged alone.")
        desirable_column: str = Field(
            "desirable", description="Column that says whether that text suits: true or false."
        )

        @field_validator("texts")
        @classmethod
        def _listed(cls, texts: tuple[str, ...] | Path | None) -> tuple[str, ...] | None:
            lines: Sequence[str] = texts if isinstance(texts, tuple) else ()
            if isinstance(texts, Path):
                try:
                    lines = read_regular(texts).decode("utf-8").splitlines()
                except (OSError, UnicodeDecodeError) as error:
                    raise ValueError(f"{texts} cannot be read as text: {error}") from None
            found = tuple(dict.fromkeys(text for line in lines if (text := reading.one_line(line))))
            if texts is not None and not found:
                raise ValueError("there is no text in it")
            return found or None

        @model_validator(mode="after")
        def _agree(self) -> Preferences.Options:
            if self.texts and self.candidates not in (None, "all"):
                raise ValueError(
                    f"texts are given, and candidates={self.candidates} would leave them out"
                )
            return self

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)

    @property
    def fingerprint(self) -> str:
        """sha256 of the code that reads the rows."""
        return sha256_bytes(Path(reading.__file__).read_bytes())

    def source(self, dataset: Dataset) -> JudgedImages:
        """The images with what was said of them, and those that are held still beside them.

        Raises:
            UsageError: there is no dataset of the name in the option `keep`.
            DataError: the dataset has no columns of preferences.
        """
        options = self.options
        columns = Columns(
            options.chosen_column,
            options.rejected_column,
            options.text_column,
            options.desirable_column,
        )
        keep = None if options.keep is None else load_dataset(options.keep, options.keep_options)
        return JudgedImages(dataset, columns, keep)

    def candidates(self, dataset: Dataset, split: str) -> Candidates:
        """All texts of all splits, and those that are given.

        Raises:
            DataError: there are fewer than two, or a row without a pair is to choose between two.
        """
        images = self._source(dataset)
        given = cast(tuple[str, ...], self.options.texts or ())  # the file has been read
        texts = tuple(dict.fromkeys([*images.texts, *given]))
        if not images.texts:
            raise DataError(
                f"No row of the dataset {images.name!r} can be used:{images.why_no_texts()}"
            )
        if len(texts) < 2:
            raise DataError(
                f"All rows of the dataset {images.name!r} speak of one text, {texts[0]!r}, and a "
                "preference needs another to choose among. Give some with "
                f"{task_option('texts=[TEXT,TEXT]')}."
            )
        scope = self.options.candidates or ("all" if given else "batch")
        if scope == "row" and (reason := self.lacking(dataset, split, ("chosen", "rejected"))):
            raise DataError(
                f"With candidates=row each row chooses between its own two texts, and {reason}. "
                f"Take the batch's with {task_option('candidates=batch')}; or give a list, as "
                "texts=[TEXT,TEXT]."
            )
        held = tuple(images.kept_prompts)
        return Candidates(texts, held if len(held) > 1 else None, scope=scope)

    def lacking(self, dataset: Dataset, split: str, needs: Sequence[str]) -> str | None:
        """Why the rows of a split cannot feed an objective that needs these texts; None if not."""
        for judged in self._source(dataset).every_judgement(split):
            if lacking := [need for need in needs if getattr(judged, need) is None]:
                return f"{judged.key} has no {' and no '.join(lacking)} text"
        return None

    def rows(
        self,
        example: Example,
        image: Image.Image,
        dataset: Dataset,
        split: str,
        rng: random.Random,
    ) -> Iterator[PreparedRow]:
        """One row a judgement, all with the same image; or an image that is held still."""
        images = self._source(dataset)
        if images.is_kept(example):
            yield PreparedRow(image, None, None, None, dict.fromkeys(images.extra, ""))
            return
        clean = image if images.keep is None else None
        for judged in images.judgements(example):
            columns = {name: judged.columns.get(name, "") for name in images.extra}
            yield PreparedRow(image, clean, judged.chosen, judged.rejected, columns)

    def _source(self, dataset: Dataset) -> JudgedImages:
        return dataset if isinstance(dataset, JudgedImages) else self.source(dataset)
