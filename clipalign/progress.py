"""How the core says what it is doing, without knowing who listens.

`clipalign.cli.console.Console` is one such listener; a library user who wants silence gives none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """A count under way."""

    def advance(self, by: int = 1, **figures: float | str) -> None:
        """`by` more are done; `figures` (loss=0.31) are shown beside."""


class Reporter(Protocol):
    """Hears what is being done."""

    def note(self, text: str) -> None:
        """One line of what is being done."""

    def progress(self, label: str, total: int | None = None) -> AbstractContextManager[Bar]:
        """Count through `total` things while the block runs."""
        ...


class Silent:
    """Says nothing."""

    def note(self, text: str) -> None:
        """Drop it."""

    def advance(self, by: int = 1, **figures: float | str) -> None:
        """Drop it."""

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Bar]:
        """A bar that shows nothing."""
        yield self
