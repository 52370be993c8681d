"""Writes the files of a preference set: rows and images, by one process or in parts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from clipalign.datasets.base import Dataset
from clipalign.errors import DataError
from clipalign.files import atomic_write_text, sha256_file, storage_errors
from clipalign.progress import Reporter
from clipalign.tasks.lines import Lines
from clipalign.tasks.manifest import MANIFEST, SplitCounts
from clipalign.tasks.packing import Packer
from clipalign.tasks.plan import Plan
from clipalign.tasks.preference_set import PREVIEW, QUARANTINE
from clipalign.tasks.preference_table import TABLE
from clipalign.tasks.preview import preview
from clipalign.tasks.shards import WHOLE, Shard, Shards
from clipalign.tasks.working import LOOSE, Recipe, Row, Workers, example_number

__all__ = ["join", "write", "write_part"]

_PREVIEW_ROWS = 12


def write(plan: Plan, folder: Path, workers: int, say: Reporter) -> None:
    """Write the whole set into an empty directory."""
    recipe = Recipe(plan.task, plan.dataset, plan.seed, plan.max_side, folder)
    counts: dict[str, SplitCounts] = {}
    with Workers(recipe, workers) as pool, Lines(folder / QUARANTINE) as refused:
        for split in plan.splits:
            for part in LOOSE:
                with storage_errors(folder):
                    (folder / split / part).mkdir(parents=True)
            refused.turn()
            with _table(plan, split, folder, keep=False) as rows:
                images = _write_rows(plan, split, pool, rows, refused, WHOLE, say)
            counts[split] = _counted(plan, split, images, rows.count, refused)
    _complete(plan, folder, counts, say)
    _remove_loose(plan, folder)


@contextmanager
def _table(plan: Plan, split: str, folder: Path, *, keep: bool) -> Iterator[Lines]:
    """The table of a whole split, written an example at a time; tar shards are packed with it."""
    place = folder / split
    if plan.shard_rows is None:
        with Lines(place / TABLE) as rows:
            yield rows
        return
    with (
        Packer(place, split, plan.shard_rows, keep=keep) as packer,
        Lines(place / TABLE, packer.pack) as rows,
    ):
        yield rows


def _remove_loose(plan: Plan, folder: Path) -> None:
    """Remove what has been packed."""
    with storage_errors(folder):
        for split in plan.splits if plan.shard_rows else ():
            for part in LOOSE:
                shutil.rmtree(folder / split / part)


def write_part(plan: Plan, parts: Shards, workers: int, say: Reporter) -> None:
    """Write the rows of one part of every split."""
    recipe = Recipe(plan.task, plan.dataset, plan.seed, plan.max_side, parts.folder)
    counts = {}
    with Workers(recipe, workers) as pool:
        for split in plan.splits:
            with Lines(parts.table(split)) as rows, Lines(parts.refused(split)) as refused:
                images = _write_rows(plan, split, pool, rows, refused, parts.shard, say)
            counts[split] = {"images": images, "rows": rows.count, "refused": refused.count}
    parts.finish(counts)


def join(plan: Plan, parts: Shards, say: Reporter) -> None:
    """Make a whole set of all parts; what a killed process began of it is begun anew."""
    folder = parts.folder
    counts = {}
    if not (folder / MANIFEST).is_file():  # which is written when all else is
        with Lines(folder / QUARANTINE) as refused:
            for split in plan.splits:
                _join_tables(plan, parts, split, say)
                refused.turn()
                for number in range(parts.shard.count):
                    with parts.refused(split, number).open("rb") as file:
                        for line in file:
                            refused.write([json.loads(line)])
                images, rows = (parts.counts(split, what) for what in ("images", "rows"))
                counts[split] = _counted(plan, split, images, rows, refused)
        _complete(plan, folder, counts, say)
    _remove_loose(plan, folder)


def _join_tables(plan: Plan, parts: Shards, split: str, say: Reporter) -> None:
    """Make one table of those of all parts, and tar shards where they are wanted."""
    place = parts.folder / split
    with storage_errors(place):
        if plan.shard_rows is None:
            with (place / TABLE).open("wb") as table:
                parts.join(partial(parts.table, split), table)
            return
        for begun in place.glob("*.tar"):
            begun.unlink()
    with (
        say.progress(f"Packing {split}", parts.counts(split, "rows")) as bar,
        _table(plan, split, parts.folder, keep=True) as whole,
    ):
        for number in range(parts.shard.count):
            with parts.table(split, number).open("rb") as file:
                for _, rows in groupby(map(json.loads, file), key=example_number):
                    example = list(rows)
                    whole.write(example)
                    bar.advance(len(example))


def _write_rows(
    plan: Plan,
    split: str,
    pool: Workers,
    rows: Lines,
    refused: Lines,
    shard: Shard,
    say: Reporter,
) -> int:
    """Write a part of one split, an image at a time; returns how many images went in."""
    examples = plan.examples(split)
    own = shard.of(len(examples))
    part = examples if shard.count == 1 else examples[own.start : own.stop]
    label = f"Preparing {split}" + (f", part {shard}" if shard.count > 1 else "")
    with say.progress(label, len(part)) as bar:
        for outcome in pool.outcomes(split, part, own.start):
            if outcome.quarantined is not None:
                refused.write([outcome.quarantined])
            rows.write(outcome.rows)
            bar.advance()
    return len(part)


def _counted(plan: Plan, split: str, images: int, rows: int, refused: Lines) -> SplitCounts:
    """The counts of a whole split, with the files that the dataset passed over.

    Raises:
        DataError: none of its images can be used.
    """
    skipped = _skipped(plan.dataset, split)
    refused.write({"split": split, "key": n, "file": n, "reason": why} for n, why in skipped)
    if not rows:
        raise DataError(_none_usable(plan.dataset, split, refused.head, refused.count))
    return SplitCounts(images=images + len(skipped), rows=rows, quarantined=refused.count)


def _complete(plan: Plan, folder: Path, counts: dict[str, SplitCounts], say: Reporter) -> None:
    """Write what is written last: preview and manifest."""
    tables = [f"{split}/{TABLE}" for split in plan.splits]
    with storage_errors(folder):
        if any(c.quarantined for c in counts.values()):
            tables.append(QUARANTINE)
        else:
            (folder / QUARANTINE).unlink()
        (folder / PREVIEW).write_bytes(_preview(plan, folder, counts))
        files = {name: sha256_file(folder / name) for name in tables}
        atomic_write_text(folder / MANIFEST, plan.manifest(counts, files).dump())


def _skipped(dataset: Dataset, split: str) -> Sequence[tuple[str, str]]:
    """Files that a dataset passed over, with reasons, where it keeps count of them."""
    skipped: Any = getattr(dataset, "skipped", None)
    return skipped(split) if skipped else ()


def _none_usable(dataset: Dataset, split: str, refused: Sequence[Row], count: int) -> str:
    lines = [f"  {row['file']}: {row['reason']}" for row in refused]
    if count > len(lines):
        lines.append(f"  and {count - len(lines)} more")
    return (
        f"No image of the split {split!r} of the dataset {dataset.name!r} can be used"
        + (":\n" if lines else ".")
        + "\n".join(lines)
    )


def _preview(plan: Plan, folder: Path, counts: Mapping[str, SplitCounts]) -> bytes:
    """A grid of rows from all over the first split."""
    split = plan.splits[0]
    total = counts[split].rows
    shown = min(_PREVIEW_ROWS, total)
    wanted = {i * total // shown for i in range(shown)}
    with (folder / split / TABLE).open("rb") as file:
        rows = [json.loads(line) for i, line in enumerate(file) if i in wanted]
    title = f"{plan.task.name} on {plan.dataset.name}, {split}: {shown} of {total:,} rows"
    return preview(title, rows, folder / split)
