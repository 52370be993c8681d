"""From a concept task and a dataset to a probe and its features.

The split is `validation`, or `train` where there is none: nothing is ever fitted on a test split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from clipalign.datasets.base import Dataset, cache_key
from clipalign.errors import DataError, UsageError
from clipalign.evals.features import ImageSet, encode_images
from clipalign.models.feature_cache import text_features
from clipalign.models.loaded import LoadedModel
from clipalign.progress import Reporter
from clipalign.tasks.concept import ConceptTask
from clipalign.transforms.probe import ConceptProbe, Floats, ProbeFeatures

__all__ = ["Labelled", "encode", "fitting_split", "label"]

_SPLITS = ("validation", "train")


@dataclass(frozen=True)
class Labelled:
    """A probe, and the images that its labels are of, not yet read.

    Attributes:
        probe: of N images.
        images: the N images, one view each.
        dataset, split: where they come from.
    """

    probe: ConceptProbe
    images: ImageSet
    dataset: str
    split: str


def label(task: Any, dataset: Dataset, reporter: Reporter, split: str | None = None) -> Labelled:
    """Texts of a concept task, and the labels of a dataset's validation images.

    Images whose activity is not known are left out where others say theirs.

    Args:
        task: a `ConceptTask`.
        dataset: with the concept's columns.
        reporter: hears what is left out or out of balance.
        split: to look at; None for the one that something may be chosen on.

    Raises:
        UsageError: the task has no concept of two values.
        DataError: the dataset has no split to fit on, or it does not show the concept.
    """
    if not isinstance(task, ConceptTask):
        raise UsageError(
            f"The task {task.name!r} has no concept whose values could be told apart. Name a task "
            "that has one, gender or concept; t can also be given as a number."
        )
    concept = task.concept
    if len(concept.values) != 2:
        raise UsageError(
            f"The concept {concept.name!r} has {len(concept.values)} values "
            f"({', '.join(concept.values)}); a transform is fitted to two."
        )
    split = split or fitting_split(dataset, reporter)
    source = task.source(dataset)
    for note in source.check(split, needs_activity=task.options.activity is not None):
        reporter.note(f"Warning: {note}")
    shown, kept = [], []
    for example in source.examples(split):
        if not source.is_kept(example):
            try:
                shown.append(source.read(example))
            except DataError:
                continue
            kept.append(example)
    with_activity = any(reading.activity for reading in shown)
    pairs = [
        (example, reading)
        for example, reading in zip(kept, shown, strict=True)
        if reading.activity or not with_activity
    ]
    if len(pairs) < len(kept):
        left = len(kept) - len(pairs)
        reporter.note(f"Warning: {left} images without an activity are left out.")
    activities = {
        (r.activity, r.noun): None for r in source.readings if r.activity or not with_activity
    }
    number = {activity: i for i, activity in enumerate(activities)}
    values = tuple(concept.values)
    probe = ConceptProbe(
        name=concept.name,
        values=(values[0], values[1]),
        value_prompts=tuple(
            (concept.caption(values[0], *a), concept.caption(values[1], *a)) for a in activities
        ),
        neutral_prompts=tuple(text for a in activities if (text := concept.neutral(*a))),
        spurious_prompts=tuple(concept.caption(value, "", False) for value in values),
        value=tuple(values.index(reading.value) for _, reading in pairs),
        activity=tuple(number[reading.activity, reading.noun] for _, reading in pairs),
        groups=tuple(example.group or example.key for example, _ in pairs),
    )
    if probe.balance:
        reporter.note(f"Warning: {probe.balance}")
    names = [example.key for example, _ in pairs]
    identity = {"dataset": [dataset.name, cache_key(dataset), split], "examples": names}
    images = ImageSet(identity, names, 1, lambda i: [source.image(pairs[i][0])])
    return Labelled(probe, images, dataset.name, split)


def fitting_split(dataset: Dataset, reporter: Reporter) -> str:
    """The split that may be looked at while something is chosen: validation, or else train.

    Raises:
        DataError: there is neither.
    """
    split = next((name for name in _SPLITS if name in dataset.splits()), None)
    if split is None:
        raise DataError(
            f"The dataset {dataset.name!r} has neither a validation nor a train split, and nothing "
            f"is fitted on others (it has {', '.join(dataset.splits())})."
        )
    if split != "validation":
        reporter.note(f"The dataset {dataset.name!r} has no validation split: {split} is used.")
    return split


def encode(labelled: Labelled, model: LoadedModel, reporter: Reporter) -> ProbeFeatures:
    """One model's features of a probe, from the cache where it can; unreadable images are left out.

    Raises:
        DataError: no image of one value can be read, or the captions of a pair encode the same.
    """
    encoded = encode_images([model], labelled.images, reporter)
    probe = labelled.probe
    readable: Sequence[int] = [
        i for i in range(len(labelled.images.names)) if i not in encoded.unreadable
    ]
    if encoded.unreadable:
        first, why = next(iter(encoded.unreadable.items()))
        reporter.note(
            f"Warning: {len(encoded.unreadable)} images cannot be read and are left out. "
            f"The first, {labelled.images.names[first]}: {why}"
        )
    texts = [text for pair in probe.value_prompts for text in pair]
    return ProbeFeatures(
        probe.only(readable),
        _float64(encoded.features[0][readable, 0]),
        _float64(text_features(model, texts)).reshape(len(probe.value_prompts), 2, -1),
        _float64(text_features(model, probe.neutral_prompts)),
        float(model.logit_scale),
    )


def _float64(features: Tensor) -> Floats:
    return np.asarray(features.cpu().double().numpy())
