"""Which images the typographic suite scores, and what is written on each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from clipalign._version import __version__
from clipalign.datasets.base import Dataset, Example
from clipalign.datasets.emoji import EmojiWorld
from clipalign.errors import DataError, near_matches
from clipalign.evals.features import ImageSet
from clipalign.tasks.base import classnames
from clipalign.tasks.rendering import Style, draw_attack, font_files

__all__ = ["AttackPlan", "View", "drawn_plan", "labelled", "photographed_plan"]

Fonts = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class View:
    """One image made of an example: itself (no style), or with a word drawn on it."""

    style: Style | None = None
    number: int = 0


@dataclass(frozen=True)
class AttackPlan:
    """What is scored, in a stable order.

    Attributes:
        dataset: source of the images.
        split: of the dataset.
        examples: N, all labelled.
        classnames: the C classes to choose among.
        views: V, the same for every example.
        written: [N][V] class name on the image; None for none.
        seed: of what is drawn.
        fonts: and colours of what is drawn; None where nothing is.
    """

    dataset: Dataset
    split: str
    examples: Sequence[Example]
    classnames: Sequence[str]
    views: Sequence[View]
    written: Sequence[Sequence[str | None]]
    seed: int
    fonts: Fonts | None

    def images(self) -> ImageSet:
        """The images to encode; drawn while they are read."""
        identity: dict[str, Any] = {
            "clipalign": __version__,
            "dataset": [self.dataset.name, self.dataset.fingerprint, self.split],
            "examples": [example.key for example in self.examples],
            "views": [[view.style, view.number] for view in self.views],
        }
        if self.fonts:
            identity |= {
                "written": self.written,
                "seed": self.seed,
                "fonts": [path.name for path in font_files(self.fonts)],
            }
        names = [example.key for example in self.examples]
        return ImageSet(identity, names, len(self.views), self.read)

    def read(self, item: int) -> list[Image.Image]:
        """The V images of one example.

        Raises:
            DataError: it cannot be read.
        """
        example = self.examples[item]
        image = self.dataset.image(example)
        return [
            self._drawn(image, example, view, text)
            for view, text in zip(self.views, self.written[item], strict=True)
        ]

    def _drawn(
        self, image: Image.Image, example: Example, view: View, text: str | None
    ) -> Image.Image:
        if view.style is None or text is None or self.fonts is None:
            return image
        rng = _random(self.seed, example, view, "place")
        return draw_attack(image, text, rng, style=view.style, split=self.fonts)[0]


def drawn_plan(
    dataset: Dataset,
    split: str,
    examples: Sequence[Example],
    *,
    styles: Sequence[Style],
    attacks_per_image: int,
    seed: int,
    fonts: Fonts | None = None,
) -> AttackPlan:
    """Each example clean, and with the name of another class of its split, drawn uniformly.

    Fonts and colours are those that no training sees, except on the emoji world's own train and
    validation splits.

    Raises:
        DataError: there are fewer than two classes, or a label is none of them.
    """
    names = list(classnames(dataset, split))
    _check_classes(dataset, split, names, examples)
    views = [View(), *(View(style, n) for style in styles for n in range(attacks_per_image))]

    def word(example: Example, view: View) -> str | None:
        if view.style is None:
            return None
        others = [name for name in names if name != example.label]
        return _random(seed, example, view, "word").choice(others)

    if fonts is None:
        own = dataset.name == EmojiWorld.name and not split.startswith("test")
        fonts = "train" if own else "test"
    written = [[word(example, view) for view in views] for example in examples]
    return AttackPlan(dataset, split, examples, names, views, written, seed, fonts)


def photographed_plan(
    dataset: Dataset, split: str, examples: Sequence[Example], column: str
) -> AttackPlan:
    """Each example as it is, with what its attribute `column` says is written on it.

    The classes are all labels and all written words, as in the protocol of the PAINT photographs.

    Raises:
        DataError: there are fewer than two classes.
    """
    written = [[example.attributes.get(column) or None] for example in examples]
    names = sorted({e.label or "" for e in examples} | {row[0] for row in written if row[0]})
    _check_classes(dataset, split, names, examples)
    return AttackPlan(dataset, split, examples, names, [View()], written, 0, None)


def labelled(dataset: Dataset, split: str) -> tuple[list[Example], list[str]]:
    """The examples of a split that have a label, and a warning where some have none.

    Raises:
        DataError: none has one.
    """
    everything = dataset.examples(split)
    examples = [example for example in everything if example.label]
    where = f"the split {split!r} of {dataset.name}"
    if not everything:
        raise DataError(f"There is no image in {where}.")
    if not examples:
        raise DataError(
            f"None of the {len(everything)} images in {where} has a label: this suite needs to know"
            " what is shown."
        )
    left_out = len(everything) - len(examples)
    words = f"{left_out} of {len(everything)} images have no label and are left out."
    return examples, [words] if left_out else []


def _check_classes(
    dataset: Dataset, split: str, names: Sequence[str], examples: Sequence[Example]
) -> None:
    if len(names) < 2:
        raise DataError(
            f"The split {split!r} of {dataset.name} has {len(names)} class: a choice needs at least"
            " two."
        )
    known = set(names)
    for example in examples:
        if example.label not in known:
            raise DataError(
                f"{example.key} in the split {split!r} of {dataset.name} is labelled "
                f"{example.label!r}, which is none of its {len(names)} classes."
                + near_matches(str(example.label), names)
            )


def _random(seed: int, example: Example, view: View, purpose: str) -> random.Random:
    return random.Random(f"{seed}/{example.key}/{view.style}/{view.number}/{purpose}")
