"""Ctrl-C and SIGTERM where no training attends to them."""

from __future__ import annotations

import signal
from types import FrameType

heard = False
"""Whether one arrived. Libraries written in C make other errors of the exception that it raises."""


def attend() -> None:
    """Raise KeyboardInterrupt for both, and remember; what was ignored stays ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _arrived)


def _arrived(number: int, frame: FrameType | None) -> None:
    global heard
    heard = True
    raise KeyboardInterrupt
