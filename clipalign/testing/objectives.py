"""What `pytest --clipalign-objective NAME` collects."""

from __future__ import annotations

import pytest

from clipalign.testing.contract import ObjectiveContract


class TestObjective(ObjectiveContract):
    """The contract, for each objective named on the command line with its default options."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One case for each name."""
        names = metafunc.config.getoption("--clipalign-objective")
        metafunc.parametrize("objective", names, indirect=True)
