"""What tests of plugins share: a package that is sound, and the row of one."""

from __future__ import annotations

from clipalign.plugins import plugin_report

GOOD = """
import clipalign

@clipalign.hookimpl
def register_objectives(register):
    register("good", "json:JSONDecoder", summary="Decodes.", paper="none")
"""


def status_of(package):
    (status,) = [s for s in plugin_report() if s.package == package]
    return status
