"""Fixtures that tests of every part share: the real command, and packages made up for a test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from clipalign.plugins import reload_plugins
from clipalign.progress import Silent

os.environ.pop("COLUMNS", None)  # what runs the tests may set it, and commands fold text at it
if "PYTEST_XDIST_WORKER" in os.environ:
    # side by side, tests would ask for more threads than there are cores, and spin for them
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `clipalign …` as a user does: `command("config", "show", env={…})`, in `tmp_path`."""

    def run(*arguments: str, env: dict[str, str] | None = None, **options):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CLIPALIGN_")}
        return subprocess.run(
            [sys.executable, "-m", "clipalign", *arguments],
            cwd=options.pop("cwd", tmp_path),
            env=environment | {"COLUMNS": "200"} | (env or {}),
            capture_output=True,
            text=True,
            timeout=100,
            **options,
        )

    return run


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own; it is not made yet."""
    monkeypatch.setenv("CLIPALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def module_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for all tests of a file, and for nothing else."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPALIGN_CACHE", str(folder))
        yield folder


class Notes(Silent):
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def notes() -> Notes:
    return Notes()


class PackageMaker:
    """Makes up installed packages: a module and the metadata that pip would leave beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        places = [str(folder), os.environ.get("PYTHONPATH", "")]  # what the tests run from, too
        self.env = {"PYTHONPATH": os.pathsep.join(filter(None, places))}
        self.modules: list[str] = []

    def __call__(
        self, package: str, source: str, *, version: str = "1.0", entry_points: str | None = None
    ) -> str:
        """Install `package` with `source` as its plugin module; returns the module's name."""
        module = package.replace("-", "_")
        self.modules.append(module)
        (self.folder / f"{module}.py").write_text(dedent(source))
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        )
        declared = f"[clipalign]\n{package.removeprefix('clipalign-')} = {module}\n"
        (info / "entry_points.txt").write_text(entry_points or declared)
        reload_plugins()
        return module


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageMaker]:
    """Install packages for this test alone, in this process and (by `env`) in the command's."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("CLIPALIGN_PLUGINS", raising=False)
    reload_plugins()
    maker = PackageMaker(folder)
    yield maker
    for module in maker.modules:
        sys.modules.pop(module, None)
    reload_plugins()
