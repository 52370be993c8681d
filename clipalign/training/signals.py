"""Ctrl-C and SIGTERM in the middle of a training: save, say how to go on, end."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from clipalign.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """While entered, a first signal is remembered during steps and raises Interrupted elsewhere.

    A second signal always raises, so that nobody is held by a step that does not end. Outside the
    main thread, where Python delivers no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.requested = False
        self.within_steps = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._arrived) for s in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self.within_steps and not self.requested:
            self.requested = True
            return
        raise Interrupted(f"Stopped by {signal.Signals(number).name}.")
