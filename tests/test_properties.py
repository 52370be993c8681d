"""Parsers and configurations: any input gives a value that survives a round trip, or an error.

`CLIPALIGN_EXAMPLES=2000 python -m pytest tests/test_properties.py` tries more than the default run.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import shutil

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clipalign.cli.app import run
from clipalign.cli.flags import options_of
from clipalign.cli.run_facts import Condition
from clipalign.config import RunConfig, TrainConfig, build_config, load_config
from clipalign.config_text import dump_config
from clipalign.datasets.locate import locate_dataset
from clipalign.datasets.rows import read_rows
from clipalign.errors import ClipAlignError, ConfigError, DataError, UsageError
from clipalign.evals.results import read_result
from clipalign.evals.results import read_rows as result_rows
from clipalign.files import canonical_json, sha256_bytes
from clipalign.models.spec import parse_model_spec
from clipalign.models.trainable import parse_trainable
from clipalign.options import component
from clipalign.plain_yaml import parse_yaml
from clipalign.tasks.concepts.file import load_concept
from clipalign.tasks.manifest import read_manifest
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.tasks.prepare import prepare
from clipalign.tasks.shards import parse_shard
from clipalign.text import printable, sheet_cell
from clipalign.transforms.scan_values import MAX_POINTS, parse_scan

EXAMPLES = int(os.environ.get("CLIPALIGN_EXAMPLES", 40))
some = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES == 40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

anything = st.text(st.characters(codec=None), max_size=40)  # lone surrogates too
words = st.text(st.characters(codec="utf-8"), max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
mostly = st.sampled_from(list("0123456789.:-+/=,[]{}'\" \n\t#&*!|>%@`eEinfa")) | st.characters()
near = st.text(mostly, max_size=30)
keys = st.sampled_from(["seed", "train.lr", "task", "", "a.b", "."])


def or_refused(function, *arguments, kind=ClipAlignError):
    """What it returns; None where it refuses in words."""
    try:
        return function(*arguments)
    except kind as error:
        message = str(error)
    assert message.strip()
    return None


@some
@given(
    st.dictionaries(st.sampled_from([*RunConfig.model_fields, "x"]), plain, max_size=4),
    st.dictionaries(st.sampled_from([*TrainConfig.model_fields, "x"]), plain, max_size=3),
)
def test_a_configuration_round_trips_or_is_refused(tmp_path, tree, train):
    if train:
        tree = {**tree, "train": train}
    config = or_refused(build_config, tree, "tree")
    if config is not None:
        (tmp_path / "c.yaml").write_text(dump_config(config), encoding="utf-8")
        assert load_config(tmp_path / "c.yaml") == config


@some
@given(st.lists(st.builds("{}={}".format, keys, near) | anything))
def test_overrides_give_a_configuration_or_are_refused(overrides):
    config = or_refused(load_config, None, overrides)
    assert config is None or build_config(config.model_dump(), "again") == config


@some
@given(plain)
def test_plain_values_survive_yaml(tree):
    text = yaml.safe_dump(tree, sort_keys=False)
    assert str(parse_yaml(text)) == str(tree)  # as text: NaN is not itself


@some
@given(near | anything)
def test_yaml_is_read_or_refused_in_words(text):
    tree = or_refused(parse_yaml, text, kind=ValueError)
    assert str(parse_yaml(yaml.safe_dump(tree, sort_keys=False))) == str(tree)


@some
@given(
    st.sampled_from([".csv", ".jsonl", ".parquet"]),
    st.binary(max_size=200) | near.map(lambda t: t.encode("utf-8", "surrogatepass")),
)
def test_a_table_of_any_bytes_is_read_or_refused(tmp_path, ending, data):
    path = tmp_path / f"t{ending}"
    path.write_bytes(data)
    for row in or_refused(read_rows, path) or []:
        assert all(isinstance(c, str) for pair in row.cells.items() for c in pair)
        json.dumps(dict(row.cells)).encode()


@some
@given(st.lists(st.fixed_dictionaries({"image": words, "label": words}), min_size=1, max_size=5))
def test_rows_of_text_come_back_from_either_format(tmp_path, table):
    with (tmp_path / "t.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in table)
    assert [dict(row.cells) for row in read_rows(tmp_path / "t.jsonl")] == table
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ["image", "label"])
    writer.writeheader()
    writer.writerows(table)
    (tmp_path / "t.csv").write_bytes(buffer.getvalue().encode())
    assert [dict(row.cells) for row in read_rows(tmp_path / "t.csv")] == table


@some
@given(
    st.sampled_from(["", "local-dir:", "hf-dir:", "random:", "hf-hub:", "ViT-B-32/", "./"]),
    near | anything,
)
def test_a_model_spec_is_parsed_or_refused(start, rest):
    spec = or_refused(parse_model_spec, start + rest)
    if spec is not None:
        assert str(spec) == (start + rest).strip()
        assert parse_model_spec(str(spec)) == spec


@some
@given(st.sampled_from(["emoji", "emoji:", "oxford-pets:", "folder:", ""]), near | anything)
def test_a_dataset_is_located_or_refused(start, rest):
    found = or_refused(locate_dataset, start + rest, {})
    if found is not None and start.endswith(":"):
        assert rest in found[1].values()


number = st.floats().map(str) | st.integers(-(10**400), 10**400).map(str) | near


@some
@given(st.lists(number, max_size=4).map(":".join) | near)
def test_a_scan_is_a_rising_list_or_refused(text):
    found = or_refused(parse_scan, text)
    if found is not None:
        assert 1 <= len(found) <= MAX_POINTS
        assert all(map(math.isfinite, found))
        assert found == sorted(found)


@some
@given(near | anything)
def test_small_languages_of_the_command_line_parse_or_refuse(text):
    if (part := or_refused(parse_trainable, text)) is not None:
        assert parse_trainable(str(part)) == part
    if (shard := or_refused(parse_shard, text)) is not None:
        assert shard.number < shard.count
    if (condition := or_refused(Condition.parse, text)) and condition.sign in ("=", "!="):
        assert condition.holds({condition.key: condition.value}) is (condition.sign == "=")
    or_refused(load_concept, text)
    for key in ("beta", ""):
        or_refused(options_of, [f"{key}={text}", text], "beta=1")


@some
@given(st.dictionaries(st.from_regex("[abc.]{0,4}[abc]", fullmatch=True), plain, max_size=3))
def test_options_on_the_command_line_round_trip(options):
    written = [f"{key}={yaml.safe_dump(value, sort_keys=False)}" for key, value in options.items()]
    own, of_dataset = options_of([*written, *(f"dataset.{each}" for each in written)], "a=1")
    assert str(own) == str(of_dataset) == str(options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    for label in ("apple", "pear"):
        (folder / "photos" / label).mkdir(parents=True)
        Image.new("RGB", (48, 48), "green").save(folder / "photos" / label / "1.png")
    prepare("typographic", folder / "photos", folder / "prefs")
    return folder / "prefs"


def sealed(folder, tree):
    """Write a manifest with its hashes put right."""
    table = folder / "train" / "metadata.jsonl"
    if isinstance(tree.get("files"), dict):
        tree["files"]["train/metadata.jsonl"] = sha256_bytes(table.read_bytes())
    with contextlib.suppress(ValueError):  # NaN has no hash
        content = {k: v for k, v in tree.items() if k != "content_sha256"}
        tree["content_sha256"] = sha256_bytes(canonical_json(content))
    (folder / "manifest.yaml").write_text(yaml.safe_dump(tree))


@some
@given(st.data())
def test_a_manifest_with_other_values_is_a_set_or_refused(tmp_path, made, data):
    tree = yaml.safe_load((made / "manifest.yaml").read_text())
    inner = data.draw(
        st.sampled_from([tree, tree["counts"], tree["counts"]["train"], tree["files"]])
    )
    inner[data.draw(st.sampled_from([*inner, "../x"]))] = data.draw(plain)
    shutil.copytree(made, tmp_path / "s", dirs_exist_ok=True)
    sealed(tmp_path / "s", tree)
    manifest = or_refused(read_manifest, tmp_path / "s")
    if manifest is not None:
        assert manifest.sealed() == manifest
    or_refused(PreferenceSet.open, tmp_path / "s")


@some
@given(st.data())
def test_a_row_with_other_values_is_read_or_refused(tmp_path, made, data):
    shutil.copytree(made, tmp_path / "s", dirs_exist_ok=True)
    table = tmp_path / "s" / "train" / "metadata.jsonl"
    rows = [json.loads(line) for line in (made / "train/metadata.jsonl").read_bytes().splitlines()]
    row = data.draw(st.sampled_from(rows))
    row[data.draw(st.sampled_from([*row, "x"]))] = data.draw(plain)
    table.write_text("".join(json.dumps(r) + "\n" for r in rows))
    sealed(tmp_path / "s", yaml.safe_load((made / "manifest.yaml").read_text()))
    found = or_refused(PreferenceSet.open, tmp_path / "s")
    for r in found.rows("train") if found else ():
        assert isinstance(r.key, str)
        assert r.label is None or isinstance(r.label, str)
        or_refused(found.read_image, r.image)


@some
@given(st.binary(max_size=100) | plain.map(lambda tree: json.dumps(tree).encode()))
def test_a_result_of_anything_else_is_refused(tmp_path, data):
    path = tmp_path / "r.json"
    path.write_bytes(data)
    for read in (read_result, result_rows):
        with pytest.raises(DataError):
            read(path)


@some
@given(anything)
def test_nothing_acts_in_a_terminal_or_a_sheet(text):
    shown = printable(text)
    assert all(c.isprintable() or c in "\n\t\u200c\u200d" for c in shown)
    shown.encode()
    cell = sheet_cell(text)
    assert cell.lstrip()[:1] not in ("=", "+", "-", "@")
    assert sheet_cell(-1.5) == -1.5


def test_a_scan_whose_ends_lie_too_far_apart_is_refused():
    with pytest.raises(UsageError, match="at most"):
        parse_scan("-1e308:1e308:1")


@pytest.mark.parametrize("key", ["objective", "trackers"])
def test_a_list_that_is_none_is_a_problem_like_any_other(key):
    with pytest.raises(ConfigError, match=key):
        build_config({key: 7}, "tree", check_options=True)


def test_pipes_and_devices_are_refused_unread(tmp_path, made):
    shutil.copytree(made, tmp_path / "s")
    for name in ("manifest.yaml", "train/metadata.jsonl"):
        path = tmp_path / "s" / name
        kept = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(DataError, match="not a file"):
            PreferenceSet.open(tmp_path / "s")
        path.unlink()
        path.write_bytes(kept)
    os.mkfifo(tmp_path / "train-0.tar")
    with pytest.raises(DataError, match="no shards"):
        component("datasets", "webdataset", path=tmp_path / "train-0.tar")


def test_what_a_usage_error_quotes_does_not_act(capsys):
    assert run(["runs", "list", "--wher\x1b]52;c;eA==\x07"]) == 2
    assert "\x1b" not in capsys.readouterr().err
