"""The study's recipes parse, plan and name only metrics that exist; its scripts run on files."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from clipalign.cli.app import run as run_command
from clipalign.comparison.compare import write_recipe
from clipalign.comparison.plan import make_plan
from clipalign.evals.curves import Curve, Point

STUDY = Path(__file__).parents[2] / "examples" / "study"
RECIPES = sorted(STUDY.glob("*.yaml"))


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, STUDY / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_recipes():
    assert {r.stem for r in RECIPES} >= {"typographic", "ablations", "retained", "transfer"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_plans(path, tmp_path, monkeypatch, capsys):
    if path.stem.startswith("rivals"):
        pytest.importorskip("clipalign_baselines")
    if path.stem == "zoo":
        pytest.importorskip("clipalign_preference_zoo")
    monkeypatch.chdir(tmp_path)
    assert run_command(["compare", str(path), "--dry-run"]) == 0
    assert "missing" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    plan = make_plan(path, tmp_path)
    trained = [c for c in plan.cells if c.kind == "train"]
    one = path.stem in ("ablations", "beta", "retained", "zoo")  # many cells: one seed unless asked
    assert {c.seed for c in trained} == ({0} if one else {0, 1, 2})
    assert plan.recipe.baseline in plan.recipe.methods
    assert all(e.axes_of_suite() for e in plan.evaluations)


def test_the_ablations_change_one_thing_and_change_it():
    plan = make_plan(STUDY / "ablations.yaml", Path("out"), check_options=False)
    dumps = {c.method: c.config.model_dump_json() for c in plan.cells if c.seed == 0}
    assert len(set(dumps.values())) == len(dumps)
    assert len(dumps) >= 20


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_the_page_has_each_recipes_command(path):
    page = (STUDY / "README.md").read_text(encoding="utf-8")
    assert f"clipalign compare examples/study/{path.name} -o studies/{path.stem}" in page
    assert f"clipalign compare examples/study/{path.name} -o studies/{path.stem}" in (
        path.read_text(encoding="utf-8")
    )


def test_the_page_names_scripts_that_exist():
    page = (STUDY / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"python examples/study/(\w+)\.py", page))
    assert named == {p.stem for p in STUDY.glob("*.py")}


def test_kl_per_image_gives_quantiles_by_method(tmp_path):
    module = script("kl_per_image")
    kl = {"kto": [np.arange(101.0), np.arange(101.0)], "reference": [np.zeros(101)]}
    groups = [f"drawing {i}" for i in range(101)]
    text = module.table(kl, groups, "2 seeds (0, 1)", Path("studies/beta"))
    assert "each of 101 clean images, in nats; 2 seeds (0, 1)." in text
    assert "`python examples/study/kl_per_image.py studies/beta`" in text
    row = re.search(
        r"\| kto \| 2 \| 50.0000 \[(.*?), (.*?)\] \| 10.0000 \| 25.0000 \| 50.0000", text
    )
    assert 40 < float(row[1]) < 50 < float(row[2]) < 60
    pytest.importorskip("matplotlib")
    module.plot(kl, groups, "2 seeds (0, 1)", tmp_path / "kl.svg")
    drawn = (tmp_path / "kl.svg").read_text()
    assert "101 clean images; 2 seeds (0, 1)" in drawn
    assert "95 % interval over drawings" in drawn
    assert "kto" in (tmp_path / "kl.svg").read_text()


def test_results_are_collected_with_what_a_reader_must_know(study, tmp_path):
    pytest.importorskip("matplotlib")
    studies, results = tmp_path / "studies", tmp_path / "results"
    write_recipe(study)
    shutil.copytree(study.output, studies / "beta")
    (studies / "figures").mkdir()
    (studies / "figures" / "police.txt").write_text("who is found")
    module = script("collect")
    module.collect(studies, results)
    page = (results / "beta" / "README.md").read_text()
    heading = next(i for i, line in enumerate(page.splitlines()) if line.startswith("## "))
    caption = page.splitlines()[heading + 2]
    for words in (
        "`clipalign compare examples/study/beta.yaml -o studies/beta`",
        "n = 4 images",
        "2 seeds (0, 1)",
        "95 % interval over images",
    ):
        assert words in caption
    assert "Failed: broken-s0: DataError: No data." in page
    index = (results / "README.md").read_text()
    links = re.findall(r"\]\((.*?)\)", index)
    assert {"beta/README.md", "beta/kl-per-image.svg", "figures/police.txt"} <= set(links)
    assert all((results / link).exists() for link in links)
    assert "| robust | 2 | 0.1500" in (results / "beta" / "kl-per-image.md").read_text()  # 1.2/8
    first = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    (results / "beta" / "front-of-a-study-that-changed.svg").write_text("")
    module.collect(studies, results)
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == first


def test_curves_over_t_as_a_table_by_hand():
    module = script("over_t")

    def curve(*values):
        """Of 50 groups, every second resample 0.1 more or less."""
        around = np.tile([-0.1, 0.1], 100)
        return Curve(tuple(Point(value, value + around) for value in values), 50)

    curves = {"OD": [curve(0.5, 0.6), curve(0.7, 0.6)], "OCR": [curve(0.1, 0.2)] * 2}
    text = module.table(curves, [0.0, 1.0], "9 images", "2 seeds (0, 1)", "python over_t.py")
    assert text.startswith("9 images; 2 seeds (0, 1); percent; mean ± sample standard deviation")
    assert "Made by `python over_t.py`." in text
    assert "| 0 | 60.0 ± 14.1 [50.0, 70.0] | 10.0 ± 0.0 [0.0, 20.0] |" in text
    assert "| 1 | 60.0 ± 0.0 [50.0, 70.0] | 20.0 ± 0.0 [10.0, 30.0] |" in text
    one = module.table({"OD": curves["OD"][:1]}, [0.0, 1.0], "9 images", "1 seed (0)", "x")
    assert "| 0 | 50.0 [40.0, 60.0] |" in one
    assert "standard deviation" not in one
