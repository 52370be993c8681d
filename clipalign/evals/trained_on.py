"""Whether the images that a run is measured on are those it was trained on."""

from __future__ import annotations

import os
from pathlib import Path

from clipalign.datasets.base import Dataset
from clipalign.datasets.locate import load_dataset, place_of
from clipalign.errors import ClipAlignError, DataError
from clipalign.evals.results import SuiteResult
from clipalign.plugins import registry
from clipalign.tasks.manifest import Manifest, read_manifest

__all__ = ["trained_on"]

_MOST = 200_000  # images of a training that are looked through for those of a test
_ADVICE = (
    "the numbers say how well it learnt them, and not what it does with others. Keep some for a "
    "split of their own (folders train/ and test/, or a column split)."
)


def trained_on(run: Path, result: SuiteResult, dataset: Dataset) -> str | None:
    """What a reader must know of a result on images that a run was trained on; else None.

    A folder without splits is one split, `train`, and is measured whole; and a table of judgements
    may be about the images of a table of labels.

    Args:
        run: its directory.
        result: of one split.
        dataset: that the split is of.
    """
    try:
        manifest = read_manifest(run)
    except DataError:  # it lies in a run's place and is none
        return None
    if "train" not in manifest.counts:
        return None
    data = result.dataset
    if data.split == "train" and _same_data(manifest, result):
        return f"The model was trained on these images: {_ADVICE}"
    if manifest.dataset_fingerprint == data.fingerprint:
        return None
    measured = _files(dataset, data.split)
    both = len(measured & _trained_files(manifest)) if measured else 0
    if not both:
        return None
    some = "" if both == len(measured) else f" {both:,} of"
    return f"The model was trained on{some} these images: {_ADVICE}"


def _same_data(manifest: Manifest, result: SuiteResult) -> bool:
    data = result.dataset
    # a task may put other images beside the dataset's own, which changes the fingerprint
    named = data.name in registry("datasets").names()
    same_name = (manifest.dataset, manifest.dataset_options) == (data.name, data.options)
    return manifest.dataset_fingerprint == data.fingerprint or (named and same_name)


def _trained_files(manifest: Manifest) -> set[str]:
    """Files that the rows were made of, where that is quickly said."""
    if place_of(manifest.dataset, manifest.dataset_options) is None:
        return set()
    if manifest.counts["train"].images > _MOST:
        return set()
    try:
        return _files(load_dataset(manifest.dataset, manifest.dataset_options), "train")
    except ClipAlignError:  # it was moved, or needs a package that is not here
        return set()


def _files(dataset: Dataset, split: str) -> set[str]:
    """The files of a split, of a dataset that has each image in one of its own."""
    root = getattr(dataset, "root", None)
    if not isinstance(root, str | Path):
        return set()
    sources = (example.source for example in dataset.examples(split))
    paths = (os.path.join(root, source) for source in sources if isinstance(source, str))
    return {os.path.realpath(path) for path in paths}
