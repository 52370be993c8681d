"""Calls a run's trackers, so that none of them can end the run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipalign.entries import Named, named
from clipalign.errors import ConfigError, Interrupted, UsageError
from clipalign.options import component
from clipalign.plugin_loading import words
from clipalign.plugins import PluginWarning, registry
from clipalign.trackers import Tracker


class Trackers:
    """The trackers of one run, in the order of its configuration.

    One that raises is reported by a `PluginWarning` that names it and hears no more of this run;
    one that raises KeyboardInterrupt stops the training as Ctrl-C does.

    Args:
        entries: as the configuration has them.

    Raises:
        ConfigError: an option is wrong; the message says of which entry.
        PluginError: a tracker's library is not installed.
    """

    def __init__(self, entries: Sequence[Named]) -> None:
        self._listening: list[tuple[str, Tracker]] = []
        for place, item in enumerate(entries):
            name, options = named(item)
            try:
                self._listening.append((name, component("trackers", name, **options)))
            except (UsageError, ConfigError) as error:
                raise type(error)(f"trackers.{place}: {error}") from None

    def start(self, run_dir: Path, config: Mapping[str, Any], step: int) -> None:
        """Training begins or resumes."""
        self._tell("start", run_dir, config, step)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """A line has been written to `metrics.jsonl`."""
        self._tell("log", step, metrics)

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Training ended; None where it can be resumed."""
        self._tell("finish", summary)

    def _tell(self, what: str, *arguments: Any) -> None:
        for listener in list(self._listening):
            name, tracker = listener
            mine = [dict(a) if isinstance(a, Mapping) else a for a in arguments]
            try:
                getattr(tracker, what)(*mine)
            except (Interrupted, KeyboardInterrupt):  # a person's, or a tracker's own wish to stop
                raise
            except BaseException as error:
                self._listening.remove(listener)
                entry = registry("trackers").entry(name)
                warnings.warn(
                    f"The tracker {name!r} of {entry.package} {entry.version} failed in {what} "
                    f"and hears no more of this run: {words(error)}",
                    PluginWarning,
                    stacklevel=2,
                )
