"""Preferences that people gave: how their columns are read."""
