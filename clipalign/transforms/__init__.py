"""Transforms: edits of a trained model that need no training.

A fitter looks at a run, its models and labelled images, and gives a small frozen object that can be
described, saved and applied to a model. `power` turns a linear map up and down, `interpolate` goes
between two checkpoints, `project` takes a concept out of the text features.
"""
