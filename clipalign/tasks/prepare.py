"""`prepare`: from labelled images to a preference set on disk."""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import __version__ as pillow_version
from PIL import features

from clipalign._version import __version__
from clipalign.cache import cache_dir
from clipalign.datasets.base import Dataset, Example
from clipalign.datasets.locate import build_component, load_dataset
from clipalign.errors import DataError, RunError, UsageError, near_matches
from clipalign.files import canonical_json, sha256_bytes, sha256_file, storage_errors
from clipalign.progress import Reporter, Silent
from clipalign.tasks import working
from clipalign.tasks.base import Candidates, Task
from clipalign.tasks.preference_set import (
    MANIFEST,
    PREVIEW,
    QUARANTINE,
    SCHEMA_VERSION,
    SPLIT_NAME,
    TABLE,
    Manifest,
    PreferenceSet,
    SplitCounts,
)
from clipalign.tasks.preview import preview
from clipalign.tasks.staging import staged

__all__ = ["prepare"]

_PREVIEW_ROWS = 12
_REASONS_SHOWN = 10


def prepare(
    task: str | Task = "typographic",
    dataset: str | Path | Dataset = "emoji",
    output: str | Path | None = None,
    *,
    task_options: Mapping[str, Any] | None = None,
    dataset_options: Mapping[str, Any] | None = None,
    splits: Sequence[str] | None = None,
    seed: int = 0,
    workers: int = 0,
    limit: int | None = None,
    max_side: int | None = 1024,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> PreferenceSet:
    """Turn labelled images into a preference set.

        clipalign.prepare("typographic", "./photos", "prefs/")
        clipalign.prepare("typographic", task_options={"styles": ["note"]})

    The set depends on the images, the options and the seed alone: any number of workers writes the
    same bytes. Images that cannot be used are listed in `quarantine.jsonl` with their reasons.

    Args:
        task: registered name, or a task.
        dataset: registered name, a folder, a table file, or a dataset.
        output: directory to make; None for the cache, where an equal set is used again.
        task_options: of a task given by name.
        dataset_options: of a dataset given by name or path.
        splits: names; None for train and validation, or whatever the dataset has instead.
        seed: of everything random.
        workers: processes; 0 for none beside this one.
        limit: images a split, drawn at random from all of it; None for all.
        max_side: larger images are shrunk to this many pixels, once; None for never.
        overwrite: replace a preference set that stands at `output`.
        reporter: hears what is being done.

    Returns:
        The set, opened and checked.

    Raises:
        UsageError, ConfigError: an unknown name or option.
        DataError: the dataset cannot serve the task, or none of its images can be used.
        RunError: something else stands at `output`.
        StorageError: the disk is full or not writable; nothing is left behind.
    """
    say: Reporter = reporter or Silent()
    options = dict(dataset_options or {})
    plan = _Plan.make(
        build_component("tasks", task, task_options or {}) if isinstance(task, str) else task,
        load_dataset(dataset, options) if isinstance(dataset, str | Path) else dataset,
        {key: str(v) if isinstance(v, Path) else v for key, v in options.items()},
        splits,
        seed,
        limit,
        max_side,
    )
    if output is None:
        target = cache_dir("preferences") / f"{plan.task.name}-{plan.sha256}"
    else:
        target = Path(output)
    if found := _equal_set(target, plan, cached=output is None, overwrite=overwrite):
        say.note(f"Using the preference set in {target}.")
        return found
    for note in plan.candidates.notes:
        say.note(f"Warning: {note}")
    with staged(target) as folder:
        plan.write(folder, workers, say)
    return PreferenceSet.open(target)


@dataclass(frozen=True)
class _Plan:
    """What is to be written, known before any image is read."""

    task: Task
    dataset: Dataset
    dataset_options: Mapping[str, Any]
    splits: tuple[str, ...]
    candidates: Candidates
    seed: int
    limit: int | None
    max_side: int | None

    @classmethod
    def make(
        cls,
        task: Task,
        dataset: Dataset,
        dataset_options: Mapping[str, Any],
        splits: Sequence[str] | None,
        seed: int,
        limit: int | None,
        max_side: int | None,
    ) -> _Plan:
        """Check everything that can be checked at once."""
        for name, value in (("limit", limit), ("max_side", max_side)):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}.")
        chosen = _choose_splits(dataset, splits)
        first, *others = (task.candidates(dataset, split) for split in chosen)
        for split, other in zip(chosen[1:], others, strict=True):
            if (other.preference, other.regulariser) != (first.preference, first.regulariser):
                raise DataError(
                    f"The splits {chosen[0]!r} and {split!r} have different classes, and a "
                    "preference set has one list of candidates: prepare them as two sets."
                )
        for texts in (first.preference, first.regulariser or ()):
            if twice := sorted({text for text in texts if texts.count(text) > 1}):
                raise DataError(f"Two classes have the same prompt: {', '.join(twice[:5])}.")
        notes = dict.fromkeys(note for c in (first, *others) for note in c.notes)
        candidates = dataclasses.replace(first, notes=tuple(notes))
        return cls(task, dataset, dataset_options, chosen, candidates, seed, limit, max_side)

    @property
    def sha256(self) -> str:
        """Of everything that decides the bytes of the set."""
        return sha256_bytes(
            canonical_json(
                {
                    "schema": SCHEMA_VERSION,
                    "task": [self.task.name, self._task_options, self.task.fingerprint],
                    "dataset": [self.dataset.name, self.dataset.fingerprint],
                    "code": [_source(thing) for thing in (type(self.task), type(self.dataset))],
                    "made_with": _made_with(),
                    "candidates": dataclasses.astuple(self.candidates),
                    "splits": self.splits,
                    "seed": self.seed,
                    "limit": self.limit,
                    "max_side": self.max_side,
                }
            )
        )

    @property
    def _task_options(self) -> dict[str, Any]:
        options: dict[str, Any] = self.task.options.model_dump(mode="json")
        return options

    def write(self, folder: Path, workers: int, say: Reporter) -> None:
        """Write the whole set into an empty directory."""
        recipe = working.Recipe(self.task, self.dataset, self.seed, self.max_side, folder)
        quarantine: list[working.Row] = []
        counts = {}
        with working.Workers(recipe, workers) as pool:
            for split in self.splits:
                counts[split] = self._write_split(split, folder / split, pool, quarantine, say)
        tables = [f"{split}/{TABLE}" for split in self.splits]
        with storage_errors(folder):
            if quarantine:
                (folder / QUARANTINE).write_bytes(b"".join(map(_line, quarantine)))
                tables.append(QUARANTINE)
            (folder / PREVIEW).write_bytes(self._preview(folder, counts))
            files = {name: sha256_file(folder / name) for name in tables}
            manifest = self._manifest(counts, files).sealed()
            (folder / MANIFEST).write_text(manifest.dump(), encoding="utf-8")

    def _write_split(
        self,
        split: str,
        folder: Path,
        pool: working.Workers,
        quarantine: list[working.Row],
        say: Reporter,
    ) -> SplitCounts:
        examples = self._examples(split)
        refused = [
            {"split": split, "key": name, "file": name, "reason": reason}
            for name, reason in _skipped(self.dataset, split)
        ]
        rows = 0
        with storage_errors(folder):
            for part in ("images", "clean"):
                (folder / part).mkdir(parents=True)
            table = (folder / TABLE).open("wb")
        with table, say.progress(f"Preparing {split}", len(examples)) as bar:
            for outcome in pool.outcomes(split, examples):
                if outcome.quarantined is not None:
                    refused.append(outcome.quarantined)
                with storage_errors(folder):
                    table.writelines(map(_line, outcome.rows))
                rows += len(outcome.rows)
                bar.advance()
            with storage_errors(folder):
                table.flush()
        if not rows:
            raise DataError(_none_usable(self.dataset, split, refused))
        quarantine += refused
        return SplitCounts(images=len(examples), rows=rows, quarantined=len(refused))

    def _examples(self, split: str) -> Sequence[Example]:
        examples = self.dataset.examples(split)
        if self.limit is None or self.limit >= len(examples):
            return examples
        rng = random.Random(f"{self.seed}/{split}/limit")
        return [examples[i] for i in sorted(rng.sample(range(len(examples)), self.limit))]

    def _preview(self, folder: Path, counts: Mapping[str, SplitCounts]) -> bytes:
        split = self.splits[0]
        total = counts[split].rows
        shown = min(_PREVIEW_ROWS, total)
        wanted = {i * total // shown for i in range(shown)}
        with (folder / split / TABLE).open("rb") as file:
            rows = [json.loads(line) for i, line in enumerate(file) if i in wanted]
        title = f"{self.task.name} on {self.dataset.name}, {split}: {shown} of {total:,} rows"
        return preview(title, rows, folder / split)

    def _manifest(self, counts: dict[str, SplitCounts], files: dict[str, str]) -> Manifest:
        own = self.candidates.regulariser
        return Manifest(
            schema_version=SCHEMA_VERSION,
            task=self.task.name,
            options=self._task_options,
            seed=self.seed,
            limit=self.limit,
            max_side=self.max_side,
            dataset=self.dataset.name,
            dataset_options=json.loads(canonical_json(self.dataset_options)),
            dataset_fingerprint=self.dataset.fingerprint,
            licence=self.dataset.licence,
            candidates=list(self.candidates.preference),
            regulariser_candidates=None if own is None else list(own),
            counts=counts,
            quarantined=sum(c.quarantined for c in counts.values()),
            notes=list(self.candidates.notes),
            made_with=_made_with(),
            recipe_sha256=self.sha256,
            files=files,
            content_sha256="",
        )


def _choose_splits(dataset: Dataset, wanted: Sequence[str] | None) -> tuple[str, ...]:
    known = dataset.splits()
    if wanted is None:
        usual = [split for split in ("train", "validation") if split in known]
        wanted = usual or known
    for split in wanted:
        if split not in known:
            raise UsageError(
                f"The dataset {dataset.name!r} has no split {split!r}.{near_matches(split, known)}"
            )
        if not SPLIT_NAME.fullmatch(split):
            raise DataError(f"The split {split!r} cannot name a folder.")
    if not wanted:
        raise DataError(f"The dataset {dataset.name!r} has no splits.")
    return tuple(dict.fromkeys(wanted))


def _equal_set(target: Path, plan: _Plan, *, cached: bool, overwrite: bool) -> PreferenceSet | None:
    """The set at `target` where it is the one that is asked for; None where it is to be written.

    Raises:
        RunError: something stands there that must not be replaced.
    """
    if not target.is_dir() or not any(target.iterdir()):
        return None
    ours = cached or (target / MANIFEST).is_file()
    if overwrite and ours:
        return None
    if not ours:
        raise RunError(
            f"{target} is not empty and not a preference set; it is left alone. Choose another "
            "directory."
        )
    try:
        found = PreferenceSet.open(target)
    except DataError as error:
        if cached:
            return None
        raise RunError(f"{error}\nReplace it with --overwrite.") from None
    if found.manifest.recipe_sha256 == plan.sha256:
        return found
    raise RunError(
        f"{target} holds another preference set ({found.manifest.task} on "
        f"{found.manifest.dataset}, seed {found.manifest.seed}, or other options). Choose another "
        "directory, or replace it with --overwrite."
    )


def _skipped(dataset: Dataset, split: str) -> Iterable[tuple[str, str]]:
    """Files that a dataset passed over, with reasons, where it keeps count of them."""
    skipped: Any = getattr(dataset, "skipped", None)
    return skipped(split) if skipped else ()


def _none_usable(dataset: Dataset, split: str, refused: Sequence[Mapping[str, str]]) -> str:
    lines = [f"  {row['file']}: {row['reason']}" for row in islice(refused, _REASONS_SHOWN)]
    if len(refused) > len(lines):
        lines.append(f"  and {len(refused) - len(lines)} more")
    return (
        f"No image of the split {split!r} of the dataset {dataset.name!r} can be used"
        + (":\n" if lines else ".")
        + "\n".join(lines)
    )


def _line(row: Mapping[str, Any]) -> bytes:
    """One line of a table. ASCII escapes carry even names that are not valid Unicode."""
    return json.dumps(row, allow_nan=False).encode("ascii") + b"\n"


def _made_with() -> dict[str, str]:
    """The versions that decide how letters and files come out."""
    return {
        "clipalign": __version__,
        "pillow": pillow_version,
        "freetype": str(features.version("freetype2")),
        "jpeg": str(features.version("libjpeg_turbo") or features.version("jpg")),
        "zlib": str(features.version("zlib")),
    }


def _source(cls: type) -> str:
    """sha256 of the file that a class is written in: a plugin's version is not ours to know."""
    path = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return sha256_file(path) if path and Path(path).is_file() else cls.__module__
