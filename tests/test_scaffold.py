"""`clipalign plugins new`: a package of every kind is found, passes its tests, and is of use."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from clipalign.errors import UsageError
from clipalign.hookspecs import KINDS as ALL_KINDS
from clipalign.scaffold import KINDS, new_package

NAMES = {kind: f"my-{kind}" for kind in KINDS} | {"objective": "tensor", "tracker": "my.notes_2"}


def put_on_path(package: Path) -> None:
    """Leave beside the sources what installing them would: metadata and entry points."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    source, name = package / "src", project["name"].replace("-", "_")
    info = source / f"{name}-{project['version']}.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head)
    points = project["entry-points"]["clipalign"]
    lines = "".join(f"{key} = {module}\n" for key, module in points.items())
    (info / "entry_points.txt").write_text(f"[clipalign]\n{lines}")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One package of every kind, on the path of what `environment` runs."""
    folder = tmp_path_factory.mktemp("packages")
    made = {}
    for kind, name in NAMES.items():
        made[kind] = new_package(name, kind, folder / kind).folder
        put_on_path(made[kind])
    return made


@pytest.fixture
def environment(packages: dict[str, Path], tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join(str(p / "src") for p in packages.values())
    return {**os.environ, "PYTHONPATH": path, "CLIPALIGN_CACHE": str(tmp_path / "cache")}


def run(environment: dict[str, str], folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_is_a_template_of_every_kind_but_commands() -> None:
    assert {f"{kind}s" for kind in KINDS} == set(ALL_KINDS) - {"commands"}


def test_every_package_is_found(environment: dict[str, str], tmp_path: Path) -> None:
    rows = json.loads(run(environment, tmp_path, "clipalign", "plugins", "list", "--json"))
    found = {(r["kind"], r["name"]): r for r in rows}
    for kind, name in NAMES.items():
        row = found[f"{kind}s", name]
        assert (row["package"], row["status"]) == (f"clipalign-{name}", "ok")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_package_passes_its_own_tests(
    environment: dict[str, str], packages: dict[str, Path], tmp_path: Path
) -> None:
    tests = [str(p / "tests") for p in packages.values()]
    out = run(environment, tmp_path, "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert int(re.search(r"(\d+) passed", out)[1]) > 40


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_objective_trains_the_embedded_model(
    environment: dict[str, str], tmp_path: Path
) -> None:
    for name in ("red", "blue"):
        for i in range(4):
            path = tmp_path / "photos" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64 + i), name).save(path)
    settings = ["--steps", "3", "--batch-size", "4", "--dataset", "photos", "--no-eval"]
    trackers = ["--set", "trackers=[my.notes_2]", "--set", "train.log_every=1"]
    out = run(
        environment, tmp_path, "clipalign", "train", "--method", "tensor", *settings, *trackers,
        "--regulariser", "my-regulariser", "--task", "my-task", "-o", "run", "--json",
    )  # fmt: skip
    assert json.loads(out)["steps"] == 3
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["preference_loss"] == pytest.approx(0.693147, abs=1e-3)
    assert "1,loss," in (tmp_path / "run" / "my.notes_2.csv").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_package_installs(packages: dict[str, Path], tmp_path: Path) -> None:
    """As wheels, by pip, with nothing fetched."""
    pytest.importorskip("hatchling")
    pytest.importorskip("pip")
    site = tmp_path / "site"
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    run(environment, tmp_path, "pip", "install", *options, *map(str, packages.values()))
    rows = json.loads(run(environment, tmp_path, "clipalign", "plugins", "list", "--json"))
    states = {r["package"]: r["status"] for r in rows}
    assert {states[f"clipalign-{name}"] for name in NAMES.values()} == {"ok"}
    assert list(site.rglob("py.typed"))


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("mine", "objectiv", "no template of kind 'objectiv'. Did you mean 'objective'"),
        ("Mine!", "objective", "'Mine!' cannot name a package: lower-case letters"),
        ("../mine", "objective", "cannot name a package"),
        ("dpo", "objective", "There is an objective 'dpo' already, of clipalign"),
        ("clipalign-emoji", "dataset", "There is a dataset 'emoji' already"),
    ],
)
def test_names_that_cannot_be_used(tmp_path: Path, name: str, kind: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        new_package(name, kind, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_written_over(command, tmp_path: Path) -> None:
    done = command("plugins", "new", "my-loss", "--kind", "objective")
    assert done.returncode == 0
    assert "clipalign train --method my-loss" in done.stdout
    written = tmp_path / "clipalign-my-loss" / "README.md"
    written.write_text("mine")
    done = command("plugins", "new", "my-loss", "--kind", "task")
    assert done.returncode == 2
    assert "clipalign-my-loss exists, and nothing is written over" in done.stderr
    assert written.read_text() == "mine"
