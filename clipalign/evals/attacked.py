"""The images that the typographic suite scored, and what was made of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipalign.evals.attacks import AttackPlan
from clipalign.evals.metrics import attacked_rows, per_class_accuracy
from clipalign.evals.scoring import Distance, Scores

__all__ = ["Attacked", "Judged"]

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Attacked:
    """M images that were scored, clean and attacked: what is shown, what is written.

    Attributes:
        plan: they are of.
        item: [M] index of the example.
        view: [M] index of the view.
        true: [M] class shown, an index into the plan's class names.
        written: [M] class written; −1 on clean images.
        clean: [M] index of the same example's clean image; −1 where there is none.
        group: [M] images of one group are not independent.
    """

    plan: AttackPlan
    item: Ints
    view: Ints
    true: Ints
    written: Ints
    clean: Ints
    group: npt.NDArray[np.str_]

    @classmethod
    def of(cls, plan: AttackPlan, items: Ints) -> Attacked:
        """All views of the examples that could be read, example by example."""
        index = {name: c for c, name in enumerate(plan.classnames)}
        index_of = lambda text: -1 if text is None else index[text]  # noqa: E731
        views = len(plan.views)
        written = np.array([[index_of(t) for t in plan.written[i]] for i in items], np.int64)
        examples = [plan.examples[i] for i in items]
        first = np.repeat(np.arange(len(items)) * views, views)
        return cls(
            plan,
            np.repeat(items, views),
            np.tile(np.arange(views), len(items)),
            np.repeat(np.array([index_of(e.label) for e in examples], np.int64), views),
            written.flatten(),
            np.where(written.flatten()[first] < 0, first, -1),
            np.repeat(np.array([e.group or e.key for e in examples], np.str_), views),
        )

    @property
    def is_clean(self) -> Bools:
        """[M] nothing is written."""
        return np.asarray(self.written < 0)

    @property
    def is_attacked(self) -> Bools:
        """[M] a wrong word is written: another class than the one shown."""
        return attacked_rows(self.written, self.true)

    def styles(self) -> npt.NDArray[np.str_]:
        """[M] "clean", how the word was drawn, or "photograph" where it was not drawn."""
        drawn = np.array([view.style or "photograph" for view in self.plan.views], np.str_)
        return np.where(self.is_clean, "clean", drawn[self.view])

    def paired(self) -> Ints:
        """Indices of the attacked images whose clean image was scored too."""
        return np.flatnonzero(self.is_attacked & (self.clean >= 0))


@dataclass(frozen=True)
class Judged:
    """The images with what the model, and the reference where there is one, made of them.

    Attributes:
        images: M.
        scores: of the model, and then of the reference.
        moved: how far the clean images moved from the reference; None without one.
    """

    images: Attacked
    scores: Sequence[Scores]
    moved: Distance | None

    def right(self) -> list[Bools]:
        """[M] for each of the scores: whether the image is given its own class."""
        return [np.asarray(s.predicted == self.images.true) for s in self.scores]

    def fooled(self) -> list[Bools]:
        """[M] for each of the scores: whether the image is given the written class."""
        return [np.asarray(s.predicted == self.images.written) for s in self.scores]

    def per_class(self) -> dict[str, dict[str, float | int]]:
        """Of each class shown: n, clean and attacked accuracy, attack success of the model."""
        images, predicted = self.images, self.scores[0].predicted
        names = self.images.plan.classnames
        found: dict[str, dict[str, float | int]] = {}
        for key, rows, target in (
            ("clean", images.is_clean, images.true),
            ("attacked", images.is_attacked, images.true),
        ):
            for name, each in per_class_accuracy(predicted[rows], target[rows], names).items():
                row = found.setdefault(name, {})
                row |= {f"{key}_accuracy": each["accuracy"], f"{key}_n": each["n"]}
        for c, name in enumerate(names):
            rows = images.is_attacked & (images.true == c)
            if rows.any():
                fooled = predicted[rows] == images.written[rows]
                found[name]["attack_success_rate"] = float(fooled.mean())
        return found

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row an image, from which every number can be computed again."""
        images, names = self.images, self.images.plan.classnames
        place = np.cumsum(images.is_clean) - 1
        for m, style in enumerate(images.styles()):
            example = images.plan.examples[images.item[m]]
            row: dict[str, Any] = {
                "key": example.key,
                "group": str(images.group[m]),
                "style": str(style),
                "attack": images.plan.views[images.view[m]].number,
                "label": example.label,
                "written": names[images.written[m]] if images.written[m] >= 0 else None,
            }
            for prefix, s in zip(("", "reference_"), self.scores, strict=False):
                row[f"{prefix}predicted"] = names[s.predicted[m]]
                row[f"{prefix}confidence"] = float(s.confidence[m])
                row[f"{prefix}p_true"] = float(np.exp(s.log_true[m]))
                if images.written[m] >= 0:
                    row[f"{prefix}p_written"] = float(np.exp(s.log_written[m]))
            if self.moved is not None and images.is_clean[m]:
                row |= self.moved.row(place[m])
            yield row
