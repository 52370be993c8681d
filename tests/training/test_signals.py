"""A signal ends a block in words; nothing within takes it for an error of its own."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from clipalign.errors import Interrupted
from clipalign.training.signals import StopSignal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_passes_over_every_error_does_not_pass_over_a_signal(number: int) -> None:
    reached = []

    def block() -> None:
        with StopSignal():
            with contextlib.suppress(Exception):  # as for an image that cannot be read
                os.kill(os.getpid(), number)
            reached.append(number)

    with pytest.raises(Interrupted, match=f"Stopped by {signal.Signals(number).name}"):
        block()
    assert not reached


def test_what_a_library_makes_of_a_signal_is_the_signal() -> None:
    def block() -> None:
        with StopSignal():
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                raise ValueError("could not determine the shape") from None

    with pytest.raises(Interrupted, match="Stopped by SIGINT"):
        block()


def test_within_steps_the_first_is_remembered_and_the_second_stops() -> None:
    before = signal.getsignal(signal.SIGTERM)
    remembered = []

    def block() -> None:
        with StopSignal() as stop:
            stop.within_steps = True
            os.kill(os.getpid(), signal.SIGTERM)
            remembered.append(stop.requested)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        block()
    assert remembered == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_that_is_not_python_s_does_not_fail_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    install = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, handler: install(number, handler) and None)
    try:
        with StopSignal():
            pass
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            install(number, handler)
