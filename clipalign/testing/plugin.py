"""The pytest plugin: `pytest --clipalign-objective NAME` runs the contract of an objective.

It is loaded in every pytest run of an environment that has clipalign, so it imports nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("clipalign.testing.contract")

_TESTS = str(Path(__file__).with_name("objectives.py"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("clipalign").addoption(
        "--clipalign-objective",
        action="append",
        default=[],
        metavar="NAME",
        help="Check that a registered objective keeps clipalign's contract; may be given again. "
        "Where no test file is named, nothing else is run.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Collect the contract beside the files that are named, or alone where none is."""
    names = config.getoption("--clipalign-objective")
    if not names:
        return
    from clipalign.build import objective
    from clipalign.errors import ClipAlignError

    try:
        for name in names:
            objective(name)  # said once here, and not by each of the tests
    except ClipAlignError as error:
        raise pytest.UsageError(str(error)) from None
    named = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
    config.args = [*named, _TESTS]
