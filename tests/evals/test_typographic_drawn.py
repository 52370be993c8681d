"""Which word is written on which image, in which font: by the seed and the image alone."""

from __future__ import annotations

from collections import Counter

from clipalign.evals.attacks import drawn_plan


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
