"""The concept file: two or more values of an attribute, and how captions say them.

    name: age
    attribute: age                      # column of the images
    values:
      old: [an old, elderly]            # the first is written in captions
      young: [a young]
    captions:
      alone: {concept: "a photo of {value} person.", neutral: "a photo of a person."}

`gender.yaml`, beside this file, uses and explains every key.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from clipalign.errors import ConfigError, near_matches
from clipalign.options import explain
from clipalign.plain_yaml import read_yaml_mapping

__all__ = ["Concept", "concept_path", "load_concept"]

_SHIPPED = Path(__file__).parent


def _with(*places: str) -> Callable[[str], str]:
    """A check that a template has each of `places` exactly once, and no other."""
    wanted = " and ".join(f"{{{p}}}" for p in places) or "none"

    def check(template: str) -> str:
        try:
            fields = list(string.Formatter().parse(template))
        except ValueError as error:
            raise ValueError(f"{template!r} is not a template: {error}") from None
        found = [name for _, name, *_ in fields if name is not None]
        plain = all(not form and not conversion for _, _, form, conversion in fields)
        if sorted(found) != sorted(places) or not plain:
            had = " and ".join(f"{{{name}}}" for name in found) or "none"
            raise ValueError(f"{template!r} must have the places {wanted}, once each, not {had}")
        return template

    return check


Word = Annotated[str, Field(min_length=1, max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Alone(_Part):
    """Captions of an image of which the value alone is known."""

    concept: Annotated[str, AfterValidator(_with("value"))]
    neutral: Annotated[str, AfterValidator(_with())] | None = None


class WithActivity(_Part):
    """Captions of an image whose activity is known."""

    concept: Annotated[str, AfterValidator(_with("value", "activity"))]
    neutral: Annotated[str, AfterValidator(_with("activity"))]


class Captions(_Part):
    """Templates, by what is known; an activity reads as a phrase or as a noun."""

    alone: Alone
    phrase: WithActivity | None = None
    noun: WithActivity | None = None


class Nouns(_Part):
    """Which activities are nouns; all others are phrases."""

    column: str = Field("kind", description="Column that says what kind an activity is.")
    values: tuple[Word, ...] = Field((), description="What it says of nouns.")
    activities: tuple[Word, ...] = Field((), description="Nouns, whatever it says.")


class Concept(_Part):
    """What a concept file says."""

    name: Word
    attribute: Word = Field(description="Column of the value; label for the class name.")
    activity: Word | None = Field(None, description="Column of the activity, likewise.")
    values: dict[Word, Annotated[tuple[Word, ...], Field(min_length=1)]] = Field(
        min_length=2, description="Values, each with its words; the first is written in captions."
    )
    captions: Captions
    nouns: Nouns = Nouns()

    @property
    def takes_activities(self) -> bool:
        """Whether there are captions that say an activity."""
        return self.captions.phrase is not None or self.captions.noun is not None

    def value_of(self, text: str) -> str | None:
        """The value that a cell of the column means; None where it means none of them."""
        text = _plain(text)
        for value, words in self.values.items():
            if text in map(_plain, (value, *words)):
                return value
        return None

    def others(self, value: str) -> Sequence[str]:
        """The values that a caption may be flipped to; one for a pair."""
        return [other for other in self.values if other != value]

    def said_in(self, text: str) -> str | None:
        """A word of the concept that stands in a text, as a whole word; None where none does."""
        words = tuple(word for value, words in self.values.items() for word in (value, *words))
        found = _any_of(words).search(text)
        return found.group() if found else None

    def is_noun(self, activity: str, kind: str) -> bool:
        """Whether an activity reads as a noun, given the cell of the column that may say so."""
        listed = _plain(activity) in map(_plain, self.nouns.activities)
        return listed or _plain(kind) in map(_plain, self.nouns.values)

    def caption(self, value: str, activity: str, noun: bool) -> str:
        """The caption that says a value; `activity` is "" where it is not known."""
        template = self._templates(activity, noun).concept
        return template.format(value=self.values[value][0], activity=activity)

    def neutral(self, activity: str, noun: bool) -> str | None:
        """The caption that says no value; None where the file has none."""
        template = self._templates(activity, noun).neutral
        return None if template is None else template.format(activity=activity)

    def _templates(self, activity: str, noun: bool) -> Alone | WithActivity:
        both = self.captions.phrase, self.captions.noun
        preferred, other = both[::-1] if noun else both
        return (preferred or other or self.captions.alone) if activity else self.captions.alone


def concept_path(spec: str) -> Path:
    """The file that a spec names: a path, or the name of a concept that clipalign ships."""
    shipped = _SHIPPED / f"{spec}.yaml"
    if re.fullmatch(r"\w+", spec) and shipped.is_file():
        return shipped
    return Path(spec)


def load_concept(spec: str) -> Concept:
    """Read a concept file.

    Args:
        spec: a path, or the name of a concept that clipalign ships.

    Raises:
        ConfigError: there is no such file, or it is no concept; all that is wrong with it, one
            line each.
    """
    path = concept_path(spec)
    if not path.is_file():
        names = [file.stem for file in _SHIPPED.glob("*.yaml")]
        raise ConfigError(f"There is no concept file {spec!r}.{near_matches(spec, names)}")
    tree = read_yaml_mapping(path)
    try:
        concept = Concept.model_validate(tree)
    except ValidationError as error:
        problems = explain(error, Concept)
    else:
        problems = _contradictions(concept)
    if problems:
        raise ConfigError(f"{path} is not a concept:\n" + "\n".join(f"  {p}" for p in problems))
    return concept


def _contradictions(concept: Concept) -> list[str]:
    """What is wrong between keys."""
    problems = []
    owner: dict[str, str] = {}
    written: dict[str, str] = {}
    for value, words in concept.values.items():
        first = _plain(words[0])
        if first in written:
            problems.append(
                f"values.{value}: it is written {words[0]!r}, as {written[first]} is, so that the "
                "captions of both would be equal"
            )
            continue
        written[first] = value
        for word in map(_plain, dict.fromkeys((value, *words))):
            if owner.setdefault(word, value) != value:
                problems.append(f"values.{value}: {word!r} is also a word of {owner[word]}")
    captions = concept.captions
    for key in Captions.model_fields:
        part = getattr(captions, key)
        if part is not None and (said := concept.said_in(part.neutral or "")):
            problems.append(f"captions.{key}.neutral: it says {said!r}, a word of the concept")
    if (concept.nouns.values or concept.nouns.activities) and captions.noun is None:
        problems.append("nouns: there are no captions for them; give captions.noun")
    if concept.activity is not None and not concept.takes_activities:
        problems.append("activity: there are no captions for it; give captions.phrase")
    return problems


@functools.lru_cache
def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    """Finds any of the words where it stands whole: "man", not within "woman" or "manager"."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
