"""The images behind a result, found again and made small enough to lie inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from clipalign.datasets.base import Dataset
from clipalign.datasets.locate import locate_dataset
from clipalign.errors import ClipAlignError, DataError
from clipalign.evals.results import SuiteResult
from clipalign.options import component
from clipalign.reports.sources import Source
from clipalign.tasks.manifest import read_manifest

__all__ = ["Images", "thumbnail"]


@dataclass(frozen=True)
class Images:
    """Where the images of results may be.

    Attributes:
        dataset: name, folder or table that a user says they are in; None where none is said.
        dataset_options: of it.
    """

    dataset: str | Path | None = None
    dataset_options: Mapping[str, Any] = field(default_factory=dict)

    def of(self, source: Source, result: SuiteResult) -> Dataset:
        """The dataset that a result was measured on.

        It is the same if its fingerprint is: nothing else is ever shown.

        Raises:
            DataError: it is not found.
        """
        tried = []
        for name, options in self._candidates(source, result):
            try:
                dataset: Dataset = component("datasets", name, **options)
            except (ClipAlignError, OSError) as error:
                tried.append(" ".join(str(error).split()))
                continue
            if dataset.fingerprint == result.dataset.fingerprint:
                return dataset
            tried.append(f"{name} {dict(options) or ''} holds other images".replace("  ", " "))
        raise DataError(
            f"The images of {result.dataset.name}, split {result.dataset.split}, are not found "
            f"({'; '.join(dict.fromkeys(tried))}). Say where they are with --dataset."
        )

    def _candidates(
        self, source: Source, result: SuiteResult
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if self.dataset is not None:
            yield locate_dataset(self.dataset, self.dataset_options)
            return
        yield result.dataset.name, result.dataset.options
        config = source.config
        if config.get("data"):
            made = read_manifest(Path(config["data"]))
            yield locate_dataset(made.dataset, made.dataset_options)
        elif config.get("dataset"):
            yield locate_dataset(config["dataset"], config.get("dataset_options") or {})


def thumbnail(image: Image.Image, side: int) -> str:
    """The image within `side` × `side` pixels as a data URI (WebP); same pixels, same text."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=78, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
