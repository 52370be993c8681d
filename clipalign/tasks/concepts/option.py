"""The option that names a concept, for the tasks and suites that take one."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from clipalign.errors import ConfigError
from clipalign.tasks.concepts.file import load_concept

__all__ = ["ConceptSpec"]

_ADVICE = "`clipalign config cp concept/gender mine.yaml` copies the one that ships, to edit."


def _loads(spec: str) -> str:
    try:
        load_concept(spec)
    except ConfigError as error:
        raise ValueError(f"{error}\n{_ADVICE}".replace("\n", "\n  ")) from None
    return spec


ConceptSpec = Annotated[str, AfterValidator(_loads)]
"""A concept file, or the name of one that ships, which can be read."""
