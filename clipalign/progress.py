"""How the core says what it is doing, without knowing who listens.

`clipalign.cli.console.Console` is one such listener, `Lines` another, which a library user gets by
`reporter=True`; who wants silence gives none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from clipalign.errors import UsageError
from clipalign.text import printable

__all__ = ["Bar", "Lines", "PlainBar", "Reporter", "Silent", "figure", "heard_by"]


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


class Lines:
    """Prints what is being done in plain lines on standard error, as a script or a notebook may."""

    def note(self, text: str) -> None:
        """Print a line."""
        print(printable(text), file=sys.stderr, flush=True)

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Bar]:
        """A line now and then, and one at the end; see `PlainBar`."""
        bar = PlainBar(label, total)
        yield bar
        bar.finish()


def heard_by(reporter: Any) -> Reporter:
    """Who hears what is being done: `Lines` for True, nobody for None and False.

    Raises:
        UsageError: it cannot listen.
    """
    if reporter is None or isinstance(reporter, bool):
        return Lines() if reporter else Silent()
    if not (hasattr(reporter, "note") and hasattr(reporter, "progress")):
        raise UsageError(
            "reporter is True for plain lines on standard error, or has the methods note and "
            f"progress of clipalign.progress.Reporter; {reporter!r:.60} has not."
        )
    found: Reporter = reporter
    return found


class PlainBar:
    """Progress as plain lines: one every `every` seconds, and one at the end."""

    def __init__(
        self,
        label: str,
        total: int | None,
        *,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] | None = None,
    ) -> None:
        self._label, self._total, self._every, self._clock = label, total, every, clock
        self._write = write or (lambda line: print(printable(line), file=sys.stderr, flush=True))
        self._done, self._printed = 0, -1
        self._figures: dict[str, float | str] = {}
        self._start = self._last = clock()

    def advance(self, by: int = 1, **figures: float | str) -> None:
        """Count `by` more; print a line when the last one is old enough."""
        self._done += by
        self._figures |= figures
        if self._clock() - self._last >= self._every:
            self._line()

    def finish(self) -> None:
        """Print the last line, unless it has just been printed."""
        if self._printed != self._done:
            self._line()

    def _line(self) -> None:
        self._last, self._printed = self._clock(), self._done
        seconds = self._last - self._start
        parts = [f"{self._label} {self._done}"]
        if self._total:
            parts = [f"{parts[0]}/{self._total} ({100 * self._done // self._total} %)"]
        parts += [figure(name, value) for name, value in self._figures.items()]
        if seconds > 0 and self._done:
            parts.append(f"{self._done / seconds:.3g}/s")
            if self._total and self._done < self._total:
                left = seconds * (self._total - self._done) / self._done
                parts.append(f"{_clock_time(left)} left")
        self._write(", ".join(parts))


def figure(name: str, value: float | str) -> str:
    """A figure beside a bar: "loss 0.31"."""
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
