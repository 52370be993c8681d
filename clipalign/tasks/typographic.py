"""Task `typographic`: what an image shows must win over the word that is written on it.

The name of another class, uniform over them, is written on each image; the prompt of the true
class is chosen, the prompt of the written one rejected, and the clean image is the regulariser's
("Aligning Visual Contrastive Learning Models via Preference Optimization", §4).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image, ImageFont
from pydantic import BaseModel, ConfigDict, Field, field_validator

from clipalign.datasets.base import Dataset, Example
from clipalign.datasets.options import Label, Template, label_advice
from clipalign.errors import DataError, near_matches
from clipalign.option_flags import task_option
from clipalign.tasks import glyphs, lettering, rendering
from clipalign.tasks.base import Candidates, PreparedRow, classnames
from clipalign.tasks.lettering import fonts_with, needs_shaping

__all__ = ["Typographic"]

_NAMES_SHOWN = 10


class Typographic:
    """Writes the name of a wrong class on each image.

    Fonts and colours of splits whose name begins with "test" share nothing with those of others.
    """

    name = "typographic"

    class Options(BaseModel):
        """Options of the task."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        styles: tuple[rendering.Style, ...] = Field(
            rendering.STYLES,
            min_length=1,
            description="How words are drawn; one of these at random for each attack.",
        )
        attacks_per_image: int = Field(
            1, ge=1, le=1000, description="Attacked copies of each image, a wrong word each."
        )
        template: Template | None = Field(
            None,
            description="Prompt with one {}; null for the first of the dataset's. Names are put in "
            "as they are, as in CLIP's own templates: a photo of a orangutan.",
        )
        fonts: tuple[Path, ...] | None = Field(
            None, min_length=1, description="Font files for every split; null for clipalign's own."
        )
        wrong_classes: tuple[Label, ...] | None = Field(
            None, min_length=1, description="Names that may be written; null for all classes."
        )

        @field_validator("fonts")
        @classmethod
        def _readable(cls, fonts: tuple[Path, ...] | None) -> tuple[Path, ...] | None:
            for path, size in product(fonts or (), (20, 33)):  # pixels; bitmaps have few sizes
                try:
                    ImageFont.truetype(str(path), size)
                except OSError as error:
                    if "pixel size" in str(error):
                        raise ValueError(f"{path} has no outlines that scale") from None
                    raise ValueError(f"{path} is not a font that can be read: {error}") from None
            return fonts

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)
        self._known: dict[tuple[str, str], _Words] = {}

    @property
    def fingerprint(self) -> str:
        """sha256 of the fonts and of the code that draws with them."""
        digest = hashlib.sha256()
        for code in (rendering.__file__, glyphs.__file__, lettering.__file__):
            digest.update(Path(str(code)).read_bytes())
        for side in ("train", "test"):
            for path in self._fonts(side):
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def candidates(self, dataset: Dataset, split: str) -> Candidates:
        """One prompt a class, in the order of the class names.

        Raises:
            DataError: the split has fewer than two classes, or `wrong_classes` names none of them.
        """
        names = classnames(dataset, split)
        if len(names) < 2:
            raise DataError(
                f"The split {split!r} of the dataset {dataset.name!r} has "
                + (f"one class, {names[0]!r}" if names else "no classes")
                + ": to write a wrong name on an image takes at least two."
                + ("" if names else label_advice(dataset, split))
            )
        for name in self.options.wrong_classes or ():
            if name not in names:
                raise DataError(
                    f"wrong_classes names {name!r}, which is not a class of the split {split!r}."
                    + near_matches(name, names)
                )
        words, fonts = self._words(dataset, split).fonts, self._fonts(_side(split))
        notes = []
        never = [name for name, able in words.items() if not able]
        if lacking := [name for name in never if not needs_shaping(name)]:
            notes.append(
                f"No font draws all characters of {_listed(lacking)}: they are written on no "
                f"image. Name fonts that do with {task_option('fonts=[FILE]')}."
            )
        if joined := [name for name in never if needs_shaping(name)]:
            notes.append(
                f"No font is enough for {_listed(joined)}, whose letters run from right to left, "
                "join or change places: they are written on no image, since words are drawn a "
                "letter at a time from left to right."
            )
        if some := [name for name, able in words.items() if 0 < len(able) < len(fonts)]:
            notes.append(f"Not every font has all characters of {_listed(some)}; others are used.")
        if len(never) == len(words):
            raise DataError(" ".join(notes))
        template = self._template(dataset)
        return Candidates(tuple(template.format(name) for name in names), notes=tuple(notes))

    def rows(
        self,
        example: Example,
        image: Image.Image,
        dataset: Dataset,
        split: str,
        rng: random.Random,
    ) -> Iterator[PreparedRow]:
        """One row an attack, all with the same clean image.

        Raises:
            DataError: the image has no usable label, carries a word already, or is too small.
        """
        if there := example.attributes.get("attack_text", "").strip():
            raise DataError(f"{there!r} is written on it already (attack_text)")
        label, words = example.label, self._words(dataset, split)
        if label is None or label not in words.classes:
            raise DataError("it has no label" if label is None else f"{label!r} is not a class")
        if not words.count_wrong(label):
            raise DataError(f"there is no wrong name to write on an image of {label!r}")
        template, side = self._template(dataset), _side(split)
        for _ in range(self.options.attacks_per_image):
            word = words.draw_wrong(label, rng)
            attacked, attack = rendering.draw_attack(
                image,
                word,
                rng,
                style=rng.choice(self.options.styles),
                split=side,
                fonts=words.fonts[word],
            )
            right, bottom = attack.box[2:]
            if right > image.width or bottom > image.height:
                raise DataError(
                    f"{image.width} × {image.height} pixels are too few to write {word!r} on, "
                    "in any font"
                )
            columns = {
                "attack_text": word,
                "style": attack.style,
                "font": attack.font,
                "font_size": str(attack.size),
                "fill": "#{:02x}{:02x}{:02x}".format(*attack.fill),
                "around": "#{:02x}{:02x}{:02x}".format(*attack.around),
                "box": ",".join(map(str, attack.box)),
            }
            yield PreparedRow(
                attacked, image, template.format(label), template.format(word), columns
            )

    def _template(self, dataset: Dataset) -> str:
        return self.options.template or dataset.templates[0]

    def _fonts(self, side: str) -> tuple[Path, ...]:
        return self.options.fonts or rendering.font_files(side)

    def _words(self, dataset: Dataset, split: str) -> _Words:
        key = dataset.fingerprint, split
        if key not in self._known:
            classes, files = classnames(dataset, split), self._fonts(_side(split))
            fonts = {
                name: fonts_with(name, files) for name in self.options.wrong_classes or classes
            }
            writable = tuple(name for name, able in fonts.items() if able)
            place = {name: i for i, name in enumerate(writable)}
            self._known[key] = _Words(frozenset(classes), fonts, writable, place)
        return self._known[key]


@dataclass(frozen=True, slots=True)
class _Words:
    """What may be written on the images of a split.

    Attributes:
        classes: all class names.
        fonts: of each name that may be written, the fonts that have its characters.
        writable: the names for which there is one.
        place: of each among them.
    """

    classes: frozenset[str]
    fonts: dict[str, tuple[Path, ...]]
    writable: tuple[str, ...]
    place: dict[str, int]

    def count_wrong(self, label: str) -> int:
        """How many other names than that of an image's class may be written on it."""
        return len(self.writable) - (label in self.place)

    def draw_wrong(self, label: str, rng: random.Random) -> str:
        """One of them at random, without a list of them for every image."""
        drawn = rng.randrange(self.count_wrong(label))
        return self.writable[drawn + (drawn >= self.place.get(label, len(self.writable)))]


def _side(split: str) -> str:
    return "test" if split.startswith("test") else "train"


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return shown + (f" and {more} more" if more > 0 else "")
