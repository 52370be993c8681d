"""What a case is: a name, how often it is tried, and a function of one trial.

@case("kill train", long=100)
def kill_train(trial: Trial) -> None:
    moment = trial.rng.uniform(0, 3)
    killed = trial.run("train", "--output", "run", kill_after=moment)
    …
    if weights != expected:
        raise Broken("lost", f"weights differ after a kill at {moment:.2f} s")
"""

from __future__ import annotations

import importlib
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.campaign.commands import Finished, Zygote

OUTCOMES = ("held", "lost", "traceback", "hang", "escape")
"""What becomes of a trial. `lost`: work, data or exactness; `escape`: a write outside the output
directory, code run that should not be, or text that acts in a terminal, a page or a sheet."""

MODULES = (
    "tests.campaign.kills",
    "tests.campaign.signals",
    "tests.campaign.flips",
    "tests.campaign.resources",
    "tests.campaign.together",
    "tests.campaign.plugins",
    "tests.campaign.network",
    "tests.campaign.sameness",
    "tests.campaign.images",
    "tests.campaign.tables",
    "tests.campaign.shards",
    "tests.campaign.yamls",
    "tests.campaign.sets",
    "tests.campaign.checkpoints",
    "tests.campaign.names",
)


T = TypeVar("T")


class Broken(Exception):
    """A trial that did not hold."""

    def __init__(self, outcome: str, note: str) -> None:
        assert outcome in OUTCOMES[1:], outcome
        super().__init__(note)
        self.outcome, self.note = outcome, note


@dataclass
class Trial:
    """One attempt: a random state of its own, an empty folder, and the real command."""

    number: int
    rng: random.Random
    folder: Path
    shared: Path
    """Kept between the trials of a campaign: what is dear to make and only read (see `once`)."""
    zygote: Zygote
    inputs: int = 1
    """How many inputs this trial tried; a case that tries several says so."""

    def run(self, *arguments: str, check: bool = True, **options: Any) -> Finished:
        """`clipalign ARGUMENTS…` in the trial's folder; see `Zygote.run` for the options.

        With `check`, a traceback or a hang ends the trial.
        """
        options.setdefault("cwd", self.folder)
        done = self.zygote.run(arguments, **options)
        if check:
            self.check(done)
        return done

    def check(self, done: Finished) -> None:
        """Raise `Broken` where a command hung or printed a traceback."""
        if done.hung:
            raise Broken("hang", f"{done.line}: no end after {done.seconds:.0f} s")
        if "Traceback (most recent call last)" in done.err + done.out or done.code == 1:
            raise Broken("traceback", f"{done.line}: {(done.err or done.out)[-600:]}")

    def turn(self, choices: Sequence[T]) -> T:
        """One of some choices: all of them in turn, the first in the first trial."""
        return choices[self.number % len(choices)]

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder that `make` fills, made by the first trial that wants it."""
        place, whole = self.shared / name, self.shared / f".{name}.made"
        if not whole.exists():
            # where it stays, since configurations record whole paths
            shutil.rmtree(place, ignore_errors=True)  # of a campaign that was stopped
            place.mkdir(parents=True)
            make(place)
            whole.touch()
        return place


@dataclass(frozen=True)
class Case:
    """One kind of trouble."""

    name: str
    try_it: Callable[[Trial], None]
    long: int
    short: int = 1


CASES: dict[str, Case] = {}


def case(name: str, *, long: int, short: int = 1) -> Callable[[Callable[[Trial], None]], Any]:
    """Register a case that the long form tries `long` times and the short form `short` times.

    With `short=0` the default run of the tests leaves it out, and `-m slow` tries it once.
    """

    def register(function: Callable[[Trial], None]) -> Callable[[Trial], None]:
        assert name not in CASES, name
        CASES[name] = Case(name, function, long, short)
        return function

    return register


def all_cases() -> dict[str, Case]:
    """Every case, by name, in the order of the modules."""
    for module in MODULES:
        importlib.import_module(module)
    return CASES
