"""Comparisons: a grid of methods, seeds and models, trained, evaluated and set side by side."""
