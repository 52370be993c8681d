"""What a suite is, and what it is given.

A suite measures one model on one split of a dataset, against a reference where there is one. It is
registered like anything else (kind "suites") and built by name with its options, which are a
pydantic model `Options` within the class:

    class Blur:
        \"\"\"Accuracy on blurred images.\"\"\"

        name, version, dataset = "blur", 1, "emoji"

        class Options(SuiteOptions):
            radius: float = Field(2.0, gt=0, description="Of the blur, in pixels.")

        def __init__(self, **options: Any) -> None:
            self.options = self.Options(**options)

        def run(self, context: EvalContext) -> Outcome:
            ...
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from clipalign.datasets.base import Dataset
from clipalign.errors import DataError
from clipalign.evals.features import Encoded, ImageSet, encode_images
from clipalign.evals.results import DatasetIdentity, ModelIdentity, SuiteResult
from clipalign.models.feature_cache import text_features
from clipalign.models.linear_map import LinearMap
from clipalign.models.loaded import LoadedModel
from clipalign.progress import Reporter, Silent

__all__ = ["EvalContext", "Outcome", "Suite", "SuiteOptions"]

Outcome: TypeAlias = tuple[SuiteResult, Iterable[Mapping[str, Any]]]
"""A result, and its rows: one JSON object an image, in a stable order."""


class SuiteOptions(BaseModel):
    """Base of a suite's options: typed, documented fields, echoed in every result."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Suite(Protocol):
    """An evaluation. Built by name: `component("suites", "typographic", styles=["note"])`.

    Attributes:
        name: as registered.
        version: raised whenever equal options would give other numbers.
        dataset: name of the dataset to use where none is given.
        splits: those of it to evaluate where none is given; a suite without this attribute is
            evaluated on the tests.
        options: as resolved.
    """

    name: str
    version: int
    dataset: str

    @property
    def options(self) -> SuiteOptions: ...

    def run(self, context: EvalContext) -> Outcome:
        """Measure.

        Raises:
            DataError: the split cannot serve this suite.
        """
        ...


@dataclass(frozen=True)
class EvalContext:
    """What a suite measures, and how.

    Attributes:
        model: the model under test.
        reference: the model it stands against, or None.
        dataset: source of the images.
        split: of the dataset.
        seed: of everything random, resampling included.
        batch_size: images that go through a tower at once; None for what suits the device.
        use_cache: whether features are read from the cache and kept there.
        reporter: hears what is being done.
        dataset_options: that the dataset was built with, so that a report finds the images again.
        head: W, where the model is the reference with this map on its features: what is encoded by
            the reference is then encoded for both.
    """

    model: LoadedModel
    reference: LoadedModel | None
    dataset: Dataset
    split: str
    seed: int = 0
    batch_size: int | None = None
    use_cache: bool = True
    reporter: Reporter = field(default_factory=Silent)
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    head: LinearMap | None = None

    @property
    def models(self) -> Sequence[LoadedModel]:
        """The model, and then the reference where there is one."""
        return [self.model] if self.reference is None else [self.model, self.reference]

    def encode_images(self, images: ImageSet) -> Encoded:
        """Features of an image set for each of `models`. See `clipalign.evals.features`."""
        encoded = encode_images(
            self._encoders,
            images,
            self.reporter,
            batch_size=self.batch_size,
            use_cache=self.use_cache,
        )
        return Encoded(self._of_models(encoded.features), encoded.unreadable)

    def encode_texts(self, texts: Sequence[str]) -> list[Tensor]:
        """T of the candidate texts, [C, d] on the CPU, for each of `models`.

        Raises:
            ModelError: a text is too long for a text tower.
        """
        return self._of_models(
            [text_features(m, texts, use_cache=self.use_cache).cpu() for m in self._encoders]
        )

    def encode_classes(self, template: str, names: Sequence[str]) -> list[Tensor]:
        """T of a prompt for each class name, [C, d] on the CPU, for each of `models`.

        A model's own `class_prefix` goes before the names; models without one share the texts.

        Raises:
            DataError: the template has no place for a name: all prompts would be one.
            ModelError: a prompt is too long for a text tower.
        """
        if "{}" not in template:
            raise DataError(
                f"The template {template!r} has no {{}} where the name of a class goes, such as "
                "'a photo of a {}.'."
            )
        features = []
        for model in self._encoders:
            prefix = getattr(model, "class_prefix", "")
            texts = [template.format(f"{prefix}{name}") for name in names]
            features.append(text_features(model, texts, use_cache=self.use_cache).cpu())
        return self._of_models(features)

    @property
    def _encoders(self) -> Sequence[LoadedModel]:
        """Those of `models` that have to encode."""
        return self.models if self.head is None else self.models[1:]

    def _of_models(self, encoded: list[Tensor]) -> list[Tensor]:
        """The features of `models`, from those of `_encoders`."""
        return encoded if self.head is None else [self.head(encoded[0]), *encoded]

    def result(self, suite: Suite, n: int, **fields: Any) -> SuiteResult:
        """A result that says which model, reference, data, options and seed it is of.

        Args:
            suite: that measured.
            n: images scored.
            **fields: the rest of `SuiteResult`: metrics, comparisons, templates, warnings, ….
        """
        return SuiteResult(
            suite=suite.name,
            suite_version=suite.version,
            model=_identity(self.model),
            against=None if self.reference is None else _identity(self.reference),
            dataset=DatasetIdentity(
                name=self.dataset.name,
                split=self.split,
                fingerprint=self.dataset.fingerprint,
                licence=self.dataset.licence,
                n=n,
                options=json.loads(json.dumps(self.dataset_options, default=str)),
            ),
            seed=self.seed,
            **{"options": suite.options.model_dump(mode="json"), **fields},
        )


def _identity(model: LoadedModel) -> ModelIdentity:
    return ModelIdentity(spec=str(model.spec), sha256=model.sha256, name=model.name)
