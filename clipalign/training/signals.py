"""Ctrl-C and SIGTERM in the middle of a training: save, say how to go on, end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from clipalign import interrupts
from clipalign.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Stopped(KeyboardInterrupt):
    """A signal on its way out of whatever it met.

    Not an `Exception`: libraries, and our own readers of images, take one for a broken file and go
    on without it.
    """


class StopSignal:
    """While entered, a first signal is remembered during steps and stops everything elsewhere.

    The block then ends with Interrupted. A second signal always stops, so that nobody is held by a
    step that does not end. Outside the main thread, where Python delivers no signals, nothing is
    changed.
    """

    def __init__(self) -> None:
        self.requested = False
        self.within_steps = False
        self._stopped: _Stopped | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._arrived) for s in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        for number, handler in self._before.items():
            # None: one that is not Python's, which Python cannot put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        # libraries written in C make other errors of it
        if self._stopped is not None and error is not None and not isinstance(error, Interrupted):
            raise Interrupted(str(self._stopped)) from None

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """A KeyboardInterrupt that a tracker or a hook raises is a first signal: save, then stop.

        A signal's own goes on its way.
        """
        try:
            yield
        except KeyboardInterrupt as stop:
            if stop is self._stopped:
                raise
            self.requested = True

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if interrupts.waits(number):
            return
        if self.within_steps and not self.requested:
            self.requested = True
            return
        self._stopped = _Stopped(f"Stopped by {signal.Signals(number).name}.")
        raise self._stopped
