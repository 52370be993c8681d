"""Each error has its own documented exit code, and names come with the near ones."""

from __future__ import annotations

import re

import pytest

from clipalign import errors
from clipalign.cli.app import EXIT_CODES
from clipalign.errors import ClipAlignError, near_matches

ALL = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("error", ALL)
def test_the_tree_in_the_docstring_is_the_tree(error):
    assert issubclass(error, ClipAlignError)
    assert re.search(rf"\b{error.__name__}\s+{error.exit_code}\b", errors.__doc__)


def test_exit_codes_are_distinct_and_in_the_help():
    codes = [error.exit_code for error in ALL]
    assert len(set(codes)) == len(codes)
    for code in codes:
        assert re.search(rf"(^|\s){code}  \w", EXIT_CODES)


def test_near_names_come_first_and_all_names_where_none_is_near():
    assert near_matches("kot", ["dpo", "kto"]) == " Did you mean 'kto'?"
    assert near_matches("zzz", ["dpo", "kto"]) == " Known: dpo, kto."
    assert near_matches("zzz", []) == ""
