"""The architecture holds: every module imports, imports go one way, light modules stay light."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import clipalign

PACKAGE = Path(clipalign.__file__).parent
REPOSITORY = PACKAGE.parent
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages([str(PACKAGE)], "clipalign.")
    if not m.name.endswith("__main__")
)
EXTRAS = ("matplotlib", "peft", "transformers", "onnx", "onnxruntime")
LIGHT = [
    *(name for name in MODULES if name.startswith("clipalign.cli")),
    "clipalign.builtins",
    "clipalign.config",
    "clipalign.errors",
    "clipalign.hookspecs",
    "clipalign.options",
    "clipalign.plain_yaml",
    "clipalign.plugins",
    "clipalign.training.rundir",
]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports(module):
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name not in EXTRAS:
            raise
        pytest.skip(f"needs {missing.name}, which an extra brings")


def test_modules_on_the_way_to_help_import_nothing_heavy():
    code = "\n".join(f"import {module}" for module in LIGHT) + "\nimport sys\nprint(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert not {"torch", "open_clip", "numpy", "PIL"} & set(loaded)


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "objectives").glob("*.py")), ids=lambda p: p.stem
)
def test_objectives_are_arithmetic(path):
    allowed = {"torch", "pydantic", *sys.stdlib_module_names}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "."]
        for name in names:
            ours = name.startswith("clipalign.objectives")
            assert ours or name.split(".")[0] in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_no_file_is_too_long_to_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.skipif(
    importlib.util.find_spec("importlinter") is None, reason="import-linter is not installed"
)
def test_imports_go_one_way():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
