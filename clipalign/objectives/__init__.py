"""Preference objectives, one file each, to be read beside its formula.

`clipalign.objective(name, **options)` builds one by name.
"""

from clipalign.objectives.base import Objective, ObjectiveOptions, PolicyBatch

__all__ = ["Objective", "ObjectiveOptions", "PolicyBatch"]
