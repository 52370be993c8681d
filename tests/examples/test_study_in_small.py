"""The study's page walked as written, but small: few concepts, few steps, two seeds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_lines import ROOT

PAGE = (ROOT / "examples" / "study" / "README.md").read_text(encoding="utf-8")
RECIPE = """\
title: Methods over β, in small
base:
  model: emoji-tiny
  task: typographic
  dataset: emoji
  dataset_options: {concepts: 10, train_views: 1}
  train: {steps: 2, batch_size: 16}
seeds: [0, 1]
methods:
  reference: {model: base}
  kto: {set: {method: kto}, grid: {method_options.beta: [0.1, 1.0]}}
  cross-entropy: {set: {method: cross-entropy}}
baseline: cross-entropy
evaluate:
  - suite: typographic
    splits: [test]
    options: {resamples: 100}
"""
SMALL = (  # as the page has it, as it is run
    ("--task typographic", "--task typographic --steps 2 --batch-size 16 --no-eval "
     "--set 'dataset_options={concepts: 10, train_views: 1}'"),
    ("--task gender", "--task gender --dataset emoji-people --steps 40 --no-eval "
     "--set 'dataset_options={test_views: 1}'"),
    ("--scan=-1:1:0.1", "--scan=-1:1:0.5"),
    ("--scan=0:1.2:0.05", "--scan=0:1:0.5"),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform == "win32", reason="the page is written for a POSIX shell")
def test_the_page_runs_and_its_results_are_gathered(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "beta.yaml").write_text(RECIPE)
    script = tmp_path / "bin" / "clipalign"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m clipalign "$@"\n')
    script.chmod(0o755)
    path = [str(script.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "CLIPALIGN_CACHE": os.environ.get("CLIPALIGN_CACHE", str(tmp_path / "cache")),
    }

    def run(text: str) -> None:
        done = subprocess.run(
            ["bash", "-euc", text], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"

    run("clipalign compare beta.yaml -o studies/beta")
    (block,) = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S)
    for written, run_as in SMALL:
        assert written in block, f"the page no longer has {written!r}"
        block = block.replace(written, run_as)
    run(block)
    run("python examples/study/collect.py studies/ -o results")
    index = (tmp_path / "results" / "README.md").read_text()
    links = set(re.findall(r"\]\((.*?)\)", index))
    assert "7 of 7" in index
    assert {"beta/README.md", "beta/kl-per-image.svg", "figures/head-over-t.svg"} <= links
    assert {"figures/gender-over-t.md", "figures/police.txt"} <= links
    table = (tmp_path / "results" / "beta" / "README.md").read_text()
    assert "2 seeds (0, 1)" in table
    assert "Made by `clipalign compare examples/study/beta.yaml -o studies/beta`" in table
    turned = (tmp_path / "results" / "figures" / "head-over-t.md").read_text()
    assert "Made by `python examples/study/over_t.py runs/head-0 runs/head-1" in turned
    assert "3 seeds (0, 1, 2)" in turned
