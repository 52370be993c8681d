"""The short form: every case of the campaign holds, a few times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.cases import Case, all_cases
from tests.campaign.commands import Zygote
from tests.campaign.ledger import Ledger, table


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as warm:
        yield warm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("campaign")


def _cases() -> Iterator[Any]:
    """All of them; those whose trials are long only with -m slow."""
    for case in all_cases().values():
        marks = () if case.short else (pytest.mark.slow, pytest.mark.timeout(600))
        yield pytest.param(case, marks=marks, id=case.name)


@pytest.mark.parametrize("case", list(_cases()))
def test_holds(case: Case, zygote: Zygote, folder: Path) -> None:
    if case.name == "names":  # its page and plots need the extra "report"
        pytest.importorskip("matplotlib")
    ledger = Ledger(folder, seed=0)
    for number in range(case.short or 1):
        row = ledger.try_once(case, number, zygote)
        assert row["outcome"] == "held", row["note"]


def test_the_table_counts_every_trial() -> None:
    rows = [
        {"case": "a", "inputs": 3, "outcome": "held"},
        {"case": "a", "inputs": 2, "outcome": "lost"},
        {"case": "b", "inputs": 1, "outcome": "held"},
    ]
    lines = table(rows).splitlines()
    assert lines[2] == "| a | 2 | 5 | 1 | 1 | 0 | 0 | 0 |"
    assert lines[-1] == "| **all** | 3 | 6 | 2 | 1 | 0 | 0 | 0 |"
