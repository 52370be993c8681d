"""The shape of a transform: a fitter that looks, and a small frozen object that it gives.

A fitter is registered like anything else (kind "transforms") and built by name with its options,
which are a pydantic model `Options` within the class:

    class Erase:
        \"\"\"Takes a direction out of the text features.\"\"\"

        frozen = Erasure

        class Options(TransformOptions):
            rank: int = Field(1, ge=1, description="Directions to take out.")

        def __init__(self, **options: Any) -> None:
            self.options = self.Options(**options)

        def fit(self, context: FitContext) -> Erasure:
            ...
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clipalign.errors import ModelError
from clipalign.files import atomic_write_bytes, parse_json
from clipalign.models.loaded import LoadedModel
from clipalign.plugins import registry
from clipalign.transforms.context import FitContext

__all__ = ["FittedTransform", "Fitter", "Transform", "TransformOptions", "load_transform"]

_KEY = "transform"


class TransformOptions(BaseModel):
    """Base of a fitter's options: typed, documented fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Transform(ABC):
    """An edit of a model, fitted and frozen.

    Attributes:
        name: as its fitter is registered.
        starts_from: which model of a run `apply` is for: the "reference" that it started from, or
            the "trained" one.
    """

    name: ClassVar[str]
    starts_from: ClassVar[Literal["reference", "trained"]] = "trained"

    @abstractmethod
    def check(self, model: LoadedModel) -> None:
        """Refuse a model that it was not fitted to.

        Raises:
            ModelError: naming both.
        """

    @abstractmethod
    def apply(self, model: LoadedModel) -> LoadedModel:
        """The edited model; `model` is left as it is.

        Raises:
            ModelError: it was not fitted to this model, or the model cannot take it.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What it is, in JSON-able values; with `tensors`, all that `rebuild` needs."""

    @property
    def label(self) -> str:
        """A few letters that tell it from others of its kind, for the names of directories."""
        return self.name

    def statement(self) -> str:
        """What fitting found, in sentences; empty where nothing was to be found."""
        return ""

    def unfolded(self, path: Path) -> str:
        """Lines of Python that apply what `save` wrote to features, where a model takes no fold.

        Empty where there is no way to apply it to features.
        """
        return ""

    def tensors(self) -> dict[str, Tensor]:
        """The numbers that it holds, by name."""
        return {}

    @classmethod
    @abstractmethod
    def rebuild(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The transform of a description and its tensors."""

    def save(self, path: Path) -> None:
        """Write it as one safetensors file, which `load_transform` reads.

        Raises:
            StorageError: it cannot be written.
        """
        about = {"name": self.name, "description": self.describe()}
        # one entry: safetensors writes several in an order that differs from run to run
        metadata = {_KEY: json.dumps(about, sort_keys=True)}
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.tensors().items()}
        atomic_write_bytes(path, save(tensors, metadata))


class FittedTransform(Transform):
    """A transform that belongs to the weights that it was fitted to, and refuses any others.

    Attributes:
        what: was fitted, in a word.
        model_sha256: of those weights.
    """

    what: ClassVar[str]
    model_sha256: str

    def check(self, model: LoadedModel) -> None:
        """Refuse a model that it was not fitted to.

        Raises:
            ModelError: naming both.
        """
        if model.sha256 != self.model_sha256:
            raise ModelError(
                f"The {self.what} was fitted to the model {self.model_sha256[:12]}…, and "
                f"{model.spec} is {model.sha256[:12]}…. Fit it again."
            )


class Fitter(Protocol):
    """Fits a transform. Built by name: `component("transforms", "power", t=0.4)`.

    Attributes:
        frozen: what `fit` gives.
        options: as resolved.
    """

    frozen: ClassVar[type[Transform]]

    @property
    def options(self) -> TransformOptions: ...

    def fit(self, context: FitContext) -> Transform:
        """Look at a run and fit.

        Raises:
            UsageError, DataError, ModelError: the run, its data or its model cannot serve.
        """
        ...


def load_transform(path: Path) -> Transform:
    """Read what `Transform.save` wrote.

    Raises:
        ModelError: it is not a saved transform.
        UsageError: nothing is registered under its name; its package is not installed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = parse_json((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        name, description = about["name"], about["description"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is not a saved transform: {error}") from None
    frozen: type[Transform] = registry("transforms").load(name).frozen
    try:
        return frozen.rebuild(description, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is a damaged transform {name!r}: {error!r}") from None
