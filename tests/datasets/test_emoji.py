"""The embedded world keeps its promise: what a test shows, no training has seen."""

from __future__ import annotations

import colorsys
import random

import pytest

from clipalign.datasets.base import Dataset, Example
from clipalign.datasets.emoji import (
    STYLES,
    UNSEEN_STYLE,
    EmojiWorld,
    background,
    emoji_table,
    sprite,
    vary,
)
from clipalign.datasets.emoji_people import EmojiPeople
from clipalign.errors import ConfigError, DataError
from clipalign.options import component


@pytest.fixture(scope="module")
def world():
    return EmojiWorld(views=2, train_views=2)


def drawings(world, split):
    """The (emoji, style) pairs that a split shows."""
    return {example.source[:2] for example in world.examples(split)}


def test_it_is_a_dataset(world):
    assert isinstance(world, Dataset)
    assert set(world.splits()) >= {"train", "validation", "test"}


def test_no_two_splits_share_a_drawing(world):
    shown = {split: drawings(world, split) for split in world.splits()}
    assert all(shown.values())
    for a in shown:
        for b in shown:
            assert a == b or not shown[a] & shown[b], (a, b)


def test_training_sees_no_held_out_drawing_and_no_unseen_style(world):
    held_out = {(emoji.index, emoji.held_out) for emoji in emoji_table()}
    for split in ("train", "validation"):
        assert not drawings(world, split) & held_out
        assert UNSEEN_STYLE not in {style for _, style in drawings(world, split)}
    assert drawings(world, "test") <= held_out
    assert {style for _, style in drawings(world, "test-unseen-style")} == {UNSEEN_STYLE}


def test_held_out_drawings_rotate_over_the_styles(world):
    styles = [style for _, style in drawings(world, "test")]
    assert {styles.count(style) > 0 for style in STYLES} == {True}


def test_concepts_a_and_b_are_disjoint_and_as_many(world):
    a, b = world.classnames_of("test"), world.classnames_of("test-unseen-concepts")
    assert not set(a) & set(b)
    assert len(a) == len(b) == 100
    assert world.classnames == a
    trained = world.classnames_of("train")
    assert trained == world.classnames_of("validation")
    assert len(trained) == 300
    assert set(a) < set(trained)
    # neither a drawing nor a word of B is ever trained on, whole names or parts of them
    assert not set(b) & {word for name in trained for word in (name, *name.split())}


@pytest.mark.parametrize("split", ["train", "validation", "test", "test-unseen-concepts"])
def test_every_class_of_a_split_has_images(world, split):
    assert {e.label for e in world.examples(split)} == set(world.classnames_of(split))


def hue_sectors(split):
    """The sectors of 30° that the corners of many backgrounds lie in."""
    rng = random.Random(1)
    found = set()
    for _ in range(300):
        image = background(rng, split)
        for corner in ((0, 0), (63, 0), (0, 63), (63, 63)):
            hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in image.getpixel(corner)))
            spread = saturation * value * 255  # of the channels: below it, rounding moves the hue
            if spread > 40 and 0.1 < hue * 12 % 1 < 0.9:
                found.add(int(hue * 12))
    return found


def test_hues_of_training_and_test_backgrounds_are_disjoint():
    # corners alone: between two colours a gradient passes through others
    train, test = hue_sectors("train"), hue_sectors("test")
    assert train == {0, 2, 4, 6, 8, 10}
    assert test == {1, 3, 5, 7, 9, 11}


def test_pictures_are_deterministic_and_views_differ(world):
    one, two = world.examples("train")[:2]
    again = EmojiWorld(views=2)
    assert world.image(one).tobytes() == again.image(one).tobytes()
    assert world.image(one).tobytes() != world.image(two).tobytes()
    assert world.image(one).tobytes() != EmojiWorld(views=2, seed=1).image(one).tobytes()
    assert (one.group, two.group) == (one.group, one.group)
    assert (world.image(one).mode, world.image(one).size) == ("RGB", (64, 64))


def test_keys_are_unique_and_views_share_a_group(world):
    for split in world.splits():
        examples = world.examples(split)
        assert len({e.key for e in examples}) == len(examples)
        assert len({e.group for e in examples}) * 2 == len(examples)


def test_the_tones_and_views_of_a_drawing_of_people_share_a_group():
    people = EmojiPeople(views=1)
    for split, pictures in (("validation", 6), ("test", 24)):
        drawings: dict[str, list[Example]] = {}
        for example in people.examples(split):
            assert example.group is not None
            drawings.setdefault(example.group, []).append(example)
        assert max(map(len, drawings.values())) == pictures
        for each in drawings.values():
            facts = {(e.label, e.attributes["gender"], e.attributes["art_style"]) for e in each}
            assert len(facts) == 1
            assert len({e.attributes["tone"] for e in each}) in (1, 6)  # some are drawn in one
        assert len(drawings) == len(
            {(e.label, e.attributes["gender"], e.attributes["art_style"])
             for e in people.examples(split)}
        )  # fmt: skip


def test_the_fingerprint_covers_the_options():
    fingerprints = {EmojiWorld().fingerprint, EmojiWorld(views=3).fingerprint,
                    EmojiWorld(seed=1).fingerprint}  # fmt: skip
    assert len(fingerprints) == 3
    assert EmojiWorld().fingerprint in fingerprints


def test_a_few_concepts_are_a_part_of_all():
    few, world = EmojiWorld(concepts=3), EmojiWorld()
    assert [len(few.classnames_of(split)) for split in few.splits()] == [6, 6, 3, 3, 3]
    for split in few.splits():
        keys = {e.key for e in few.examples(split)}
        assert keys < {e.key for e in world.examples(split)}
    assert few.fingerprint != world.fingerprint


def test_an_unknown_split_names_the_near_one(world):
    with pytest.raises(DataError, match=r"no split 'tests'\. Did you mean 'test'"):
        world.examples("tests")


def test_a_varied_drawing_is_another_one_of_the_same_shape_and_still_transparent():
    drawing = sprite(next(e.index for e in emoji_table() if e.everyday == "A"), "noto")
    varied = [vary(drawing, random.Random(i)) for i in range(20)]
    assert {(v.size, v.mode) for v in varied} == {(drawing.size, "RGBA")}
    assert len({v.tobytes() for v in varied}) > 15
    assert all(v.getchannel("A").getextrema() == (0, 255) for v in varied)
    assert vary(drawing, random.Random(3)).tobytes() == varied[3].tobytes()


@pytest.mark.parametrize(
    ("name", "option", "least"),
    [
        ("emoji", "views", 1),
        ("emoji", "train_views", 1),
        ("emoji", "concepts", 2),
        ("emoji-people", "views", 1),
        ("emoji-people", "test_views", 1),
    ],
)
def test_too_few_pictures_or_concepts_are_refused_in_words(name, option, least):
    words = f"{option}: should be greater than or equal to {least} \\(got {least - 1}\\)"
    with pytest.raises(ConfigError, match=words):
        component("datasets", name, **{option: least - 1})
    assert getattr(component("datasets", name, **{option: least}).options, option) == least
