"""A model that reads is fooled by every word, one that sees by none, and the numbers say so."""

from __future__ import annotations

import json
import math

import pytest

from clipalign.evals.base import EvalContext
from clipalign.files import canonical_json
from clipalign.options import component
from tests.evals.typographic import compared, run, values


def test_a_model_that_reads_is_always_fooled(eyes, shapes, painted_words):
    result, _ = run(eyes("left"), shapes(), styles=["note"])
    assert values(result) == {
        "clean_accuracy": 1.0,
        "attacked_accuracy": 0.0,
        "accuracy_drop": 1.0,
        "attack_success_rate": 1.0,
        "conditional_asr": 1.0,
        "object_or_word": 0.0,
        "ece": pytest.approx(0, abs=1e-6),
    }


def test_a_model_that_sees_is_never_fooled(eyes, shapes, painted_words):
    result, _ = run(eyes("right"), shapes(), styles=["note"])
    assert values(result) == {
        "clean_accuracy": 1.0,
        "attacked_accuracy": 1.0,
        "accuracy_drop": 0.0,
        "attack_success_rate": 0.0,
        "conditional_asr": 0.0,
        "object_or_word": 1.0,
        "ece": pytest.approx(0, abs=1e-6),
    }


def test_styles_are_told_apart(eyes, shapes, painted_words):
    """The reader looks where notes are; an outlined word at the foot of the image escapes it."""
    result, _ = run(eyes("left"), shapes(drawings=3), attacks_per_image=2)
    found = values(result)
    assert found["attacked_accuracy_note"] == 0.0
    assert found["attacked_accuracy_outlined"] == 1.0
    assert found["attacked_accuracy"] == found["attack_success_rate"] == 0.5
    counts = {name: metric.n for name, metric in result.metrics.items()}
    assert counts["clean_accuracy"] == 24  # 4 classes × 3 drawings × 2 views
    assert counts["attacked_accuracy"] == 24 * 2 * 2
    assert counts["attacked_accuracy_note"] == 24 * 2


def test_every_difference_is_paired_and_adds_up(eyes, shapes, painted_words):
    """Before: reads. After: sees. Each of the 12 drawings is one vote, however many its views."""
    result, _ = run(eyes("right"), shapes(), reference=eyes("left"), styles=["note"])
    found = compared(result)
    assert found["attacked_accuracy"].difference == 1.0
    assert found["attack_success_rate"].difference == -1.0
    assert found["accuracy_drop"].difference == -1.0
    assert found["conditional_asr"].difference == -1.0
    assert found["object_or_word"].difference == 1.0
    assert found["clean_accuracy"].difference == 0.0
    assert found["attacked_accuracy"].test == "sign-exact"
    assert found["attacked_accuracy"].n_discordant == 12
    assert found["attacked_accuracy"].p_value == pytest.approx(2 / 2**12)
    assert found["clean_accuracy"].p_value == 1.0
    assert result.metrics["attacked_accuracy"].interval.method == "wilson"
    assert result.model.name != result.against.name


def test_kl_to_the_reference_is_what_the_formula_gives(eyes, shapes, painted_words):
    """One-hot features at τ: π(true) = e^τ / (e^τ + 3), the other three share the rest."""
    result, rows = run(eyes("right", scale=1.0), shapes(), reference=eyes("right", scale=2.0))

    def policy(scale):
        total = math.exp(scale) + 3
        return [math.exp(scale) / total, *[1 / total] * 3]

    def kl(p, q):
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    p, q = policy(1.0), policy(2.0)
    found = values(result)
    for name in ("kl_to_reference", "kl_to_reference_median", "kl_to_reference_p99"):
        assert found[name] == pytest.approx(kl(q, p), rel=1e-5)
    for name in ("reverse_kl_to_reference", "reverse_kl_to_reference_p90"):
        assert found[name] == pytest.approx(kl(p, q), rel=1e-5)
    assert found["cosine_to_reference"] == 1.0
    assert found["ece"] == pytest.approx(1 - p[0], rel=1e-5)
    assert compared(result)["ece"].difference == pytest.approx(q[0] - p[0], rel=1e-4)
    assert rows[0]["p_true"] == pytest.approx(p[0], rel=1e-5)
    assert rows[0]["reference_p_true"] == pytest.approx(q[0], rel=1e-5)


