"""Every block of the README and of the pages beside it does what it says.

Each fenced block stands in `PLAN` with how it is checked; one that does not fails a test. By
default command lines are parsed by the real command line (commands, options, values and registered
names), and Python is compiled and its names looked up. `pytest -m slow` also runs the blocks:

- FULL: as written.
- SMALL: as written but for the substitutions that stand beside it, and on made photographs.
- ELSEWHERE: run by another test or by CI, which is named.
- PARSED: not run, and why.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from PIL import Image

import clipalign
from clipalign.config import RunConfig
from clipalign.plugins import registry
from clipalign.tasks.concepts.file import Concept
from tests.command_lines import ROOT, arguments_of, parse, simple_commands

SHELL = ("sh", "bash")
OTHER_PROGRAMS = {"python", "python3", "pip", "sbatch", "tensorboard"}
QUIET_TEXT = "text"  # output and formulas: nothing to run


class Block(NamedTuple):
    """A fenced block: the page, its language and what it holds."""

    page: str
    language: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others: the page, and how it begins."""
        return self.page, self.text.strip().splitlines()[0]


class How(NamedTuple):
    """How a block is checked beyond parsing.

    Attributes:
        mode: FULL, SMALL, ELSEWHERE or PARSED.
        why: what is changed or left out, or who runs it.
        changes: (as written, as run) of SMALL.
    """

    mode: str
    why: str
    changes: tuple[tuple[str, str], ...] = ()


TINY = "--steps 2 --batch-size 16 --set 'dataset_options={concepts: 10, train_views: 1}'"
FEW_PEOPLE = "--dataset emoji-people --set 'dataset_options={test_views: 1}' --steps 40 --no-eval"
PLUGINS = "tests/test_examples_plugins.py"
ZOO = "plugins/clipalign-preference-zoo"
BASELINES = "plugins/clipalign-baselines"
WALKED = How("ELSEWHERE", f"{PLUGINS} walks the page in a fresh environment")

PLAN = {
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install ."): How(
        "SMALL",
        "this environment stands for the new one; two steps on ten concepts",
        (
            ("python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/", ""),
            ("--task typographic", f"--task typographic {TINY}"),
        ),
    ),
    ("README.md", ".venv/bin/pip install '.[test]' && .venv/bin/python -m pytest"): How(
        "ELSEWHERE", ".ci/run runs it: it is this suite"
    ),
    ("README.md", "clipalign prepare typographic --dataset ./photos -o prefs/"): How(
        "SMALL",
        "no model hub: emoji-tiny for OpenAI's weights; two steps; made photographs",
        (
            ("--model ViT-B-32/openai", "--model emoji-tiny --steps 2 --batch-size 8 --no-eval"),
            ("--against reference", "--against reference --set resamples=100 --split train"),
        ),
    ),
    ("README.md", "clipalign train --task gender -o runs/gender"): How(
        "SMALL",
        "forty steps; every fifth t",
        (
            ("--task gender", f"--task gender {FEW_PEOPLE}"),
            ("-1:1:0.1", "-1:1:0.5"),
            ("--suite gender", "--suite gender --set resamples=100 --set dataset.test_views=1"),
        ),
    ),
    ("README.md", "name: age"): How(
        "ELSEWHERE", "tests/cli/test_train_command.py trains with this concept"
    ),
    ("README.md", "clipalign prepare typographic --dataset ./photos -o prefs/ --shard 3/64"): How(
        "SMALL",
        "two processes; a recipe of two steps",
        (("--nproc-per-node 8", "--nproc-per-node 2"),),
    ),
    ("README.md", "import clipalign"): How(
        "SMALL",
        "two steps on ten concepts",
        (
            (
                'task="typographic")',
                'task="typographic", overrides=["train.steps=2", "train.batch_size=16", '
                '"dataset_options={concepts: 10, train_views: 1}"])',
            ),
        ),
    ),
    ("README.md", "class SimPO(clipalign.Objective):"): How(
        "PARSED", "the outline of plugins/clipalign-simpo, whose tests run it in full"
    ),
    ("examples/cluster/README.md", "python -m clipalign train --config recipe.yaml"): How(
        "PARSED",
        "needs 64 GPUs and SLURM; its recipe is validated here, the README's block runs torchrun",
    ),
    ("examples/study/README.md", "python examples/study/kl_per_image.py studies/beta"): How(
        "ELSEWHERE", "tests/examples/test_study_in_small.py runs the study in small"
    ),
    **{
        ("examples/plugins/README.md", first): WALKED
        for first in (
            "clipalign plugins new my-loss --kind objective",
            "pip install -e clipalign-my-loss",
            "clipalign train --method my-loss --steps 20 --no-eval",
            '"""The objective "my-loss": a squared hinge on the margin."""',
            "python -m pytest -q --clipalign-objective my-loss",
            "objective:",
            "clipalign train --config recipe.yaml --no-eval",
        )
    },
    (f"{ZOO}/README.md", "pip install clipalign-preference-zoo"): How(
        "PARSED", "the package's own tests train with its objectives"
    ),
    ("plugins/clipalign-simpo/README.md", "pip install clipalign-simpo"): How(
        "PARSED", "the package's own tests train with it"
    ),
    ("plugins/clipalign-simpo/README.md", "import clipalign"): How(
        "PARSED", "the package's own tests build it so; here it need not be installed"
    ),
    ("plugins/clipalign-trackers/README.md", "pip install 'clipalign-trackers[tensorboard]'"): How(
        "PARSED", "the package's own tests run the tracker; tensorboard serves until it is stopped"
    ),
    ("plugins/clipalign-trackers/README.md", "trackers:"): How(
        "PARSED", "a piece of a configuration"
    ),
    (f"{BASELINES}/README.md", "pip install 'clipalign-baselines[all]'"): How(
        "PARSED", "the package's own tests run its commands"
    ),
    (f"{BASELINES}/README.md", "clipalign transform emoji-tiny --method head-ablation"): How(
        "PARSED", "the package's own tests run its commands"
    ),
    (f"{BASELINES}/README.md", "tokenizer = open_clip.get_tokenizer("): How(
        "PARSED", "a piece of a program, of a model that the package's own tests make"
    ),
}  # fmt: skip


