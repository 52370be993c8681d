"""What is known of a dataset by name: read from catalogue.yaml and checked."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from clipalign.datasets.options import Template

__all__ = ["CATALOGUE", "Description", "Part", "catalogue"]

CATALOGUE = Path(__file__).with_name("catalogue.yaml")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Model):
    """Where the rows of a split come from, and what they say."""

    lines: str | None = Field(None, description="A text file, one image a line.")
    table: str | None = Field(None, description="A .csv or .tsv; the last of those that match.")
    json_: str | None = Field(None, alias="json", description="A JSON object, one key an image.")
    files: str | None = Field(None, description="Folders to walk, as a pattern.")
    mat: Literal["cars", "flowers"] | None = Field(None, description="MATLAB files of the authors.")
    huggingface: bool = Field(False, description="The dataset `huggingface` reads it.")
    part: str | None = Field(None, description="Name of a list within a MATLAB file.")
    pattern: re.Pattern[str] | None = Field(None, description="Of a line, or of a file's path.")
    columns: dict[str, str] = Field(default_factory=dict, description="Field → column.")
    where: dict[str, str] = Field(default_factory=dict, description="Cells that a row must have.")
    image: str | None = Field(None, description="Path of the image, with fields and columns in {}.")

    @property
    def index(self) -> str | None:
        """The file that lists the images, as a pattern; None where folders are walked."""
        return self.lines or self.table or self.json_


class Description(_Model):
    """One entry of the catalogue."""

    name: str
    title: str
    about: str
    source: str
    licence: str
    layout: str
    note: str | None = None
    torchvision: str | None = None
    templates: tuple[Template, ...] = Field(min_length=1)
    folders: tuple[str, ...] = ()
    wordnet: bool = Field(False, description="Labels are WordNet ids of ImageNet.")
    share: dict[str, int] = Field(default_factory=dict, description="Per cent of each split.")
    splits: dict[str, Part] = Field(min_length=1)
    values: dict[str, dict[str, str]] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)

    @field_validator("share")
    @classmethod
    def _whole(cls, share: dict[str, int]) -> dict[str, int]:
        if share and sum(share.values()) != 100:
            raise ValueError("the shares must add up to 100")
        return share

    @model_validator(mode="after")
    def _one_way(self) -> Description:
        if bool(self.share) != (list(self.splits) == ["all"]):
            raise ValueError("shares go with one list of all images")
        return self

    @property
    def split_names(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.share or self.splits)

    @property
    def labelled(self) -> bool:
        """Whether the images have classes."""
        return any(
            part.mat
            or "label" in {*part.columns, *(part.pattern.groupindex if part.pattern else ())}
            for part in self.splits.values()
        )


@functools.cache
def catalogue() -> Mapping[str, Description]:
    """Every description by name, in the file's order."""
    # plain_yaml refuses aliases, which this file of our own uses to say a thing once
    tree = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))
    return {name: Description(name=name, **entry) for name, entry in tree.items()}
