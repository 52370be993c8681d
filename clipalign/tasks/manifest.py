"""The manifest of a preference set: what was made of what, and the hashes of its tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipalign.errors import DataError
from clipalign.files import canonical_json, read_regular, sha256_bytes
from clipalign.options import explain
from clipalign.plain_yaml import parse_yaml
from clipalign.tasks.base import Scope

__all__ = [
    "AGAIN",
    "MANIFEST",
    "SCHEMA_VERSION",
    "SPLIT_NAME",
    "Manifest",
    "SplitCounts",
    "read_manifest",
]

SCHEMA_VERSION = 1
MANIFEST = "manifest.yaml"
AGAIN = "Prepare the set again."
_MAX_BYTES = 1 << 24
SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""Names of splits, which name directories."""
_SplitName = Annotated[str, Field(pattern=f"^{SPLIT_NAME.pattern}$")]


class SplitCounts(BaseModel):
    """How many images a split came from, and what became of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    images: int = Field(ge=0, description="Images that went in.")
    rows: int = Field(ge=0, description="Rows that came out.")
    quarantined: int = Field(ge=0, description="Images that could not be used.")


class Manifest(BaseModel):
    """What `manifest.yaml` says."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: int
    task: str
    options: dict[str, Any]
    seed: int
    limit: int | None
    max_side: int | None
    dataset: str
    dataset_options: dict[str, Any]
    dataset_fingerprint: str
    licence: str
    candidates: list[str] = Field(min_length=2)
    scope: Scope = Field("all", description="Which of the candidates an image chooses among.")
    regulariser_candidates: list[str] | None
    shard_rows: int | None = Field(
        None, ge=1, description="Rows a tar shard at most; null for loose files."
    )
    counts: dict[_SplitName, SplitCounts] = Field(min_length=1)
    quarantined: int = Field(ge=0)
    notes: list[str]
    made_with: dict[str, str]
    recipe_sha256: str = Field(description="Of all that decides the set's bytes.")
    files: dict[str, str] = Field(description="sha256 of the tables.")
    content_sha256: str = Field(description="Of everything above, and so of every file.")

    def sealed(self) -> Manifest:
        """With its `content_sha256` set."""
        content = self._tree(exclude={"content_sha256"})
        return self.model_copy(update={"content_sha256": sha256_bytes(canonical_json(content))})

    def same_preferences(self, other: Manifest) -> bool:
        """Whether a training on either takes the same steps, whoever made it and when."""
        decide = ("candidates", "scope", "regulariser_candidates", "files")
        return all(getattr(self, name) == getattr(other, name) for name in decide)

    def dump(self) -> str:
        """As YAML."""
        return yaml.safe_dump(self._tree(), allow_unicode=False, sort_keys=False, width=100)

    def _tree(self, **options: Any) -> dict[str, Any]:
        """As plain values; without what has its default, so that older sets keep their hash."""
        return self.model_dump(mode="json", exclude_defaults=True, **options)


def read_manifest(root: Path) -> Manifest:
    """The manifest of a set, checked against its own hash.

    Raises:
        DataError: there is none, it is damaged, or of another version.
    """
    path = root / MANIFEST
    try:
        content = read_regular(path, _MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        why = f"it has no {MANIFEST}" if root.exists() else "there is no such file or directory"
        raise DataError(
            f"{root} is not a preference set: {why}. `clipalign prepare` makes one."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        tree = parse_yaml(content.decode("utf-8"))
        if not isinstance(tree, dict) or "schema_version" not in tree:
            raise ValueError("it has no schema_version")
    except ValueError as error:
        raise DataError(f"{path} is not the manifest of a preference set: {error}.") from None
    if tree["schema_version"] != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {tree['schema_version']!r}, and this clipalign reads "
            f"{SCHEMA_VERSION}. Update clipalign, or prepare the set again."
        )
    try:
        manifest = Manifest.model_validate(tree)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in explain(error, Manifest))
        raise DataError(f"{path} is damaged:\n{lines}\n{AGAIN}") from None
    if manifest.sealed().content_sha256 != manifest.content_sha256:
        raise DataError(f"{path} was changed after it was written. {AGAIN}")
    for texts in (manifest.candidates, manifest.regulariser_candidates or []):
        if len(set(texts)) < len(texts):
            raise DataError(f"{path} names a candidate text twice. {AGAIN}")
    return manifest
