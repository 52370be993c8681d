"""A search as a user sees it: which images of a gallery a text brings up, in several models.

The paper's Fig. 4 (arXiv 2411.08923) is such a search for "an image of a police" in the model as
it was, reversed, and at t*.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipalign.arguments import check_whole, plain_arguments
from clipalign.datasets.base import Dataset, Example
from clipalign.datasets.locate import in_memory, load_dataset
from clipalign.errors import UsageError, near_matches
from clipalign.evals.base import EvalContext
from clipalign.evals.evaluate import default_splits, loaded
from clipalign.evals.examples import image_set, readable
from clipalign.evals.fairness import ranking
from clipalign.models.loaded import LoadedModel
from clipalign.progress import Reporter, heard_by

__all__ = ["Found", "Retrieval", "retrieve"]


@dataclass(frozen=True)
class Found:
    """What one model brings up.

    Attributes:
        model: its spec, as given.
        examples: k, best first.
        similarity: [k] cosine to the query.
        values: [k] what the counted column says of each.
    """

    model: str
    examples: Sequence[Example]
    similarity: Sequence[float]
    values: Sequence[str]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many of each value, the most frequent first."""
        return dict(Counter(self.values).most_common())


@dataclass(frozen=True)
class Retrieval:
    """One search in several models.

    Attributes:
        query: the text.
        dataset: source of the gallery.
        split: that is the gallery.
        gallery: images in it.
        column: that is counted.
        values: all that it says in the gallery, sorted, with their numbers of images.
        found: one a model, in the order given.
    """

    query: str
    dataset: Dataset
    split: str
    gallery: int
    column: str
    values: Mapping[str, int]
    found: Sequence[Found]

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "query": self.query,
            "dataset": self.dataset.name,
            "split": self.split,
            "gallery": self.gallery,
            "column": self.column,
            "values": dict(self.values),
            "found": [
                {
                    "model": f.model,
                    "counts": dict(f.counts),
                    "images": [
                        {"key": e.key, "label": e.label, "value": v, "similarity": s}
                        for e, v, s in zip(f.examples, f.values, f.similarity, strict=True)
                    ],
                }
                for f in self.found
            ],
        }


@plain_arguments
def retrieve(
    query: str,
    models: str | os.PathLike[str] | LoadedModel | Sequence[str | os.PathLike[str] | LoadedModel],
    *,
    dataset: str | Path | Dataset = "emoji-people",
    dataset_options: Mapping[str, Any] | None = None,
    split: str | None = None,
    k: int = 10,
    column: str | None = None,
    device: str | None = None,
    reporter: Reporter | bool | None = None,
) -> Retrieval:
    """Search a gallery for a text, with each of several models.

        retrieve("a photo of a police officer.", ["emoji-tiny", "runs/gender", "models/neutral"])

    Args:
        query: the text.
        models: model specs or loaded models, or one.
        dataset: name, folder or table of the gallery, or a dataset.
        dataset_options: of the dataset.
        split: that is the gallery; None for its first test split, or what comes nearest.
        k: images to bring up; at most all of them.
        column: attribute to count among them; None for gender where images have it, else the class.
        device: "cpu", "cuda", …; None for a GPU where there is one.
        reporter: hears what is being done; True prints it in plain lines on standard error.

    Raises:
        UsageError: an empty query, no model, no image to bring up, or an unknown split or column.
        DataError: no image can be read.
        ModelError: a model cannot be used.
    """
    say = heard_by(reporter)
    if not isinstance(query, str):
        raise UsageError(f"The query is one text, and not a {type(query).__name__}: {query!r:.60}.")
    if not query.strip():
        raise UsageError("The query is empty: say what to search for.")
    check_whole("k", k, 1)
    if isinstance(models, str | os.PathLike | LoadedModel):
        models = [models]
    if not models:
        raise UsageError("No model to search with.")
    if isinstance(dataset, str | Path):
        data = load_dataset(dataset, dataset_options or {})
    else:
        data = in_memory(dataset)
    where = split or default_splits(data)[0]
    if where not in data.splits():
        raise UsageError(f"{data.name} has no split {where!r}.{near_matches(where, data.splits())}")
    examples = data.examples(where)
    counted = _column(examples, column, data.name)
    found, n, values = [], 0, Counter[str]()
    for spec in models:
        model = loaded(spec, device, say)
        context = EvalContext(model, None, data, where, reporter=say)
        encoded = context.encode_images(image_set(data, where, examples))
        rows, _ = readable(examples, encoded)
        text = context.encode_texts([query])[0][0]
        scores = (encoded.features[0][rows, 0] @ text).numpy()
        top = ranking(scores)[:k]
        shown = [examples[rows[i]] for i in top]
        found.append(
            Found(
                spec.name if isinstance(spec, LoadedModel) else os.fspath(spec),
                shown,
                [float(scores[i]) for i in top],
                [_value(example, counted) for example in shown],
            )
        )
        n, values = len(rows), Counter(_value(examples[i], counted) for i in np.asarray(rows))
    return Retrieval(query, data, where, n, counted, dict(sorted(values.items())), found)


def _column(examples: Sequence[Example], column: str | None, dataset: str) -> str:
    known = dict.fromkeys(name for example in examples for name in example.attributes)
    if column is None:
        return "gender" if "gender" in known else "label"
    if column not in known and column != "label":
        raise UsageError(
            f"The images of {dataset} have no column {column!r}."
            + near_matches(column, [*known, "label"])
        )
    return column


def _value(example: Example, column: str) -> str:
    said = example.label if column == "label" else example.attributes.get(column)
    return str(said) if said not in (None, "") else "unknown"
