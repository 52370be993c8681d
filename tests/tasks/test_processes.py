"""Worker processes: what they answer, and that the death of one is noticed at any moment."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection

import pytest

from clipalign.errors import ClipAlignError, DataError
from clipalign.tasks.processes import Processes

LARGE = bytes(1_000_000)  # more than a pipe holds


def nothing(*_: object) -> None: ...


def own(*values):
    return os.getpid(), values


def raises(error):
    raise error


def sleeps(seconds):
    time.sleep(seconds)


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def dies_half_way():
    def half(pipe, data):
        os.write(pipe.fileno(), data[: len(data) // 2])
        dies()

    Connection._send = half
    return "an answer"


def unsendable():
    return lambda: None


class NeedsTwo(Exception):
    """What is raised with two arguments, and keeps one: it can be sent and not received."""

    def __init__(self, what, where):
        super().__init__(f"{what} in {where}")


def raises_what_needs_two():
    raise NeedsTwo("a fault", "the cellar")


@pytest.fixture
def pool():
    made = Processes(2, pickle.dumps((nothing, (), {})))
    yield made
    made.close(at_once=True)


def test_they_answer_in_other_processes(pool):
    answers = [pool.submit(own, n, LARGE) for n in range(6)]
    found = [a.result() for a in answers]
    assert [values for _, values in found] == [(n, LARGE) for n in range(6)]
    assert os.getpid() not in {pid for pid, _ in found}


def test_an_error_keeps_its_kind_and_the_process_goes_on(pool):
    with pytest.raises(DataError, match="broken"):
        pool.submit(raises, DataError("broken")).result()
    assert pool.submit(own, 1).result()[1] == (1,)


@pytest.mark.parametrize(
    ("function", "words"),
    [(raises_what_needs_two, "NeedsTwo: a fault in the cellar"), (unsendable, "lambda")],
)
def test_what_cannot_travel_back_is_told_in_words(pool, function, words):
    with pytest.raises(Exception, match=words):
        pool.submit(function).result()
    assert pool.submit(own, 1).result()[1] == (1,)


@pytest.mark.parametrize("function", [dies, dies_half_way])
def test_a_death_fails_its_call_and_no_other(pool, function):
    slow, dying = pool.submit(sleeps, 1), pool.submit(function)
    with pytest.raises(ClipAlignError, match="A worker process died"):
        dying.result(timeout=60)
    assert slow.result() is None


def test_a_death_before_it_has_read_what_it_begins_with(monkeypatch):
    start = Processes._start

    def start_and_kill(self):
        pipe = start(self)
        self._kill()
        return pipe

    monkeypatch.setattr(Processes, "_start", start_and_kill)
    pool = Processes(1, pickle.dumps((nothing, (LARGE,), {})))
    with pytest.raises(ClipAlignError, match="A worker process died"):
        pool.submit(own).result(timeout=60)
    pool.close()


def test_what_it_begins_with_may_fail_too():
    pool = Processes(1, pickle.dumps((raises, (DataError("no recipe"),), {})))
    with pytest.raises(DataError, match="no recipe"):
        pool.submit(own).result(timeout=60)
    pool.close()


@pytest.mark.parametrize("at_once", [True, False])
def test_closed_it_leaves_nobody(at_once):
    pool = Processes(2, pickle.dumps((nothing, (), {})))
    pids = {pool.submit(own).result()[0]}
    busy = pool.submit(sleeps, 600 if at_once else 0.5)
    began = time.monotonic()
    pool.close(at_once=at_once)
    assert time.monotonic() - began < 60
    assert busy.done()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_where_no_more_files_may_be_open_it_says_so_at_once():
    code = (
        "import resource\n"
        "from clipalign.tasks.processes import Processes\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))\n"
        "try:\n    Processes(2, b'')\n"
        "except OSError as error:\n    print(error.strerror)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Too many open files\n"
