"""A signal waits for the end of what must not be cut, and then does what it always does."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from clipalign import interrupts
from clipalign.errors import Interrupted
from clipalign.training.signals import StopSignal

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def attended() -> Iterator[None]:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    for number in before:  # a background process has them ignored
        signal.signal(number, signal.SIG_DFL)
    hook = sys.unraisablehook
    interrupts.attend()
    yield
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)
    interrupts.heard = False


@BOTH
def test_it_comes_after_the_outermost_block(number: int) -> None:
    passed = []

    def block() -> None:
        with interrupts.postponed():
            with interrupts.postponed():
                signal.raise_signal(number)
            passed.append(interrupts.heard)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert passed == [False]
    assert interrupts.heard


@BOTH
def test_a_training_hears_of_it_after_the_block_too(number: int) -> None:
    passed = []

    def block() -> None:
        with StopSignal() as stop:
            with interrupts.postponed():
                signal.raise_signal(number)
                passed.append(stop.requested)
            passed.append("behind the block")

    with pytest.raises(Interrupted, match=signal.Signals(number).name):
        block()
    assert passed == [False]


def test_an_error_of_the_block_is_not_lost() -> None:
    def block() -> None:
        with interrupts.postponed():
            signal.raise_signal(signal.SIGINT)
            raise ImportError("no such library")

    with pytest.raises(KeyboardInterrupt) as caught:
        block()
    assert isinstance(caught.value.__context__, ImportError)


def test_a_second_one_is_not_kept_waiting() -> None:
    passed = []

    def block() -> None:
        with interrupts.postponed():
            signal.raise_signal(signal.SIGINT)
            passed.append("the first")
            signal.raise_signal(signal.SIGINT)
            passed.append("the second")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert passed == ["the first"]


@BOTH
@pytest.mark.parametrize("training", [False, True])
def test_it_is_not_lost_in_an_object_that_goes(number: int, training: bool) -> None:
    class Goes:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def block() -> None:
        with StopSignal() if training else contextlib.nullcontext():
            thing = Goes()
            del thing  # what is raised in there cannot leave it
            time.sleep(5)

    with pytest.raises((KeyboardInterrupt, Interrupted)) as caught:
        block()
    if training:
        assert signal.Signals(number).name in str(caught.value)


def test_without_a_signal_nothing_happens() -> None:
    with interrupts.postponed():
        pass
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with interrupts.postponed():
        signal.raise_signal(signal.SIGTERM)
    assert not interrupts.heard


def test_who_is_impatient_is_told_once_and_wholly() -> None:
    code = (
        "import signal, sys\n"
        "from clipalign import __main__\n"
        "from clipalign.cli import console\n"
        "say = console.print_error\n"
        "def print_error(message):\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    say(message)\n"
        "console.print_error = print_error\n"
        "sys.argv = ['clipalign', 'runs', 'show', 'nowhere']\n"
        "__main__.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.startswith("Error: ")
    assert "nowhere" in done.stderr
    assert "Interrupted" not in done.stderr
