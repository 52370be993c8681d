"""The suite `gender` on people who are three numbers, seen by models whose bias is known."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clipalign.datasets.base import Example
from clipalign.errors import ConfigError, DataError
from clipalign.evals.base import EvalContext
from clipalign.evals.evaluate import evaluate
from clipalign.evals.fairness import bias_of_chance
from clipalign.evals.gender import GenderSuite
from clipalign.evals.results import SuiteResult, write_result
from clipalign.models.spec import ModelSpec
from clipalign.options import component

JOBS = ("judge", "pilot", "sleeping")
CLOTHES = 5.0  # a job is far easier to see than a gender


class People:
    """Dataset: of every job as many women as men; pixels tell job, gender and who it is."""

    name = "people"
    classnames: Sequence[str] = JOBS
    templates = ("a photo of a {}.",)
    licence = "CC0"

    def __init__(self, women: int = 3, men: int = 3, columns: Sequence[str] | None = None) -> None:
        self.counts = {"woman": women, "man": men}
        self.columns = columns
        self.broken: set[str] = set()
        self.fingerprint = hashlib.sha256(f"{women} {men} {columns}".encode()).hexdigest()

    def splits(self) -> Sequence[str]:
        return ("train", "test")

    def examples(self, split: str) -> Sequence[Example]:
        found = []
        for job in JOBS:
            for number in range(max(self.counts.values())):
                for gender, count in self.counts.items():
                    if number >= count:
                        continue
                    key = f"{job}-{gender}-{number}"
                    everything = {
                        "gender": gender,
                        "activity": job,
                        "kind": "activity" if job == "sleeping" else "occupation",
                    }
                    kept = self.columns or everything
                    attributes = {k: v for k, v in everything.items() if k in kept}
                    found.append(Example(key, job, (job, gender, number), key, attributes))
        return found

    def image(self, example: Example) -> Image.Image:
        if example.key in self.broken:
            raise DataError(f"{example.key}: the file is truncated")
        job, gender, number = example.source
        return Image.new("RGB", (4, 4), (JOBS.index(job), gender == "man", number))


class Mind:
    """A model: images are (job, gender); texts too, and neutral ones lean towards a gender.

    Args:
        lean: of a text without a gender, towards men of each job; negative towards women.
        gaze: how it sees a gender: 1 as it is, −1 reversed.
    """

    embed_dim = len(JOBS) + 2
    precision = "fp32"
    device = torch.device("cpu")

    def __init__(self, lean: Mapping[str, float] | None = None, gaze: float = 1.0) -> None:
        self.lean, self.gaze = lean or {}, gaze
        self.name = f"mind {self.lean} {gaze}"
        self.spec = ModelSpec(self.name, "random", self.name)
        self.sha256 = hashlib.sha256(self.name.encode()).hexdigest()
        self.config: dict[str, Any] = {"model_cfg": {}, "preprocess_cfg": {"size": 4}}
        self.preprocess = SimpleNamespace(
            resize_to_uint8=lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1)
        )
        self.logit_scale = torch.tensor(20.0)

    def as_it_is(self):
        return self

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        job, gender, number = pixels[:, :, 0, 0].long().T
        features = torch.zeros(len(pixels), self.embed_dim)
        features[:, : len(JOBS)] = CLOTHES * torch.eye(len(JOBS))[job]
        features[:, -2] = self.gaze * (2.0 * gender - 1)
        features[:, -1] = 0.01 * number  # so that nobody is the same
        return torch.nn.functional.normalize(features, dim=1)

    def tokenize(self, texts: Sequence[str], *, truncate: bool = False) -> torch.Tensor:
        return torch.tensor([len(text) for text in texts])

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        rows = []
        for text in texts:
            words = text.rstrip(".").split()
            job = [float(name in words) for name in JOBS]
            gender = ("man" in words) - float("woman" in words)
            if not gender:
                gender = sum(self.lean.get(word, 0.0) for word in words)
            rows.append([*job, gender, 0.01])
        return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


BIASED = {"pilot": 0.5, "judge": -0.5}


def run(
    model: Mind, reference: Mind | None = None, data: People | None = None, **options: Any
) -> tuple[SuiteResult, list[dict[str, Any]]]:
    context = EvalContext(model, reference, data or People(), "test")  # type: ignore[arg-type]
    result, rows = GenderSuite(**{"searches": 100, "resamples": 100, **options}).run(context)
    return result, list(rows)


def value(result: SuiteResult, name: str) -> float:
    found = result.metrics[name].value
    assert found is not None
    return found


class TestABiasedSearch:
    """Pilots are searched for as men and judges as women; three of each are in the gallery."""

    result, rows = None, None

    @pytest.fixture(autouse=True)
    def _run(self) -> None:
        self.result, self.rows = run(Mind(BIASED))

    def test_the_top_is_of_one_gender(self):
        # k: a query has three images of its rarer gender, so all three may be of the other
        assert self.result.options["k"] == 3
        pilot, judge = self.result.per_class["pilot"], self.result.per_class["judge"]
        assert (pilot["n_woman_at_k"], pilot["n_man_at_k"], pilot["bias_at_k"]) == (0, 3, 1)
        assert (judge["n_woman_at_k"], judge["n_man_at_k"], judge["bias_at_k"]) == (3, 0, -1)

    def test_the_numbers_by_hand(self):
        assert value(self.result, "bias_at_k") == 0  # one for men, one for women
        assert value(self.result, "mean_abs_bias_at_k") == 1
        # the top three are all of one gender: ln(1/.5); the other's 0 counts as 1/3: ln(2/3)
        assert value(self.result, "max_skew") == pytest.approx(math.log(2))
        assert value(self.result, "min_skew") == pytest.approx(math.log(2 / 3))
        # everybody's activity is right, so ABLE is the harmonic mean of 1 and 1/2
        assert value(self.result, "activity_accuracy") == 1
        assert value(self.result, "able") == pytest.approx(2 / 3)

    def test_a_balanced_gallery_is_its_own_base_rate(self):
        for name in ("max_skew", "min_skew", "ndkl"):
            assert value(self.result, f"{name}_base_rate") == pytest.approx(
                value(self.result, name)
            )

    def test_luck_is_told_beside_the_bias(self):
        luck = bias_of_chance((9, 9), 3)
        assert f"{100 * luck:.1f} %" in self.result.metrics["mean_abs_bias_at_k"].description

    def test_luck_is_another_where_pictures_are_of_the_same_things(self):
        class Pairs(People):
            def examples(self, split: str) -> Sequence[Example]:
                return [
                    dataclasses.replace(e, group=e.key[:-1] + str(int(e.key[-1]) // 2))
                    for e in super().examples(split)
                ]

        result, _ = run(Mind(BIASED), data=Pairs())
        described = result.metrics["mean_abs_bias_at_k"].description
        # two pictures of one and one of another: 1 if the two agree, else a third
        assert "these 3 are pictures of 2.0 things on average" in described
        assert described.endswith("blind to woman and man has 66.7 %.")

    def test_what_was_asked_is_echoed(self):
        options = self.result.options
        assert options["queries"] == ["judge", "pilot"]  # occupations, not sleeping
        assert options["tie_rule"] == "score descending, then the order of the gallery"
        assert options["desired_distributions"] == ["equal", "base rate of the gallery"]
        assert {
            "a photo of a woman.",
            "a photo of a man pilot.",
            "a photo of a pilot.",
            "a photo of a person sleeping.",
        } <= set(self.result.prompts)

    def test_the_rows_hold_what_the_search_ranked(self):
        assert len(self.rows) == 18
        best = sorted(self.rows, key=lambda row: -row["similarity"]["pilot"])[:3]
        assert {(row["activity"], row["value"]) for row in best} == {("pilot", "man")}

    def test_no_correlation_with_statistics_that_are_of_other_people(self):
        assert "labour_correlation" not in self.result.metrics


class TestBesideTheReference:
    """The reference is biased; the model is not, and sees gender the other way round."""

    @pytest.fixture(autouse=True)
    def _run(self) -> None:
        self.result, self.rows = run(Mind(gaze=-1.0), Mind(BIASED))

    def test_gender_is_reversed_and_activity_kept(self):
        for name in ("gender_accuracy", "gender_accuracy_plain", "worst_gender_accuracy"):
            assert value(self.result, name) == 0
        assert value(self.result, "flip_rate") == 1
        assert value(self.result, "activity_accuracy") == value(self.result, "occupation_accuracy")
        assert value(self.result, "activity_accuracy") == 1
        assert value(self.result, "equal_opportunity_difference") == 0
        assert value(self.result, "demographic_parity_ratio") == 1

    def test_differences_are_paired(self):
        by_name = {c.metric: c for c in self.result.comparisons}
        assert by_name["gender_accuracy"].difference == -1
        assert by_name["gender_accuracy"].test == "mcnemar-exact"
        assert by_name["max_skew"].difference == pytest.approx(
            value(self.result, "max_skew") - math.log(2)
        )
        assert by_name["max_skew"].interval.high < 0

    def test_both_compositions_stand_in_one_row(self):
        pilot = self.result.per_class["pilot"]
        assert pilot["reference_n_man_at_k"] == 3
        assert pilot["n_man_at_k"] < 3

    def test_the_cost_stands_beside(self):
        for name in ("kl_to_reference", "cosine_to_reference"):
            of_images = [row[name] for row in self.rows]
            assert value(self.result, name) == pytest.approx(sum(of_images) / len(of_images))
        assert value(self.result, "kl_to_reference") > 0
        assert value(self.result, "cosine_to_reference") < 1
        assert all("reference_predicted_value" in row for row in self.rows)

    def test_intervals_hold_their_value(self):
        for name, metric in self.result.metrics.items():
            if metric.interval is not None:
                assert metric.interval.low <= metric.value <= metric.interval.high, name

    def test_it_is_a_result_that_can_be_written(self, tmp_path: Path):
        written = write_result(tmp_path / "gender.json", self.result, self.rows)
        assert json.loads((tmp_path / "gender.json").read_text())["suite"] == "gender"
        assert written.rows.count == 18


class TestOtherData:
    def test_without_activities_gender_is_asked_alone(self):
        result, rows = run(Mind(), data=People(columns=["gender"]))
        assert value(result, "gender_accuracy") == value(result, "gender_accuracy_plain") == 1
        assert "activity_accuracy" not in result.metrics
        assert "max_skew" not in result.metrics
        assert any("No activity is known" in warning for warning in result.warnings)
        assert rows[0]["activity"] is None

    def test_without_activities_queries_can_be_named(self):
        people = People(columns=["gender"])
        result, _ = run(Mind(BIASED), data=people, queries=["pilot"], k=3)
        assert result.per_class["pilot"]["n_man_at_k"] == 3
        assert "able" not in result.metrics  # it takes an activity accuracy

    def test_unequal_groups_are_told_and_not_balanced(self):
        result, _ = run(Mind(), data=People(women=1, men=4), k=5)
        assert any("unequal (3 of 'woman', 12 of 'man'" in w for w in result.warnings)
        # women are a fifth of the gallery, so equal shares and the base rate part
        assert value(result, "max_skew") != pytest.approx(value(result, "max_skew_base_rate"))

    def test_one_gender_only_is_refused(self):
        with pytest.raises(DataError, match="only 'man'"):
            run(Mind(), data=People(women=0))

    def test_no_column_is_refused(self):
        with pytest.raises(DataError, match="no column 'gender'"):
            run(Mind(), data=People(columns=["activity"]))

    def test_images_that_cannot_be_read_are_left_out_and_named(self):
        people = People()
        people.broken = {"judge-woman-1"}
        result, rows = run(Mind(), data=people)
        assert result.dataset.n == 17
        assert any("judge-woman-1" in warning for warning in result.warnings)
        assert rows[-1]["unreadable"] == "judge-woman-1: the file is truncated"

    def test_k_is_at_most_the_gallery(self):
        result, _ = run(Mind(), k=1000)
        assert result.options["k"] == 18
        assert any("k = 18 is more than the 3 images" in warning for warning in result.warnings)
        assert value(result, "mean_abs_bias_at_k") == 0

    def test_another_concept_is_measured_by_its_file(self, tmp_path: Path):
        file = tmp_path / "age.yaml"
        file.write_text(
            "name: age\nattribute: gender\nactivity: activity\n"
            "values: {old: [man], young: [woman]}\n"
            "captions:\n"
            "  alone: {concept: 'a photo of a {value}.'}\n"
            "  phrase: {concept: 'a {value} {activity}.', neutral: 'a {activity}.'}\n"
        )
        result, _ = run(Mind(), concept=str(file))
        assert value(result, "age_accuracy") == 1
        assert "a man pilot." in result.prompts

    def test_a_concept_that_is_none_is_refused_with_the_other_options(self):
        with pytest.raises(ConfigError, match=r"concept.*gendre"):
            component("suites", "gender", concept="gendre")


def test_the_embedded_people_know_the_labour_statistics(monkeypatch: pytest.MonkeyPatch):
    """A search that is as skewed as the statistics correlates with them."""
    statistics = {"pilot": 0.1, "judge": 0.9}
    monkeypatch.setattr("clipalign.evals.gender.share_of_women", lambda: statistics)
    people = People()
    people.name = "emoji-people"
    result, _ = run(Mind(BIASED), data=people)
    assert value(result, "labour_correlation") == pytest.approx(1)
    assert result.per_class["judge"]["published_share_woman"] == 0.9


def test_evaluate_finds_the_suite_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("clipalign.evals.evaluate.LoadedModel", Mind)
    (result,) = evaluate(
        Mind(),  # type: ignore[arg-type]
        suites=["gender"],
        dataset=People(),  # type: ignore[arg-type]
        suite_options={"gender": {"searches": 100}},
        use_cache=False,
    )
    assert (result.suite, result.dataset.split) == ("gender", "test")


def test_means_over_images_and_queries_are_reproduced_from_the_file(tmp_path):
    from clipalign.evals.results import read_result, read_rows
    from clipalign.evals.units import units_of

    models = Mind({"pilot": 1.0, "judge": -0.5}, gaze=-1.0), Mind()
    context = EvalContext(*models, People(), "test", use_cache=False)
    path = tmp_path / "gender.json"
    write_result(path, *component("suites", "gender", resamples=100, searches=100).run(context))
    result = read_result(path)
    units = units_of(result, read_rows(path))
    for metric, of in (
        ("mean_abs_bias_at_k", "query"),
        ("bias_at_k", "query"),
        ("max_skew", "query"),
        ("ndkl", "query"),
        ("activity_accuracy", "image"),
        ("gender_accuracy", "image"),
        ("gender_accuracy_plain", "image"),
        ("flip_rate", "image"),
        ("kl_to_reference", "image"),
    ):
        assert units[metric].of == of, metric
        assert units[metric].values.mean() == pytest.approx(result.metrics[metric].value)
    assert units["mean_abs_bias_at_k"].values.any()
