"""Lists in a configuration: a weighted sum in place of `method`, and trackers."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipalign.config import RunConfig, load_config
from clipalign.config_text import dump_config
from clipalign.errors import ConfigError
from clipalign.training.defaults import regulariser_weight

SUM = "objective=[{dpo: {weight: 0.7, beta: 0.1}}, {kto: {weight: 0.3}}]"
TRACKER = """
import clipalign

@clipalign.hookimpl
def register_trackers(register):
    register("diary", "clipalign_page_target:Diary", summary="Writes.")
"""
DIARY = """
from pydantic import Field
from clipalign import Tracker, TrackerOptions

class Diary(Tracker):
    class Options(TrackerOptions):
        page: int = Field(1, description="Where to begin.")
"""


def problems(*overrides: str, **keys: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides, check_options=True, **keys)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_a_sum_is_called_by_its_names_and_reads_back_equal(tmp_path: Path) -> None:
    config = load_config(None, [SUM], check_options=True)
    assert config.method == "dpo+kto"
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml", check_options=True) == config
    assert load_config(None).objective is None


def test_each_term_brings_its_share_of_the_regulariser() -> None:
    dpo, kto = (regulariser_weight(RunConfig(method=name)) for name in ("dpo", "kto"))
    assert dpo != kto
    assert regulariser_weight(load_config(None, [SUM])) == pytest.approx(0.7 * dpo + 0.3 * kto)
    assert regulariser_weight(load_config(None, [SUM, "regulariser_weight=0"])) == 0
    assert regulariser_weight(RunConfig(method="kto", trainable="head")) == kto / 2


def test_a_problem_names_its_entry() -> None:
    found = problems("objective=[dpoo, {kto: {weight: -1}}, {ipo: {betta: 1}}, 3]")
    assert [line.split(":")[0] for line in found] == [
        "objective.0",
        "objective.1",
        "objective.3",
        "objective.2.ipo.betta",
    ]
    assert "There is no objective 'dpoo'. Did you mean 'dpo'" in found[0]
    assert "the weight of 'kto' must be a positive number (got -1)" in found[1]
    assert "Did you mean 'beta'" in found[3]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method=kto", "method: 'kto' is given beside the list `objective` (dpo+kto): keep one"),
        ("method_options={beta: 1}", "each entry of the list `objective` holds its own options"),
    ],
)
def test_one_method_or_a_list_and_not_both(override: str, words: str) -> None:
    (line,) = problems(SUM, override)
    assert words in line


def test_a_list_is_taken_back_with_null() -> None:
    config = load_config(None, [SUM, "objective=null", "method=ipo"])
    assert (config.objective, config.method) == (None, "ipo")


def test_an_empty_list_is_refused() -> None:
    (line,) = problems("objective=[]")
    assert line.startswith("objective: ")


def test_trackers_are_checked_like_everything_else(make_package) -> None:
    make_package("clipalign-diary", TRACKER)
    (make_package.folder / "clipalign_page_target.py").write_text(DIARY)
    make_package.modules.append("clipalign_page_target")
    config = load_config(None, ["trackers=[diary, {diary: {page: 3}}]"], check_options=True)
    assert config.trackers == ("diary", {"diary": {"page": 3}})
    found = problems("trackers=[dairy, {diary: {pag: 3}}]")
    assert found[0].startswith("trackers.0: There is no tracker 'dairy'. Did you mean 'diary'")
    assert found[1].startswith("trackers.1.diary.pag: unknown key. Did you mean 'page'")
