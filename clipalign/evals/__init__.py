"""Evaluation: metrics, statistics, the results schema, and the suites that use them."""
