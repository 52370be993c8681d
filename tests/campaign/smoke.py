"""The campaign's own instruments: a command that works, and one that is refused."""

from __future__ import annotations

from tests.campaign.cases import Broken, Trial, case


@case("nothing done", long=1)
def nothing_done(trial: Trial) -> None:
    """A command that works ends with 0, one that cannot with its documented code."""
    if trial.run("config", "show").code != 0:
        raise Broken("lost", "config show failed")
    if trial.run("train", "--method", "ktoo").code != 3:
        raise Broken("lost", "an unknown method was not refused with code 3")
