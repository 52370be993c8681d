"""The wall: attacked images with what was said of them before and after, the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clipalign.datasets.base import Dataset
from clipalign.errors import ClipAlignError, DataError
from clipalign.evals.attacks import AttackPlan, View
from clipalign.evals.results import SuiteResult
from clipalign.evals.typographic import TypographicSuite
from clipalign.options import component
from clipalign.progress import Reporter
from clipalign.reports.pictures import Images, thumbnail
from clipalign.reports.sources import Source

__all__ = ["KINDS", "Tile", "Wall", "build_wall"]

KINDS: Final = {
    "broken": "broken: right before, wrong now",
    "still wrong": "still wrong",
    "fixed": "fixed: wrong before, right now",
    "still right": "still right",
    "wrong": "wrong",
    "right": "right",
}
"""Kinds of change, the worst first; the last two are of a model that stands alone."""

_SIDE = 112


@dataclass(frozen=True)
class Tile:
    """One attacked image.

    Attributes:
        kind: a key of `KINDS`.
        data: split it is of.
        style: how the word is there: outlined, note, photograph.
        label, written: what is shown, and what is written.
        before, after: (text said, its probability, right, word, other); before is None for a model
            that stands alone.
        picture: data URI.
    """

    kind: str
    data: str
    style: str
    label: str
    written: str
    before: tuple[str, float, str] | None
    after: tuple[str, float, str]
    picture: str

    @property
    def search(self) -> str:
        """What a search looks through."""
        words = [self.label, self.written, self.after[0], self.before[0] if self.before else ""]
        return " ".join(words).casefold()


@dataclass(frozen=True)
class Wall:
    """The tiles of one source.

    Attributes:
        title: its name.
        tiles: the worst first.
        total: attacked images that were scored.
        counts: of each kind, among all that were scored.
        problems: why images are missing, in words.
    """

    title: str
    tiles: tuple[Tile, ...]
    total: int
    counts: Mapping[str, int]
    problems: tuple[str, ...]

    @property
    def kinds(self) -> list[str]:
        """Those there are, the worst first."""
        return [kind for kind in KINDS if self.counts.get(kind)]

    @property
    def styles(self) -> list[str]:
        """Those on the tiles."""
        return sorted({tile.style for tile in self.tiles})

    @property
    def data(self) -> list[str]:
        """Splits that tiles are of."""
        return sorted({tile.data for tile in self.tiles})


@dataclass(frozen=True)
class _Scored:
    result: SuiteResult
    row: Mapping[str, Any]
    kind: str

    @property
    def badness(self) -> tuple[int, float, str, int]:
        """By kind; then by how sure the model is of what is wrong, or unsure of what is right."""
        sure = float(self.row.get("p_true", 0.0))
        where = str(self.row["key"]), int(self.row["attack"])
        return (list(KINDS).index(self.kind), sure, *where)


def build_wall(source: Source, images: Images, limit: int, reporter: Reporter) -> Wall | None:
    """The wall of a source; None where no attacked image was scored.

    Of each kind of change the worst are shown, as many of each as there is room for, so that
    neither what was mended nor what was broken crowds out the other.

    Args:
        source: with results.
        images: where they may be.
        limit: tiles, at most.
        reporter: hears the progress.
    """
    scored = []
    for measured in source.results:
        for row in measured.rows:
            wrong = row.get("written") not in (None, row.get("label"))
            if wrong and "predicted" in row:
                scored.append(_Scored(measured.result, row, _kind(row)))
    if not scored:
        return None
    counts = Counter(item.kind for item in scored)
    chosen = _share(sorted(scored, key=lambda item: item.badness), limit)
    problems: list[str] = []
    readers: dict[int, _Reader | None] = {}
    tiles = []
    with reporter.progress("Drawing images", len(chosen)) as bar:
        for item in chosen:
            bar.advance()
            key = id(item.result)
            try:
                if key not in readers:
                    readers[key] = None
                    readers[key] = _Reader.of(images.of(source, item.result), item.result)
                if (reader := readers[key]) is not None:
                    tiles.append(_tile(item, reader.picture(item.row)))
            except ClipAlignError as error:  # of a dataset that is not installed here, too
                problems.append(str(error))
    return Wall(source.name, tuple(tiles), len(scored), counts, tuple(dict.fromkeys(problems)))


@dataclass(frozen=True)
class _Reader:
    """Draws the images of one result again."""

    plan: AttackPlan
    items: Mapping[str, int]

    @classmethod
    def of(cls, dataset: Dataset, result: SuiteResult) -> _Reader:
        known = TypographicSuite.Options.model_fields
        options = {k: v for k, v in result.options.items() if k in known}
        suite: TypographicSuite = component("suites", TypographicSuite.name, **options)
        plan = suite.plan(dataset, result.dataset.split, result.seed)
        return cls(plan, {example.key: i for i, example in enumerate(plan.examples)})

    def picture(self, row: Mapping[str, Any]) -> str:
        """The image of a row.

        Raises:
            DataError: it is gone or is drawn otherwise than it was.
        """
        style = None if row["style"] in ("photograph", "clean") else row["style"]
        view = View(style, int(row["attack"]))
        item = self.items.get(row["key"])
        if item is None or view not in self.plan.views:
            raise DataError(f"The image {row['key']} is not in the data any more.")
        place = list(self.plan.views).index(view)
        if self.plan.written[item][place] != row["written"]:
            raise DataError(
                "This version of clipalign writes other words on the images than the one that "
                "scored them. Evaluate again."
            )
        return thumbnail(self.plan.read(item)[place], _SIDE)


def _kind(row: Mapping[str, Any]) -> str:
    right = row["predicted"] == row["label"]
    if "reference_predicted" not in row:
        return "right" if right else "wrong"
    if row["reference_predicted"] == row["label"]:
        return "still right" if right else "broken"
    return "fixed" if right else "still wrong"


def _share(ordered: Sequence[_Scored], limit: int) -> list[_Scored]:
    """The first of each kind, evenly many, and what room is left to those that have more."""
    by_kind: dict[str, list[_Scored]] = {}
    for item in ordered:
        by_kind.setdefault(item.kind, []).append(item)
    room = dict.fromkeys(by_kind, 0)
    left = min(limit, len(ordered))
    while left:
        open_kinds = [kind for kind in by_kind if room[kind] < len(by_kind[kind])]
        each = max(1, left // len(open_kinds))
        for kind in open_kinds:
            more = min(each, left, len(by_kind[kind]) - room[kind])
            room[kind] += more
            left -= more
    return [item for kind, items in by_kind.items() for item in items[: room[kind]]]


def _tile(item: _Scored, picture: str) -> Tile:
    row = item.row

    def said(prefix: str) -> tuple[str, float, str]:
        text = str(row[f"{prefix}predicted"])
        what = {row["label"]: "right", row["written"]: "word"}.get(text, "other")
        return text, float(row[f"{prefix}confidence"]), what

    return Tile(
        item.kind,
        item.result.dataset.split,
        str(row["style"]),
        str(row["label"]),
        str(row["written"]),
        said("reference_") if "reference_predicted" in row else None,
        said(""),
        picture,
    )
