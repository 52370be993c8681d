"""Tests of the objectives; `contract.py` is what every one of them must pass."""

import pytest

# Not a test module by name, so pytest must be told to explain its assertions.
pytest.register_assert_rewrite(f"{__name__}.contract")