def pages() -> list[Path]:
    found = [ROOT / "README.md", *ROOT.glob("examples/**/*.md"), *ROOT.glob("plugins/*/*.md")]
    return sorted(p for p in found if "results" not in p.parts)


def blocks() -> list[Block]:
    found = []
    for path in pages():
        text = path.read_text(encoding="utf-8")
        for language, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
            found.append(Block(str(path.relative_to(ROOT)), language, body))
    return [block for block in found if block.language != QUIET_TEXT]


def planned(block: Block) -> How | None:
    page, first = block.key
    ways = {
        len(start): how for (p, start), how in PLAN.items() if p == page and first.startswith(start)
    }
    return ways[max(ways)] if ways else None


def name_of(block: Block) -> str:
    page, first = block.key
    return f"{page}: {first[:50]}"


BLOCKS = blocks()
SMALL = [block for block in BLOCKS if (how := planned(block)) and how.mode in ("FULL", "SMALL")]
INLINE = sorted(
    {
        (str(path.relative_to(ROOT)), code)
        for path in pages()
        for code in re.findall(r"`(clipalign [a-z-][^`]*)`", path.read_text(encoding="utf-8"))
    }
)


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_no_block_is_left_out(block):
    assert block.language in (*SHELL, "python", "yaml"), "say what it is: bash, python, yaml, text"
    assert planned(block) is not None, "say in PLAN how this block is checked"


def test_no_way_of_checking_is_left_over():
    for page, start in PLAN:
        assert any(b.page == page and b.key[1].startswith(start) for b in BLOCKS), (page, start)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in SHELL], ids=name_of)
def test_the_command_line_takes_its_commands(block):
    for words in simple_commands(block.text):
        arguments = arguments_of(words)
        if arguments is not None:
            parse(arguments, frozenset({"my-loss"}))
            continue
        program = Path(words[0]).name
        assert program in OTHER_PROGRAMS, words
        scripts = [word for word in words if word.endswith((".py", ".sbatch"))]
        for script in scripts:
            assert (ROOT / script).exists() or (ROOT / block.page).with_name(script).exists()


@pytest.mark.parametrize(("page", "code"), INLINE)
def test_commands_within_a_sentence_exist(page, code):
    (words,) = simple_commands(" ".join(code.split()))  # a sentence may break within it
    if len(words) == 2 and words[1] in registry("commands").names():
        return  # the mention of a command, or of a group
    parse(arguments_of([word for word in words if word != "…"]), frozenset({"my-loss"}))


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=name_of)
def test_python_uses_names_that_exist(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module == "clipalign":
            assert {alias.name for alias in node.names} <= set(clipalign.__all__)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "clipalign":
            assert node.attr in clipalign.__all__


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml"], ids=name_of)
def test_yaml_is_a_concept_or_has_keys_of_a_configuration(block):
    tree = yaml.safe_load(block.text)
    if "captions" in tree:
        Concept.model_validate(tree)
    else:
        assert set(tree) <= set(RunConfig.model_fields)


def test_the_recipe_for_a_cluster_is_valid(monkeypatch, capsys):
    from clipalign.cli.app import run

    monkeypatch.chdir(ROOT)
    assert run(["config", "validate", "examples/cluster/recipe.yaml"]) == 0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with what the blocks take as given: photographs, a recipe, `clipalign` itself."""
    for number, name in enumerate(("apple", "bridge", "cactus", "dog")):
        for i in range(4):
            path = tmp_path / "photos" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (80, 80), (60 * number, 60 * i, 120)).save(path)
    (tmp_path / "recipe.yaml").write_text(
        "task: typographic\ndataset_options: {concepts: 10, train_views: 1}\n"
        "train: {steps: 2, batch_size: 16, accumulate: 2}\noutput: runs/recipe\n"
    )
    script = tmp_path / "bin" / "clipalign"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m clipalign "$@"\n')
    script.chmod(0o755)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform == "win32", reason="the pages are written for a POSIX shell")
@pytest.mark.parametrize("block", SMALL, ids=name_of)
def test_it_runs(block, place):
    how = planned(block)
    text = block.text
    for written, run_as in how.changes:
        assert written in text, f"the page no longer has {written!r}"
        text = text.replace(written, run_as)
    path = [str(place / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {
        **{k: v for k, v in os.environ.items() if k != "CLIPALIGN_DEBUG"},
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "CLIPALIGN_CACHE": os.environ.get("CLIPALIGN_CACHE", str(place / "cache")),
    }
    program = ["bash", "-euc"] if block.language in SHELL else [sys.executable, "-c"]
    done = subprocess.run(
        [*program, text], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
