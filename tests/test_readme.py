"""The README's two first commands, which CI and every reader start with.

What the other blocks do is held by `test_documents.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S)


def test_the_first_two_blocks_are_the_two_commands() -> None:
    install, test = SHELL[:2]
    assert len(install.strip().splitlines()) == len(test.strip().splitlines()) == 1
    assert "clipalign train --method kto --task typographic" in install
    assert "pytest" in test


def test_ci_runs_the_readmes_test_command() -> None:
    assert "readme_block 2" in (ROOT / ".ci" / "run").read_text()
