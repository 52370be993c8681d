"""Which images the typographic suite scores, and what is written on each."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from clipalign._version import __version__
from clipalign.datasets.base import Dataset, Example, cache_key, rgb_image
from clipalign.datasets.emoji import EmojiWorld
from clipalign.datasets.options import label_advice, label_text
from clipalign.errors import DataError, near_matches
from clipalign.evals.features import ImageSet
from clipalign.plugins import registry
from clipalign.tasks.base import classnames
from clipalign.tasks.lettering import fonts_with
from clipalign.tasks.rendering import Style, draw_attack, font_files

__all__ = ["AttackPlan", "View", "drawn_plan", "labelled", "photographed_plan"]

Fonts = Literal["train", "test"]
_LISTED = 10  # names in a warning


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
        fonts: which fonts and colours are drawn with; None where nothing is drawn.
        able: of each word that is drawn, the fonts that have its characters.
        warnings: what a reader of the numbers must know.
    """

    dataset: Dataset
    split: str
    examples: Sequence[Example]
    classnames: Sequence[str]
    views: Sequence[View]
    written: Sequence[Sequence[str | None]]
    seed: int = 0
    fonts: Fonts | None = None
    able: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def images(self) -> ImageSet:
        """The images to encode; what is drawn on them is drawn while they are read."""
        names = [example.key for example in self.examples]
        identity: dict[str, Any] = {
            "clipalign": __version__,
            "dataset": [self.dataset.name, cache_key(self.dataset), self.split],
            "examples": names,
            "views": [[view.style, view.number] for view in self.views],
        }
        if self.fonts:
            identity |= {
                "written": self.written,
                "seed": self.seed,
                "fonts": [path.name for path in font_files(self.fonts)],
            }
        return ImageSet(identity, names, len(self.views), self.read)

    def read(self, item: int) -> list[Image.Image]:
        """The V images of one example.

        Raises:
            DataError: it cannot be read, or is too small for a word in any font.
        """
        example = self.examples[item]
        image = rgb_image(self.dataset, example)
        return [
            self._drawn(image, example, view, text)
            for view, text in zip(self.views, self.written[item], strict=True)
        ]

    def _drawn(
        self, image: Image.Image, example: Example, view: View, text: str | None
    ) -> Image.Image:
        if view.style is None or text is None or self.fonts is None:
            return image
        attacked, attack = draw_attack(
            image,
            text,
            _random(self.seed, example, view, "place"),
            style=view.style,
            split=self.fonts,
            fonts=self.able[text],
        )
        if attack.box[2] > image.width or attack.box[3] > image.height:
            raise DataError(
                f"{image.width} × {image.height} pixels are too few to write {text!r} on, in any "
                "font"
            )
        return attacked


def drawn_plan(
    dataset: Dataset,
    split: str,
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
        DataError: no image is labelled, a label is none of the classes, or there are fewer than two
            classes that can be written.
    """
    examples, warnings = labelled(dataset, split)
    names = list(classnames(dataset, split))
    _check_classes(dataset, split, names, examples)
    if fonts is None:
        own = dataset.name == EmojiWorld.name and not split.startswith("test")
        fonts = "train" if own else "test"
    able = {name: fonts_with(name, font_files(fonts)) for name in names}
    words = [name for name in names if able[name]]
    if never := [name for name in names if not able[name]]:
        listed = ", ".join(never[:_LISTED]) + (" …" if len(never) > _LISTED else "")
        warnings.append(
            f"{len(never)} class names cannot be drawn with the fonts and are written on no image: "
            f"{listed}."
        )
    place = {name: i for i, name in enumerate(words)}
    views = [View(), *(View(style, n) for style in styles for n in range(attacks_per_image))]

    def word(example: Example, view: View) -> str | None:
        if view.style is None:
            return None
        own = place.get(str(example.label), len(words))
        others = len(words) - (own < len(words))
        if not others:
            raise DataError(f"There is no wrong name that could be written on {example.key}.")
        chosen = _random(seed, example, view, "word").randrange(others)
        return words[chosen + (chosen >= own)]

    written = [[word(example, view) for view in views] for example in examples]
    return AttackPlan(dataset, split, examples, names, views, written, seed, fonts, able, warnings)


def photographed_plan(dataset: Dataset, split: str, column: str) -> AttackPlan | None:
    """Each example as it is, with what its attribute `column` says is written on it.

    The classes are all labels and all written words, as in the protocol of the PAINT photographs.

    Returns:
        The plan; None where no example has that attribute.

    Raises:
        DataError: no image is labelled, or there are fewer than two classes.
    """
    examples, warnings = labelled(dataset, split)
    written = [[label_text(example.attributes.get(column) or "") or None] for example in examples]
    words = {row[0] for row in written if row[0]}
    if not words:
        return None
    names = sorted({str(example.label) for example in examples} | words)
    _check_classes(dataset, split, names, examples)
    return AttackPlan(dataset, split, examples, names, [View()], written, warnings=warnings)


def labelled(dataset: Dataset, split: str) -> tuple[list[Example], list[str]]:
    """The examples of a split that have a label, and warnings that count what is left out.

    Raises:
        DataError: none has one, or two share a key, by which rows are told apart.
    """
    everything = dataset.examples(split)
    examples = [example for example in everything if example.label]
    where = f"the split {split!r} of {dataset.name}"
    if not everything:
        on_disk = dataset.name in registry("datasets").names()
        show = f" `clipalign datasets show {dataset.name}` says what is expected on disk."
        raise DataError(f"There is no image in {where}.{show if on_disk else ''}")
    if not examples:
        raise DataError(
            f"None of the {len(everything)} images in {where} has a label: this suite needs to know"
            f" what is shown.{label_advice(dataset, split)}"
        )
    if twice := [key for key, n in Counter(e.key for e in examples).items() if n > 1]:
        raise DataError(f"Several images in {where} have the key {twice[0]!r}; each needs its own.")
    warnings = []
    if without := len(everything) - len(examples):
        warnings.append(f"{without} of {len(everything)} images have no label and are left out.")
    skipped: Sequence[tuple[str, str]] = getattr(dataset, "skipped", lambda _: ())(split)
    if skipped:
        named = "; ".join(f"{name} ({why})" for name, why in skipped[:_LISTED])
        more = f"; and {len(skipped) - _LISTED} more" if len(skipped) > _LISTED else ""
        warnings.append(f"{len(skipped)} files or rows were passed over: {named}{more}.")
    return examples, warnings


def _check_classes(
    dataset: Dataset, split: str, names: Sequence[str], examples: Sequence[Example]
) -> None:
    where = f"the split {split!r} of {dataset.name}"
    if len(names) < 2:
        raise DataError(f"Only one class in {where}: a choice needs at least two.")
    known = set(names)
    for example in examples:
        if example.label not in known:
            raise DataError(
                f"{example.key} in {where} is labelled {example.label!r}, which is none of its "
                f"{len(names)} classes.{near_matches(str(example.label), names)}"
            )


def _random(seed: int, example: Example, view: View, purpose: str) -> random.Random:
    return random.Random(f"{seed}/{example.key}/{view.style}/{view.number}/{purpose}")
