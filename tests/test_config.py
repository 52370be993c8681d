"""A configuration is checked as a whole, from files that are not trusted."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from clipalign import plain_yaml
from clipalign.config import RunConfig, TrainConfig, load_config
from clipalign.config_text import dump_config
from clipalign.errors import ConfigError
from clipalign.plain_yaml import MAX_BYTES

RECIPES = [r for r in files("clipalign.recipes").iterdir() if r.name.endswith(".yaml")]


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(*args, **flags):
    with pytest.raises(ConfigError) as caught:
        load_config(*args, **flags)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def models(model=RunConfig):
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from models(field.annotation)


def test_nothing_given_is_the_defaults():
    assert load_config() == RunConfig()


def test_a_training_is_as_long_as_its_data_and_its_task_say(tmp_path):
    """Two passes of the embedded pictures, forty of a concept's head; of a user's own, three."""
    folder = {"dataset": str(tmp_path)}
    assert RunConfig().train.epochs == 2
    assert RunConfig(trainable="head").train.epochs == 2
    assert RunConfig(**folder).train.epochs == 3
    assert RunConfig(data="prefs").train.epochs == 3
    assert RunConfig(task="gender").train.epochs == 40
    assert RunConfig(task="gender", trainable="last:2", **folder).train.epochs == 3
    assert RunConfig(train={"epochs": 5}).train.epochs == 5


def test_file_then_flags_then_set(tmp_path):
    path = write(tmp_path, "seed: 1\nmethod: dpo\ntrain: {lr: 0.1, epochs: 2}\n")
    config = load_config(
        path, ["train.epochs=7", "seed=4"], seed=3, method=None, **{"train.batch_size": 9}
    )
    assert (config.seed, config.method) == (4, "dpo")
    assert (config.train.lr, config.train.epochs, config.train.batch_size) == (0.1, 7, 9)


def test_another_method_does_not_take_the_options_of_the_file_s(tmp_path):
    path = write(tmp_path, "method: kto\nmethod_options: {beta: 0.2, desirable_weight: 2}\n")
    assert load_config(path).method_options["beta"] == 0.2
    assert load_config(path, method="kto").method_options["beta"] == 0.2
    for config in (load_config(path, method="rlhf"), load_config(path, ["method=rlhf"])):
        assert config.method_options == {}
    given = load_config(path, ["method=dpo", "method_options={beta: 3}"], check_options=True)
    assert given.method_options == {"beta": 3}


def test_set_values_are_yaml():
    config = load_config(
        None,
        [
            "train.lr=1e-5",
            "train.clip_grad_norm=null",
            "data=a=b",
            "method_options={beta: 0.5}",
            "task_options.styles=[note, outlined]",
            "output=",
        ],
    )
    assert config.train.lr == 1e-5
    assert config.train.clip_grad_norm is None
    assert str(config.data) == "a=b"
    assert config.method_options == {"beta": 0.5}
    assert config.task_options == {"styles": ["note", "outlined"]}
    assert config.output is None


def test_every_problem_is_reported_at_once_with_its_key(tmp_path):
    path = write(
        tmp_path,
        """
        metod: dpo
        method: kot
        regulariser: forward_kl
        trainable: last:0
        seed: -1
        train.steps: 30
        train: {lrr: 1e-5, epochs: many, schedule: cosin, lr: .nan}
        """,
    )
    found = problems(path, ["train.batch_size=0", "oops", "task=[", "seed.x=1"])
    expected = [
        r"--set oops: must be KEY=VALUE",
        r"--set task=\[: line 1",
        r"--set seed.x=1: seed holds a value",
        r"metod: unknown key. Did you mean 'method'",
        r"train.steps: in a file this is written train: {steps: …}",
        r"method: There is no objective 'kot'. Did you mean 'kto'",
        r"regulariser: There is no regulariser 'forward_kl'. Did you mean 'forward-kl'",
        r"trainable: must be image-encoder, last:K, lora:R or head",
        r"seed: should be greater than or equal to 0 \(got -1\)",
        r"train.lrr: unknown key. Did you mean 'lr'",
        r"train.epochs: must be a whole number.*\(got 'many'\)",
        r"train.schedule: should be 'cosine' or 'constant' \(got 'cosin'\)",
        r"train.lr: should be a finite number",
        r"train.batch_size: should be greater than or equal to 1 \(got 0\)",
    ]
    for pattern in expected:
        assert [line for line in found if re.match(pattern, line)], pattern
    assert len(found) == len(expected)


@pytest.mark.parametrize("trainable", ["image-encoder", "head", "last:4", "lora:16"])
def test_what_can_be_trained(trainable):
    assert RunConfig(trainable=trainable).trainable == trainable


@pytest.mark.parametrize("trainable", ["last", "last:", "last:x", "lora:-1", "all", "head ", ""])
def test_what_cannot_be_trained(trainable):
    with pytest.raises(ValidationError, match="must be image-encoder"):
        RunConfig(trainable=trainable)


def test_a_configuration_does_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().seed = 3


def test_options_are_checked_with_the_rest_when_asked(make_package):
    make_package(
        "clipalign-good",
        """
        import clipalign

        @clipalign.hookimpl
        def register_objectives(register):
            register("good", "good_target:Good", summary="Good.")

        @clipalign.hookimpl
        def register_tasks(register):
            register("good", "good_target:Task", summary="Good.")

        @clipalign.hookimpl
        def register_datasets(register):
            register("good", "good_target:Task", summary="Good.")
        """,
    )
    (make_package.folder / "good_target.py").write_text(
        "from pydantic import BaseModel, ConfigDict\n"
        "class Good:\n"
        "    class Options(BaseModel):\n"
        "        model_config = ConfigDict(extra='forbid')\n"
        "        beta: float = 1\n"
        "class Task:\n"
        "    def __init__(self, *, count: int = 3, root: str = '.'): ...\n"
    )
    names = ["method=good", "task=good", "dataset=good"]
    assert load_config(None, names, check_options=True).method == "good"
    found = problems(
        None,
        [
            *names,
            "sed=1",
            "method_options={betta: 1, beta: x}",
            "task_options.cuont=1",
            "dataset_options.count=x",
        ],
        check_options=True,
    )
    assert [line.split(":")[0] for line in found] == [
        "sed",
        "method_options.beta",
        "method_options.betta",
        "task_options.cuont",
        "dataset_options.count",
    ]
    assert "Did you mean 'beta'" in found[2]
    assert "Did you mean 'count'" in found[3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x [1]\nb: *x", "line 2: aliases"),
        ("seed: !!python/object/apply:os.system ['echo hacked']", "could not determine a constr"),
        ("seed: 1\nseed: 2", "line 2: key 'seed' stands there twice"),
        ("on: 1", "line 1: a key must be text"),
        ("? [a]\n: 1", "a key must be text"),
        ("[" * 100, "nested too deeply"),
        ("a: [1", "line 1"),
        ("seed: \x00", "special characters"),
        ("- 1\n- 2", "holds no keys"),
        ("--- 1\n--- 2", "line 2"),
        ("#" * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        load_config(write(tmp_path, text))


def test_files_that_are_no_text_or_not_there(tmp_path):
    with pytest.raises(ConfigError, match="There is no file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: Zoë".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not a configuration: 'utf-8' codec"):
        load_config(tmp_path / "latin.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfseed: 5\n")
    assert load_config(tmp_path / "bom.yaml").seed == 5
    (tmp_path / "empty.yaml").write_bytes(b"")
    assert load_config(tmp_path / "empty.yaml") == RunConfig()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
options = st.dictionaries(st.text(max_size=8), plain, max_size=3)


@settings(max_examples=50, deadline=None)
@given(
    options=options,
    lr=st.none() | st.floats(min_value=1e-300, max_value=1e300),
    seed=st.integers(0, 2**32 - 1),
    model=st.text(min_size=1, max_size=12),
    comments=st.booleans(),
)
def test_what_is_written_reads_back_equal(tmp_path_factory, options, lr, seed, model, comments):
    config = RunConfig(
        model=model, method_options=options, seed=seed, train=TrainConfig(lr=lr), data="a/b"
    )
    text = dump_config(config, comments=comments)
    assert RunConfig.model_validate(yaml.safe_load(text)) == config
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    assert load_config(path) == config


@pytest.mark.parametrize("model", list(models()), ids=lambda m: m.__name__)
def test_every_key_says_what_it_is(model):
    for name, field in model.model_fields.items():
        assert field.description, name
        assert field.description[-1] in "?.", name


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.name)
def test_shipped_recipes_are_valid_and_commented(recipe, tmp_path):
    text = recipe.read_text(encoding="utf-8")
    load_config(write(tmp_path, text))
    assert text.startswith("# ")


@pytest.mark.parametrize("text", ["a: [1, x]\nb: 1e-5", "a: b: c", "a: {", "\t a: 1", "a: &x 1"])
def test_yaml_reads_and_complains_alike_with_libyaml_and_without(monkeypatch, text) -> None:
    found = []
    for fast in (None, plain_yaml._FAST):
        monkeypatch.setattr(plain_yaml, "_FAST", fast)
        try:
            found.append(plain_yaml.parse_yaml(text))
        except ValueError as error:
            found.append(str(error))
    assert found[0] == found[1]


def test_options_of_a_dataset_are_those_of_the_task_s_own_where_none_is_named():
    config = load_config(
        task="gender", overrides=["dataset_options={test_views: 2}"], check_options=True
    )
    assert config.dataset_options == {"test_views": 2}
    with pytest.raises(ConfigError, match=r"dataset_options\.test_views: unknown key"):
        load_config(
            dataset="emoji", overrides=["dataset_options={test_views: 2}"], check_options=True
        )


@pytest.mark.parametrize("value", ["!!bool maybe", "!!timestamp soon", "!!int many", "!!float x"])
def test_a_value_that_does_not_fit_its_tag_is_said(tmp_path, value):
    path = tmp_path / "c.yaml"
    path.write_text(f"seed: {value}\n")
    with pytest.raises(ConfigError, match="is not a configuration"):
        load_config(path)


def test_a_place_that_is_missing_is_said_as_datasets_check_says_it(tmp_path):
    asked = (
        "dataset: The dataset 'oxford-pets' is read from disk: say where it lies, as oxford-pets:"
    )
    assert problems(None, ["dataset=oxford-pets"], check_options=True) == [f"{asked}PATH."]
    # what is given as data goes before, and its options are the table's
    table = tmp_path / "my.csv"
    table.write_text("image,chosen,rejected\n")
    given = {"task": "preferences", "data": table}
    load_config(None, ["dataset_options.root=photos"], check_options=True, **given)
    (found,) = problems(None, ["dataset_options.rot=x"], check_options=True, **given)
    assert found == "dataset_options.rot: unknown key. Did you mean 'root'?"


def test_what_is_missing_says_what_it_is_for_and_what_is_wrong_is_said_once():
    (found,) = problems(None, ["task=concept"], check_options=True)
    assert found == (
        "task_options.concept: must be given: A concept file (YAML), or one that ships: gender, "
        "which `clipalign config cp concept/gender mine.yaml` copies to edit."
    )
    (found,) = problems(None, ["task_options.styles=[foo]"], check_options=True)
    assert found == "task_options.styles.0: should be 'outlined' or 'note' (got 'foo')"
    (found,) = problems(None, ["task_options.styles=[]"], check_options=True)
    assert found == "task_options.styles: must have 1 entry at least (got [])"


def test_set_takes_an_option_by_what_it_is_of():
    config = load_config(None, ["dataset.concepts=20", "task.styles=[note]", "method.beta=0.5"])
    assert config.dataset_options == {"concepts": 20}
    assert config.task_options == {"styles": ["note"]}
    assert config.method_options == {"beta": 0.5}
    assert config == load_config(
        None,
        ["dataset_options.concepts=20", "task_options.styles=[note]", "method_options.beta=0.5"],
    )


@pytest.mark.parametrize("overrides", [(), ("dataset.root=photos",)])
def test_data_that_is_no_table_is_told_what_a_table_is(overrides, tmp_path):
    (tmp_path / "my.json").write_text("[]")
    with pytest.raises(ConfigError) as refused:
        load_config(None, overrides, check_options=True, data=str(tmp_path / "my.json"))
    assert str(refused.value).splitlines()[1:] == [
        f"  data: {tmp_path / 'my.json'} is neither a table of judgements (.csv, .tsv, .jsonl, "
        ".parquet) nor a folder that `clipalign prepare` made"
    ]
