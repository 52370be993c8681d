"""A model that reads is fooled by every word, one that sees by none, and the numbers say so."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from pathlib import Path

import pytest

from clipalign.datasets.base import Example
from clipalign.errors import ConfigError, DataError
from clipalign.evals.attacks import drawn_plan
from clipalign.evals.base import EvalContext
from clipalign.evals.units import units_of
from clipalign.files import canonical_json
from clipalign.options import component

PHOTOS = Path(os.environ.get("CLIPALIGN_PHOTOS", Path(__file__).parents[3] / "shared" / "photos"))


def run(model, dataset, reference=None, split="test", seed=0, **options):
    options = {"resamples": 200, **options}
    suite = component("suites", "typographic", **options)
    result, rows = suite.run(EvalContext(model, reference, dataset, split, seed))
    return result, list(rows)


def values(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def compared(result):
    return {c.metric: c for c in result.comparisons}


# --- What the numbers mean ----------------------------------------------------------------------


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


# --- What is drawn ------------------------------------------------------------------------------


def plan(dataset, seed=0, split="test", **options):
    options = {"styles": ("outlined", "note"), "attacks_per_image": 1, **options}
    return drawn_plan(dataset, split, seed=seed, **options)


def test_the_wrong_word_is_uniform_over_the_other_classes(shapes):
    written = plan(shapes(drawings=50), attacks_per_image=10).written
    examples = shapes(drawings=50).examples("test")
    words = {label: Counter() for label in shapes.classnames}
    for example, row in zip(examples, written, strict=True):
        words[example.label].update(row[1:])
    for label, counts in words.items():
        assert set(counts) == set(shapes.classnames) - {label}
        expected = 100 * 20 / 3
        chi2 = sum((n - expected) ** 2 / expected for n in counts.values())
        assert chi2 < 13.8  # 0.999 quantile at two degrees of freedom


def test_pixels_depend_on_the_seed_and_the_image_alone(shapes):
    whole, other = plan(shapes()), plan(shapes(), seed=1)
    more = plan(shapes(drawings=2))
    first = [image.tobytes() for image in whole.read(0)]
    assert first == [image.tobytes() for image in plan(shapes()).read(0)]
    assert first == [image.tobytes() for image in more.read(0)]
    assert first[0] == other.read(0)[0].tobytes()
    assert first[1:] != [image.tobytes() for image in other.read(0)[1:]]
    assert len(set(first)) == 3


def test_test_fonts_are_used_unless_the_emoji_world_trains_on_the_split(shapes):
    class Emoji(type(shapes())):
        name = "emoji"

    assert plan(shapes(), split="train").fonts == "test"
    assert plan(Emoji(), split="train").fonts == "train"
    assert plan(Emoji(), split="test").fonts == "test"
    assert plan(shapes(), fonts="train").fonts == "train"


def test_a_name_that_no_font_can_write_is_written_on_nothing(shapes):
    class Foreign(type(shapes())):
        classnames = ("cherry", "leaf", "ocean", "stone", "苹果")

    made = plan(Foreign())
    assert not any("苹果" in row for row in made.written)
    assert "苹果" in made.warnings[0]
    assert "苹果" in made.classnames


# --- What cannot be scored ----------------------------------------------------------------------


def test_unreadable_images_are_counted_named_and_never_silent(eyes, shapes, painted_words):
    dataset = shapes()
    dataset.broken = {"leaf-0-0", "stone-2-1"}
    result, rows = run(eyes("right"), dataset, reference=eyes("left"))
    assert result.dataset.n == 22
    assert result.metrics["clean_accuracy"].n == 22
    assert result.metrics["attacked_accuracy"].n == 44
    assert result.warnings == [
        "2 of 24 images could not be read and are left out: leaf-0-0 (leaf-0-0: the file is "
        "truncated); stone-2-1 (stone-2-1: the file is truncated)."
    ]
    assert [r["key"] for r in rows if "unreadable" in r] == ["leaf-0-0", "stone-2-1"]
    assert len(rows) == 22 * 3 + 2


def test_images_too_small_for_a_word_are_counted_too(eyes, shapes):
    class Tiny(type(shapes())):
        def image(self, example):
            return super().image(example).resize((5, 5))

    with pytest.raises(DataError, match=r"None of the 24 images can be read.*5 × 5 pixels"):
        run(eyes("right"), Tiny())


def test_images_without_labels_are_counted(eyes, shapes, painted_words):
    dataset = shapes()
    dataset.unlabelled = {"leaf-0-0"}
    result, _ = run(eyes("right"), dataset)
    assert result.warnings == ["1 of 24 images have no label and are left out."]
    dataset.unlabelled = {e.key for e in dataset.examples("test")}
    with pytest.raises(DataError, match="None of the 24 images"):
        run(eyes("right"), dataset)


def test_files_that_the_dataset_passed_over_are_counted(eyes, shapes, painted_words):
    dataset = shapes()
    dataset.skipped = lambda split: [("notes.txt", "its name is not that of an image file")]
    result, _ = run(eyes("right"), dataset)
    assert result.warnings == [
        "1 files or rows were passed over: notes.txt (its name is not that of an image file)."
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [(("cherry",), "Only one class"), (("cherry", "leafs"), "Did you mean 'leafs'?")],
)
def test_classes_that_cannot_serve_are_refused(eyes, shapes, names, message):
    class Odd(type(shapes())):
        classnames = names

    with pytest.raises(DataError) as error:
        run(eyes("right"), Odd())
    assert message in str(error.value)


def test_bad_options_are_all_named_at_once():
    with pytest.raises(ConfigError) as error:
        component("suites", "typographic", styles=["neon"], template="a photo", atacks_per_image=2)
    for word in ("neon", "template", "Did you mean 'attacks_per_image'?"):
        assert word in str(error.value)


# --- Real words on real photographs ---------------------------------------------------------------


def test_photographs_with_words_are_scored_as_they_are(eyes, shapes, painted_words):
    """The reader takes the left of the image, which here is plain: it sees what is there."""
    dataset = shapes(words={"leaf-0-0": "iPod", "leaf-0-1": "ocean", "stone-1-0": "stone"})
    eye = eyes("left")
    known = eye.encode_text
    eye.encode_text = lambda texts: known([t.replace("iPod", "ocean") for t in texts])
    result, rows = run(eye, dataset, template="{}")
    assert result.classnames == ["cherry", "iPod", "leaf", "ocean", "stone"]
    assert result.templates == ["{}"]
    assert result.options["fonts"] is None
    counts = {name: metric.n for name, metric in result.metrics.items()}
    assert counts == {
        "clean_accuracy": 21,
        "attacked_accuracy": 2,
        "attack_success_rate": 2,  # a word that names the object is no attack
        "object_or_word": 2,
        "ece": 21,
    }
    assert [r["style"] for r in rows if r["written"]] == ["photograph"] * 3


def test_a_word_that_names_the_object_is_no_attack(eyes, shapes, painted_words):
    """Two images carry their own name: to be right there says nothing of an attack."""
    words = {"leaf-0-0": "leaf", "stone-1-0": "ocean", "ocean-1-0": "stone", "ocean-2-0": "ocean"}
    eye = eyes("left")
    eye.encode_image = lambda pixels: eye.encode_text(["stone"]).expand(len(pixels), -1)
    result, rows = run(eye, shapes(words=words), template="{}")
    assert (result.metrics["attacked_accuracy"].value, result.metrics["attacked_accuracy"].n) == (
        0.5,
        2,
    )
    assert result.per_class["stone"]["attacked_n"] == result.per_class["ocean"]["attacked_n"] == 1
    assert "attacked_n" not in result.per_class["leaf"]
    assert units_of(result, rows)["attacked_accuracy"].keys == (
        "ocean-1-0/photograph/0",
        "stone-1-0/photograph/0",
    )


def test_the_attack_column_has_any_name(eyes, shapes, painted_words):
    dataset = shapes(words={"leaf-0-0": "ocean"})
    result, _ = run(eyes("left"), dataset, attack_column="sticker")
    assert "accuracy_drop" in result.metrics


class Paint:
    """The PAINT photographs: `path,label,attack_text`, read without any dataset of clipalign's."""

    name, licence, fingerprint = "paint", "unclear", "0" * 64
    templates = ("a photo of a {}.",)
    classnames = ()

    def splits(self):
        return ("test",)

    def examples(self, split):
        import csv

        with open(PHOTOS / "typographic_paint" / "index.csv", newline="") as file:
            return [
                Example(r["path"], r["label"], r["path"], "", {"attack_text": r["attack_text"]})
                for r in csv.DictReader(file)
            ]

    def image(self, example):
        from PIL import Image

        return Image.open(PHOTOS / "typographic_paint" / example.source).convert("RGB")


@pytest.mark.skipif(
    not (PHOTOS / "typographic_paint" / "index.csv").is_file(),
    reason="the PAINT photographs are not here; CLIPALIGN_PHOTOS says where they are",
)
def test_all_paint_photographs_are_scored(small_models):
    from clipalign.models.load import load_model

    before, after = (load_model(f"local-dir:{path}") for path in small_models)
    result, rows = run(after, Paint(), reference=before)
    assert len(rows) == result.dataset.n == 110
    assert result.metrics["attacked_accuracy"].n == 110
    assert set(result.metrics) == {"attacked_accuracy", "attack_success_rate", "object_or_word"}
    labels = {e.label for e in Paint().examples("test")}
    words = {e.attributes["attack_text"] for e in Paint().examples("test")}
    assert result.classnames == sorted(labels | words)
    assert compared(result)["attacked_accuracy"].test.startswith("mcnemar")


# --- The result -----------------------------------------------------------------------------------


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
