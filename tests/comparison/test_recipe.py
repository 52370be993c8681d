"""A recipe becomes cells; whatever is wrong with it is said at once, in words."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest

from clipalign.cli.app import run as run_command
from clipalign.cli.compare import compare as compare_command
from clipalign.comparison.plan import make_plan
from clipalign.comparison.recipe import Method, folder_name, read_recipe
from clipalign.errors import ConfigError, UsageError
from clipalign.plain_yaml import parse_yaml

BASE = {"task": "typographic", "train": {"steps": 4, "batch_size": 8}}


def plan(tmp_path, **recipe):
    content = {"base": BASE, "methods": {"kto": {"set": {}}}, **recipe}
    return make_plan(content, tmp_path / "out", check_options=False)


def test_a_grid_of_methods_seeds_and_models(tmp_path):
    found = plan(
        tmp_path,
        models=["emoji-tiny", "random:RN50"],
        seeds=[0, 7],
        methods={
            "reference": {"model": "base"},
            "kto": {"set": {"method": "kto"}},
            "half": {"of": "kto", "transform": {"method": "interpolate", "alpha": 0.5}},
            "other": {"model": "ViT-B-32/openai"},
        },
    )
    assert [(c.name, c.kind, c.seed, c.source) for c in found.cells] == [
        ("emoji-tiny-reference", "model", None, None),
        ("emoji-tiny-kto-s0", "train", 0, None),
        ("emoji-tiny-kto-s7", "train", 7, None),
        ("emoji-tiny-half-s0", "transform", 0, "emoji-tiny-kto-s0"),
        ("emoji-tiny-half-s7", "transform", 7, "emoji-tiny-kto-s7"),
        ("other", "model", None, None),
        ("random-RN50-reference", "model", None, None),
        ("random-RN50-kto-s0", "train", 0, None),
        ("random-RN50-kto-s7", "train", 7, None),
        ("random-RN50-half-s0", "transform", 0, "random-RN50-kto-s0"),
        ("random-RN50-half-s7", "transform", 7, "random-RN50-kto-s7"),
    ]
    trained = found.cells[2].config
    assert (trained.seed, trained.model, trained.output) == (7, "emoji-tiny", None)


def test_set_overrides_by_dotted_key_or_by_mapping_and_adds_to_what_is_there(tmp_path):
    methods = {
        "a": {"set": {"train.averaging": "none", "method_options.beta": 2}},
        "b": {"set": {"train": {"averaging": "none"}, "method_options": {"beta": 2}}},
    }
    a, b = (c.config for c in plan(tmp_path, methods=methods).cells)
    assert a == b
    assert (a.train.averaging, a.train.steps, a.method_options) == ("none", 4, {"beta": 2})


def test_a_grid_within_a_method_is_one_method_for_each_combination():
    method = Method.model_validate(
        {
            "set": {"method": "dpo"},
            "grid": {"method_options.beta": [0.5, 1], "train.averaging": ["bma", "none"]},
        }
    )
    spread = method.spread("dpo")
    assert list(spread) == [
        "dpo beta=0.5 averaging=bma", "dpo beta=0.5 averaging=none",
        "dpo beta=1 averaging=bma", "dpo beta=1 averaging=none",
    ]  # fmt: skip
    assert spread["dpo beta=1 averaging=none"].set == {
        "method": "dpo", "method_options.beta": 1, "train.averaging": "none",
    }  # fmt: skip


def test_no_method_takes_the_name_of_another():
    close = {"train.lr": [0.00012345671, 0.00012345672, 1e-5]}
    assert list(Method(set={}, grid=close).spread("kto")) == [
        "kto lr=0.00012345671", "kto lr=0.00012345672", "kto lr=1e-05",
    ]  # fmt: skip
    dpo = {"set": {"method": "dpo"}, "grid": {"method_options.beta": [0.5, 1]}}
    with pytest.raises(ConfigError, match=r"another method 'dpo beta=0\.5'"):
        read_recipe({"methods": {"dpo beta=0.5": {"set": {}}, "dpo": dpo}})
    with pytest.raises(ConfigError, match=r"another method 'dpo beta=0\.5'"):
        read_recipe({"methods": {"dpo": dpo, "dpo beta=0.5": {"set": {}}}})
    dpo = {**dpo, "grid": {"method_options.beta": [1, 1.0]}}
    with pytest.raises(ConfigError, match=r"methods\.dpo\.grid: two .* 'dpo beta=1'"):
        read_recipe({"methods": {"dpo": dpo}})


def test_an_edit_of_the_bare_model_has_one_outcome_unless_it_draws_lots(tmp_path, make_package):
    make_package(
        "clipalign-lots",
        """
        import clipalign
        from pydantic import BaseModel

        class Lots:
            class Options(BaseModel):
                seed: int = 0
            def __init__(self, **options):
                self.options = self.Options(**options)

        @clipalign.hookimpl
        def register_transforms(register):
            register("lots", "clipalign_lots:Lots", summary="Draws lots.")
        """,
    )
    content = {
        "base": BASE,
        "seeds": [3, 4],
        "methods": {
            "projected": {"transform": {"method": "project"}},
            "lots": {"transform": {"method": "lots"}},
            "fixed": {"transform": {"method": "lots", "seed": 9}},
        },
    }
    cells = make_plan(content, tmp_path / "out").cells
    assert [(c.name, dict(c.transform)) for c in cells] == [
        ("projected", {"method": "project"}),
        ("lots-s3", {"method": "lots", "seed": 3}),
        ("lots-s4", {"method": "lots", "seed": 4}),
        ("fixed", {"method": "lots", "seed": 9}),
    ]


def test_the_axes_come_from_the_suite_or_the_recipe(tmp_path):
    found = plan(tmp_path, base={**BASE, "task": "gender"}).evaluations
    assert [e.suite for e in found] == ["gender", "retention"]
    assert found[0].dataset == "emoji-people"
    assert [a.metric for a in found[0].axes_of_suite()] == [
        "mean_abs_bias_at_k", "activity_accuracy", "retention_accuracy",
    ]  # fmt: skip
    own = [{"suite": "reading", "axes": ["od", {"metric": "ocr", "better": "lower"}]}]
    [found] = plan(tmp_path, evaluate=own).evaluations
    assert [(a.metric, a.better) for a in found.axes_of_suite()] == [("od", None), ("ocr", "lower")]


def test_a_concept_of_ones_own_is_measured_by_it(tmp_path):
    base = {
        **BASE, "task": "concept", "task_options": {"concept": "gender", "balance": False},
        "dataset": "emoji-people", "trainable": "head",
    }  # fmt: skip
    found = plan(tmp_path, base=base).evaluations
    assert [(e.suite, e.dataset, e.options) for e in found] == [
        ("gender", "emoji-people", {"concept": "gender"}), ("retention", None, {}),
    ]  # fmt: skip
    own = [{"suite": "gender", "options": {"k": 3}}]
    [found] = plan(tmp_path, base=base, evaluate=own).evaluations
    assert found.options == {"concept": "gender", "k": 3}


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"metods": {}}, "metods: unknown key. Did you mean 'methods'"),
        ({"methods": {}}, "methods: "),
        ({"methods": {"a": {}}}, "methods.a.says one of set (a training), transform"),
        ({"methods": {"a": {"sett": {}}}}, "methods.a.sett: unknown key. Did you mean 'set'?"),
        ({"methods": {"a": {"set": {}, "model": "base"}}}, "not set and model"),
        ({"methods": {"a": {"transform": {"alpha": 1}}}}, "transform needs a method"),
        (
            {"methods": {"kto": {"set": {}}, "b": {"of": "kot", "transform": {"method": "power"}}}},
            "of names 'kot', which is no training or transform listed before it. Did you mean",
        ),
        ({"baseline": "ktoo"}, "baseline names 'ktoo', which is no method. Did you mean 'kto'?"),
        ({"evaluate": [{"suite": "tipographic"}]}, "Did you mean 'typographic'?"),
        ({"evaluate": [{"suite": "gender"}] * 2}, "two are called 'gender'; give each a name"),
        ({"seeds": [1, 1]}, "seeds: one stands there twice"),
        ({"methods": {"a": {"set": {"method": "kot"}}}}, "There is no objective 'kot'"),
        ({"methods": {"a": {"set": {"train.stepz": 1}}}}, "train.stepz: unknown key"),
        ({"methods": {"a": {"set": {"seed.x": 1}}}}, "seed holds a value and no keys"),
        ({"methods": {"a": {"transform": {"method": "powr"}}}}, "Did you mean 'power'?"),
        ({"methods": {"a b": {"set": {}}, "a-b": {"set": {}}}}, "name their methods differently"),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path, recipe, words):
    base = BASE if "seed.x" not in str(recipe) else {**BASE, "seed": 1}
    with pytest.raises((ConfigError, UsageError)) as caught:
        plan(tmp_path, **{"base": base, **recipe})
    assert words in str(caught.value)


def test_options_are_checked_before_anything_is_loaded(tmp_path):
    methods = {
        "a": {"set": {"method": "dpo", "method_options.betta": 1}},
        "b": {"transform": {"method": "project", "calibrations": 0}},
    }
    evaluate = [{"suite": "gender", "options": {"kk": 1}}]
    content = {"base": BASE, "methods": methods, "evaluate": evaluate}
    with pytest.raises(ConfigError) as caught:
        make_plan(content, tmp_path / "out")
    for words in ("'beta'", "'calibration'", "evaluate.gender.kk: unknown key"):
        assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_comparison_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"it has no recipe\.yaml"):
        make_plan(tmp_path)


def test_names_of_folders():
    assert folder_name("kto β=0.5 / raw") == "kto-β=0.5-raw"
    assert folder_name("../..") == "_"


def test_dry_run_lists_the_cells_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(
        json.dumps({"base": BASE, "seeds": [0, 1], "methods": {"kto": {"set": {}}}})
    )
    assert run_command(["compare", "r.yaml", "--dry-run", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["output"] == "comparisons/r"
    assert [(c["name"], c["state"]) for c in document["cells"]] == [
        ("kto-s0", "missing"), ("kto-s1", "missing"),
    ]  # fmt: skip
    assert run_command(["compare", "r.yaml", "--dry-run"]) == 0
    assert "kto-s1" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["r.yaml"]


def test_a_missing_recipe_is_named(capsys):
    assert run_command(["compare", "nowhere.yaml"]) == 3
    said = capsys.readouterr().err
    assert "There is no file nowhere.yaml. The recipe of a comparison has at least:" in said
    assert "config cp" not in said
    recipe = dedent(said.split("at least:")[1].split("Longer")[0])
    assert list(read_recipe(parse_yaml(recipe)).methods) == ["kto", "dpo"]  # and it is one


def test_the_configuration_of_a_training_is_told_from_a_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command(["config", "cp", "typographic", "r.yaml"]) == 0
    assert run_command(["compare", "r.yaml"]) == 3
    said = capsys.readouterr().err
    assert "r.yaml is the configuration of one training (clipalign train --config r.yaml)" in said
    assert "unknown key" not in said
    (tmp_path / "few.yaml").write_text("title: Few\n")
    assert run_command(["compare", "few.yaml"]) == 3
    assert "There are no methods in few.yaml." in capsys.readouterr().err


def test_an_edit_that_draws_lots_has_a_cell_a_seed_whatever_is_checked(tmp_path, make_package):
    make_package(
        "clipalign-dice",
        """
        from pydantic import BaseModel

        from clipalign import hookimpl

        class Dice:
            class Options(BaseModel):
                seed: int = 0

        @hookimpl
        def register_transforms(register):
            register("dice", "clipalign_dice:Dice", summary="Draws lots.")
        """,
    )
    content = {
        "base": BASE,
        "seeds": [0, 7],
        "methods": {"dice": {"transform": {"method": "dice"}}},
        "baseline": "dice",
    }
    for check in (True, False):
        found = make_plan(content, tmp_path / "out", check_options=check)
        assert [c.name for c in found.cells] == ["dice-s0", "dice-s7"]


def test_the_recipe_that_the_help_shows_is_one():
    text = dedent((compare_command.__doc__ or "").partition("A recipe:")[2].lstrip("\n"))
    recipe = read_recipe(parse_yaml(text))
    assert list(recipe.methods) == ["reference", "kto", "half"]
    assert recipe.baseline == "kto"
