"""What the typographic suite cannot score is counted, named, or refused in words."""

from __future__ import annotations

import pytest

from clipalign.errors import ConfigError, DataError
from clipalign.options import component
from tests.evals.typographic import run


def test_unreadable_images_are_counted_named_and_never_silent(eyes, shapes, painted_words):
    dataset = shapes()
    dataset.broken = {"leaf-0-0", "stone-2-1"}
    result, rows = run(eyes("right"), dataset, reference=eyes("left"))
    assert result.dataset.n == 22
    assert result.metrics["clean_accuracy"].n == 22
    assert result.metrics["attacked_accuracy"].n == 44
    assert result.warnings == [
        "2 of 24 images could not be used and are left out: leaf-0-0 (the file is "
        "truncated); stone-2-1 (the file is truncated)."
    ]
    assert [r["key"] for r in rows if "unreadable" in r] == ["leaf-0-0", "stone-2-1"]
    assert len(rows) == 22 * 3 + 2


def test_images_too_small_for_a_word_are_counted_too(eyes, shapes):
    class Tiny(type(shapes())):
        def image(self, example):
            return super().image(example).resize((5, 5))

    with pytest.raises(DataError, match=r"None of the 24 images can be used.*5 × 5 pixels"):
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
