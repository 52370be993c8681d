"""Tests of the objectives; `clipalign.testing` has what every one of them must pass."""
