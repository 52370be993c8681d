"""Image by image values, read back from a results file, give its numbers again or are not used."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from clipalign.evals.base import EvalContext
from clipalign.evals.measures import measure
from clipalign.evals.results import MetricValue, read_result, read_rows, write_result
from clipalign.evals.units import Units, compare_units, gender, units_of

WITHOUT = {
    # no mean of one value an image
    "typographic": ("conditional_asr", "ece", "median", "p90", "p99"),
    "reading": (),
    "retention": ("recall", "median", "p90", "p99"),
}


@pytest.mark.parametrize("suite", WITHOUT)
def test_every_mean_of_a_suite_is_reproduced_from_its_rows(
    suite, eyes, shapes, painted_words, tmp_path
):
    from clipalign.options import component

    context = EvalContext(eyes("left", 3.0), eyes("right", 3.0), shapes(), "test", use_cache=False)
    result, rows = component("suites", suite).run(context)
    path = tmp_path / "result.json"
    write_result(path, result, rows)
    units = units_of(read_result(path), read_rows(path))
    lacking = [
        name for name in result.metrics if name not in units and not name.endswith(WITHOUT[suite])
    ]
    assert [name for name in lacking if not any(w in name for w in WITHOUT[suite])] == []
    assert units
    # and the paired difference to the reference is the one that the suite found
    for c in result.comparisons:
        if c.metric in units:
            assert units[c.metric].values.mean() == pytest.approx(result.metrics[c.metric].value)


def made(values, keys=None):
    keys = keys or tuple(f"i{n}" for n in range(len(values)))
    return Units(keys, np.array(values), np.array(keys, np.str_))


def test_one_pair_of_right_or_wrong_is_mcnemars_test():
    a = made([True, True, True, True, False])
    b = made([False, False, False, True, False])
    found = compare_units("accuracy", [a], [b])
    assert found.difference == pytest.approx(0.6)
    assert (found.test, found.n_discordant) == ("mcnemar-exact", 3)
    assert found.p_value == pytest.approx(0.25)  # 2 · (1/2)³


def test_over_seeds_each_image_votes_once():
    a = [made([True, True, False]), made([True, False, False])]
    b = [made([False, False, False]), made([False, True, True])]
    found = compare_units("accuracy", a, b)
    # image 0 wins twice, image 1 once and loses once, image 2 loses once
    assert (found.test, found.n_discordant, found.p_value) == ("sign-exact", 2, 1.0)
    assert found.difference == pytest.approx((3 - 2) / 6)


def test_numbers_have_an_interval_and_no_p():
    a, b = made([0.3, 0.5, 0.1]), made([0.1, 0.2, 0.1])
    found = compare_units("kl", [a], [b])
    assert found.difference == pytest.approx((0.2 + 0.3) / 3)
    assert found.interval.low <= found.difference <= found.interval.high
    assert found.p_value is None


def test_an_interval_of_few_queries_holds_nothing_that_cannot_be():
    searches = {
        f"q{n}": {"bias_at_k": b, "max_skew": abs(b), "min_skew": -abs(b), "ndkl": abs(b) - 0.1}
        for n, b in enumerate((-1.0, 1.0, 0.1, 0.1))
    }
    result = SimpleNamespace(metrics={}, per_class=searches)
    for name, least, most in (
        ("mean_abs_bias_at_k", 0, 1),
        ("bias_at_k", -1, 1),
        ("max_skew", 0, np.inf),
        ("min_skew", -np.inf, 0),
        ("ndkl", 0, np.inf),
    ):
        units = gender(result, [])[name]
        assert units.of == "query"
        assert least <= units.values.min() <= units.values.max() <= most
        interval = measure(
            units.values, units.groups, higher_is_better=None, unit="", description="",
            within=units.within,
        ).interval  # fmt: skip
        assert least <= interval.low <= units.values.mean() <= interval.high <= most


def test_other_images_are_not_compared():
    a, b = made([True, False]), made([True, False], ("x", "y"))
    assert compare_units("accuracy", [a], [b]) is None
    assert compare_units("accuracy", [a], [a, a]) is None
    assert compare_units("accuracy", [], []) is None


def test_values_that_do_not_give_the_number_again_are_not_used(eyes, shapes, painted_words):
    from clipalign.evals.typographic import TypographicSuite

    context = EvalContext(eyes("right"), None, shapes(), "test", use_cache=False)
    result, rows = TypographicSuite(resamples=100).run(context)
    rows = list(rows)
    assert "clean_accuracy" in units_of(result, rows)
    wrong = MetricValue(value=0.123, n=24, unit="share", description="")
    changed = result.model_copy(update={"metrics": {**result.metrics, "clean_accuracy": wrong}})
    assert "clean_accuracy" not in units_of(changed, rows)
    assert "clean_accuracy" not in units_of(result, rows[1:])


def test_a_suite_of_another_package_says_how_its_rows_are_read(make_package, eyes, shapes):
    make_package(
        "clipalign-blur",
        """
        import clipalign
        import numpy as np

        def read(result, rows):
            from clipalign.evals.units import Units
            keys = tuple(r["key"] for r in rows)
            return {"sharp": Units(keys, np.array([r["blurred"] < 1 for r in rows]),
                                   np.array(keys))}

        @clipalign.hookimpl
        def register_suites(register):
            register("blur", "x:y", summary="Blur.", units="clipalign_blur:read")
        """,
    )
    from clipalign.evals.retention import RetentionSuite

    context = EvalContext(eyes("right"), None, shapes(), "test", use_cache=False)
    result, _ = RetentionSuite(resamples=100).run(context)
    half = MetricValue(value=0.5, n=2, unit="share", description="")
    result = result.model_copy(
        update={"suite": "blur", "metrics": {"sharp": half, "blurred": half, "other": half}}
    )
    rows = [{"key": "a", "blurred": 0}, {"key": "b", "blurred": 1}]
    assert set(units_of(result, rows)) == {"sharp", "blurred"}  # the latter by its column
    gone = result.model_copy(update={"suite": "unheard-of"})
    assert set(units_of(gone, rows)) == {"blurred"}
