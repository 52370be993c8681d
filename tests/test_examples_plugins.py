"""The page `examples/plugins/README.md`, walked as a new user would, in a fresh environment."""

from __future__ import annotations

import inspect
import os
import re
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from clipalign import hookspecs

PAGE = (Path(__file__).parents[1] / "examples" / "plugins" / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def fresh(tmp_path: Path) -> dict[str, str]:
    """An environment of its own, which sees the libraries of this one and fetches nothing."""
    pytest.importorskip("hatchling")
    pytest.importorskip("editables")
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    (packages,) = (home / "lib").glob("python*/site-packages")
    lines = "".join(f"import site; site.addsitedir({p!r})\n" for p in site.getsitepackages())
    (packages / "libraries.pth").write_text(lines)
    script = home / "bin" / "clipalign"
    script.write_text(f'#!/bin/sh\nexec "{home}/bin/python" -m clipalign "$@"\n')
    script.chmod(0o755)
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("CLIPALIGN_", "PYTHON"))},
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "CLIPALIGN_CACHE": os.environ.get("CLIPALIGN_CACHE", str(tmp_path / "cache")),
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this as "no isolation": hatchling is here
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform == "win32", reason="the page is written for a POSIX shell")
def test_the_page_works_as_it_is_written(fresh: dict[str, str], tmp_path: Path) -> None:
    code = tmp_path / "clipalign-my-loss" / "src" / "clipalign_my_loss" / "my_loss.py"
    said = ""
    for language, text in BLOCKS:
        if language == "python":
            assert "class MyLossObjective" in code.read_text()
            code.write_text(text)
        elif language == "yaml":
            (tmp_path / "recipe.yaml").write_text(text)
        else:
            done = subprocess.run(
                ["bash", "-euc", text], cwd=tmp_path, env=fresh, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            said += done.stdout
    for words in ("my-loss", " passed", "Run:   runs/typographic-my-loss-1"):
        assert words in said
    for run in ("typographic-my-loss-2", "typographic-my-loss+kto-1"):
        assert f"Run:   runs/{run}" in said


def test_the_page_has_every_step() -> None:
    languages = [language for language, _ in BLOCKS]
    assert languages == ["sh", "sh", "sh", "python", "sh", "yaml", "sh"]
    for words in ("CLIPALIGN_PLUGINS", "CLIPALIGN_API", "plugins doctor"):
        assert words in PAGE


def test_the_page_has_every_hook_as_it_is():
    hooks = {
        name: hook for name, hook in vars(hookspecs).items() if hasattr(hook, "clipalign_spec")
    }
    documented = dict(re.findall(r"^\| `(\w+\(.*?\))` \| (.*?) \|$", PAGE, re.M))
    expected = {}
    for name, hook in hooks.items():
        arguments = ", ".join(inspect.signature(hook).parameters)
        summary = " ".join((hook.__doc__ or "").strip().split("\n\n")[0].split())
        expected[f"{name}({arguments})"] = summary
    assert documented == expected
    assert {f"register_{kind}" for kind in hookspecs.KINDS} <= set(hooks)
