"""The comparison of made-up results, which the tests of comparisons have too."""

from tests.comparison.conftest import study

__all__ = ["study"]
