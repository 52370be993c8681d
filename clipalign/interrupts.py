"""Ctrl-C and SIGTERM: how they arrive where no training attends to them, and what they never cut.

An import of a library in C++ is such a thing: pybind11 ends the process (SIGABRT) where an
exception comes out of the Python that it calls while it sets itself up.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

heard = False
"""Whether one arrived. Libraries written in C make other errors of the exception that it raises."""

said = False
"""Whether the command has said how it ended: nothing is to be added."""

_blocks = 0  # that are not to be cut, one within another
_waiting: int | None = None  # the signal that arrived in them
_last: int = signal.SIGINT  # to arrive
_AGAIN = 0.02  # seconds, after which the object is gone


def attend() -> None:
    """Raise KeyboardInterrupt for both, and remember; what was ignored stays ignored.

    Where nothing can be raised, as while an object goes, Python would print the exception and go
    on: there the signal comes again.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _arrived)
    usual = sys.unraisablehook

    def lost(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            threading.Timer(_AGAIN, os.kill, (os.getpid(), _last)).start()
        else:
            usual(unraisable)

    sys.unraisablehook = lost


@contextmanager
def postponed() -> Iterator[None]:
    """Until the end of the block a first signal waits; a second one is not kept waiting."""
    global _blocks, _waiting
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1
        if _waiting is not None and not _blocks:
            number, _waiting = _waiting, None
            signal.raise_signal(number)


def waits(number: int) -> bool:
    """For a handler: whether this signal is to be passed over, as it comes again after a block."""
    global _waiting, _last
    _last = number
    if not _blocks or _waiting is not None:
        return False
    _waiting = number
    return True


def _arrived(number: int, frame: FrameType | None) -> None:
    global heard
    if waits(number):
        return
    heard = True
    raise KeyboardInterrupt