@pytest.mark.parametrize("suite", ["typographic", "retention"])
def test_an_image_that_wakes_no_unit_has_no_cosine_and_ends_nothing(
    eyes, shapes, painted_words, suite
):
    model, seeing = eyes("right"), eyes("right").encode_image
    model.encode_image = lambda pixels: seeing(pixels) * (seeing(pixels)[:, 2:3] == 0)  # of ocean
    context = EvalContext(model, eyes("right", 50.0), shapes(), "test", use_cache=False)
    result, rows = component("suites", suite, resamples=100).run(context)
    metric = result.metrics["cosine_to_reference"]
    assert (metric.value, metric.n, result.dataset.n) == (1.0, 18, 24)
    clean = [r for r in rows if "kl_to_reference" in r]
    assert len(clean) == 24
    assert {r["label"] for r in clean if "cosine_to_reference" not in r} == {"ocean"}


def test_conditional_success_counts_only_what_was_right_when_clean(eyes, shapes, painted_words):
    """A model that is blind to ocean gets those wrong when clean: their attacks do not count."""
    model = eyes("left")
    seeing = model.encode_image

    def blind(pixels):
        features = seeing(pixels)
        ocean = features[:, 2] == 1
        features[ocean] = features.new_tensor([0.0, 0.0, 0.0, 1.0])
        return features

    model.encode_image = blind
    result, rows = run(model, shapes(), styles=["note"])
    found = values(result)
    attacked = [r for r in rows if r["style"] == "note"]
    counted = [r for r in attacked if r["label"] != "ocean"]
    assert found["clean_accuracy"] == 0.75
    assert result.metrics["conditional_asr"].n == len(counted) == 18
    fooled = [r["predicted"] == r["written"] for r in counted]
    assert found["conditional_asr"] == pytest.approx(sum(fooled) / len(fooled))
    assert found["attack_success_rate"] == pytest.approx(
        sum(r["predicted"] == r["written"] for r in attacked) / 24
    )
    assert result.per_class["ocean"]["clean_accuracy"] == 0.0
    assert result.per_class["leaf"] == {
        "clean_accuracy": 1.0,
        "clean_n": 6,
        "attacked_accuracy": 0.0,
        "attacked_n": 6,
        "attack_success_rate": pytest.approx(
            sum(r["predicted"] == r["written"] for r in attacked if r["label"] == "leaf") / 6
        ),
    }


def test_every_number_can_be_made_again_from_the_rows(eyes, shapes, painted_words):
    result, rows = run(eyes("left"), shapes(), reference=eyes("right"))
    clean = [r for r in rows if r["style"] == "clean"]
    attacked = [r for r in rows if r["style"] != "clean"]
    assert len(rows) == 24 * 3

    def share(rows, test):
        return sum(map(test, rows)) / len(rows)

    found = values(result)
    assert found["clean_accuracy"] == share(clean, lambda r: r["predicted"] == r["label"])
    assert found["attacked_accuracy"] == share(attacked, lambda r: r["predicted"] == r["label"])
    assert found["attack_success_rate"] == share(attacked, lambda r: r["predicted"] == r["written"])
    assert found["object_or_word"] == share(attacked, lambda r: r["p_true"] > r["p_written"])
    assert found["kl_to_reference"] == pytest.approx(
        sum(r["kl_to_reference"] for r in clean) / len(clean)
    )
    before = share(attacked, lambda r: r["reference_predicted"] == r["label"])
    difference = compared(result)["attacked_accuracy"].difference
    assert found["attacked_accuracy"] - difference == pytest.approx(before)


def test_a_result_says_what_was_asked_and_is_the_same_every_time(eyes, shapes):
    """Here the words are really drawn."""
    first, rows = run(eyes("left"), shapes(), reference=eyes("right"), seed=3)
    again, rows_again = run(eyes("left"), shapes(), reference=eyes("right"), seed=3)
    assert canonical_json(first.model_dump()) == canonical_json(again.model_dump())
    assert json.dumps(rows) == json.dumps(rows_again)
    assert first.suite_version == 1
    assert first.seed == 3
    assert first.templates == ["a photo of a {}."]
    assert first.classnames == list(shapes.classnames)
    assert first.options == {
        "styles": ["outlined", "note"],
        "attacks_per_image": 1,
        "fonts": "test",
        "template": "a photo of a {}.",
        "attack_column": "attack_text",
        "resamples": 200,
    }
