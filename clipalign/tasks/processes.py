"""Worker processes that share nothing, so that the death of one holds up nobody."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, ParamSpec, TypeVar

from clipalign.errors import ClipAlignError

__all__ = ["Processes"]

P = ParamSpec("P")
T = TypeVar("T")

_LEAVE = 5  # seconds that an idle worker is given to end


class Processes:
    """Up to `count` processes, each with a pipe and, on this side, a thread of its own.

    A pool that shares its queues waits for ever once a process is killed while it writes to one, or
    before it has read what it starts from. Here the end of a pipe is the end of its process, at
    whatever moment, and the call that it was answering fails.

    Args:
        count: how many at most; each is started when there is work that no idle one takes.
        begin: the first call of every process, pickled: a function of a module and its arguments.

    Raises:
        OSError: the system gives no more files.
    """

    def __init__(self, count: int, begin: bytes) -> None:
        self._begin = begin
        self._own = threading.local()
        self._started: list[tuple[BaseProcess, Connection]] = []
        # The first process brings a resource tracker, which would undo the mask of its thread.
        resource_tracker.ensure_running()
        self._threads = ThreadPoolExecutor(count, "worker", _shield)

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function of a module in one of the processes.

        The future raises what the function raised, or:
            ClipAlignError: the process died.
        """
        return self._threads.submit(self._call, (function, args, kwargs))

    def close(self, *, at_once: bool = False) -> None:
        """End them, once each has answered its call or, `at_once`, wherever they are."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if at_once:
            self._kill()
        self._threads.shutdown()
        for _, pipe in self._started:
            pipe.close()
        for process, _ in self._started:
            process.join(_LEAVE)
        self._kill()
        for process, _ in self._started:
            process.join()

    def _kill(self) -> None:
        for process, _ in list(self._started):
            process.kill()

    def _call(self, call: Any) -> Any:
        if not hasattr(self._own, "pipe"):
            pipe = self._start()
            _ask(pipe, self._begin)
            self._own.pipe = pipe
        return _ask(self._own.pipe, bytes(ForkingPickler.dumps(call)))

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        with contextlib.closing(there):  # or its end would not be the end of the pipe
            process = context.Process(target=_serve, args=(there,), daemon=True)
            process.start()
        self._started.append((process, here))
        return here


def _shield() -> None:
    """Let what this thread starts inherit a mask.

    Until a process attends to signals, a Ctrl-C that the terminal sends to everybody would end it
    with a traceback.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _ask(pipe: Connection, call: bytes) -> Any:
    try:
        pipe.send_bytes(call)
        answer = pipe.recv_bytes()
    except (EOFError, OSError) as end:
        raise ClipAlignError(
            "A worker process died; most likely the machine is out of memory. Prepare with "
            "fewer workers, or 0. (A Python script that uses workers must guard its main part "
            'with `if __name__ == "__main__":`.)'
        ) from end
    value, error = ForkingPickler.loads(answer)
    if error is not None:
        raise error
    return value


# --- In a worker --------------------------------------------------------------------------------


def _serve(pipe: Connection) -> None:
    """Answer calls until the pipe is closed or the parent is gone; leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            call = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        with contextlib.suppress(BrokenPipeError):
            pipe.send_bytes(_answer(call))


def _answer(call: bytes) -> bytes:
    """The pickled pair (value, None) or (None, error)."""
    try:
        function, args, kwargs = ForkingPickler.loads(call)
        return bytes(ForkingPickler.dumps((function(*args, **kwargs), None)))
    except BaseException as error:
        try:
            answer = bytes(ForkingPickler.dumps((None, error)))
            ForkingPickler.loads(answer)  # some errors can be sent and not received
        except Exception:
            plain = RuntimeError(f"{type(error).__name__}: {error}")
            answer = bytes(ForkingPickler.dumps((None, plain)))
        return answer


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
