"""`prepare`: from labelled images to a preference set on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, cast

from filelock import FileLock

from clipalign.cache import cache_dir
from clipalign.config import RunConfig
from clipalign.datasets.base import Dataset
from clipalign.datasets.locate import is_table, locate_dataset
from clipalign.errors import DataError, RunError, UsageError, near_matches
from clipalign.files import sha256_file, storage_errors
from clipalign.options import component
from clipalign.plugins import registry
from clipalign.progress import Reporter, Silent
from clipalign.tasks.base import Task
from clipalign.tasks.manifest import MANIFEST, SplitCounts
from clipalign.tasks.packing import Packer
from clipalign.tasks.plan import Plan
from clipalign.tasks.preference_set import PREVIEW, QUARANTINE, TABLE, PreferenceSet
from clipalign.tasks.preview import preview
from clipalign.tasks.staging import staged
from clipalign.tasks.working import Recipe, Row, Workers

__all__ = ["preferences_of", "prepare"]

FORMATS = ("imagefolder", "webdataset")
_PREVIEW_ROWS = 12
_REASONS_SHOWN = 10


def prepare(
    task: str | Task = "typographic",
    dataset: str | Path | Dataset | None = None,
    output: str | Path | None = None,
    *,
    task_options: Mapping[str, Any] | None = None,
    dataset_options: Mapping[str, Any] | None = None,
    splits: Sequence[str] | None = None,
    seed: int = 0,
    workers: int = 0,
    limit: int | None = None,
    max_side: int | None = 1024,
    format: Literal["imagefolder", "webdataset"] = "imagefolder",
    shard_size: int = 1000,
    overwrite: bool = False,
    needs: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> PreferenceSet:
    """Turn labelled images into a preference set.

        clipalign.prepare("typographic", "./photos", "prefs/")
        clipalign.prepare("typographic", task_options={"styles": ["note"]})

    The set depends on the images, the options and the seed alone: any number of workers writes the
    same bytes. Images that cannot be used are listed in `quarantine.jsonl` with their reasons.

    Args:
        task: registered name, or a task.
        dataset: registered name, a folder, a table file, or a dataset; None for the task's own.
        output: directory to make; None for the cache, where an equal set is used again.
        task_options: of a task given by name.
        dataset_options: of a dataset given by name or path.
        splits: names; None for train and validation, or whatever the dataset has instead.
        seed: of everything random.
        workers: processes; 0 for none beside this one.
        limit: images a split, drawn at random from all of it; None for all.
        max_side: larger images are shrunk to this many pixels, once; None for never.
        format: loose files, or tar shards of the same rows; training reads either.
        shard_size: rows a shard at most, of tar shards.
        overwrite: replace a preference set that stands at `output`.
        needs: "chosen", "rejected" or both: texts that every row must have; a task that can tell
            refuses before any image is read.
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
    facts = registry("tasks").entry(task).metadata if isinstance(task, str) else {}
    if dataset is None:
        dataset = str(facts.get("dataset", "emoji"))
    if isinstance(task, str):
        task = cast(Task, component("tasks", task, **(task_options or {})))
    options = dict(dataset_options or {})
    if isinstance(dataset, str | Path):
        name, options = locate_dataset(dataset, options)
        if name == "table":
            options = {**facts.get("table", {}), **options}
        dataset = cast(Dataset, component("datasets", name, **options))
    if format not in FORMATS:
        raise UsageError(f"There is no format {format!r}.{near_matches(format, FORMATS)}")
    plan = Plan.make(
        task, dataset, options, splits, seed=seed, limit=limit, max_side=max_side,
        shard_rows=shard_size if format == "webdataset" else None,
    )  # fmt: skip
    if needs and (reason := plan.lacking(needs)):
        raise DataError(
            f"Every row must have {' and '.join(needs)}, and {reason}. Use a method that takes "
            "judgements of single texts, such as kto."
        )
    if output is not None:
        return _made(Path(output), plan, workers, say, cached=False, overwrite=overwrite)
    target = cache_dir("preferences") / f"{plan.task.name}-{plan.sha256}"
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):  # of two at once, one waits
        return _made(target, plan, workers, say, cached=True, overwrite=overwrite)


def preferences_of(
    config: RunConfig, reporter: Reporter | None = None, *, needs: Sequence[str] = ()
) -> PreferenceSet:
    """The preferences of a run: the set that it names, or one prepared in the cache.

    Args:
        config: of the run.
        reporter: hears what is being done.
        needs: texts that every row must have, as `prepare` takes them.

    Raises:
        UsageError: `data` is a table, and the task takes none.
        DataError: the set is damaged, or the dataset cannot serve the task or lacks texts.
    """
    if config.data is not None and not is_table(config.data):
        return PreferenceSet.open(config.data)
    if config.data is not None and "table" not in registry("tasks").entry(config.task).metadata:
        raise UsageError(
            f"{config.data} is a table. Judgements of your own are trained on with --task "
            f"preferences; labelled images for the task {config.task!r} are given with --dataset."
        )
    return prepare(
        config.task,
        config.data or config.dataset,
        needs=needs,
        task_options=config.task_options,
        dataset_options=config.dataset_options,
        seed=config.seed,
        workers=config.train.workers,
        reporter=reporter,
    )


def _made(
    target: Path, plan: Plan, workers: int, say: Reporter, *, cached: bool, overwrite: bool
) -> PreferenceSet:
    """The set at `target`, written unless it is there."""
    if found := _equal_set(target, plan, cached=cached, overwrite=overwrite):
        say.note(f"Using the preference set in {target}.")
        return found
    for note in plan.candidates.notes:
        say.note(f"Warning: {note}")
    with staged(target, replace=cached or overwrite) as folder:
        _write(plan, folder, workers, say)
    return PreferenceSet.open(target)


def _equal_set(target: Path, plan: Plan, *, cached: bool, overwrite: bool) -> PreferenceSet | None:
    """The set at `target` where it is the one that is asked for; None where it is to be written.

    Raises:
        RunError: something stands there that must not be replaced.
    """
    if not target.is_dir() or not any(target.iterdir()):
        return None
    if not cached and not (target / MANIFEST).is_file():
        raise RunError(
            f"{target} is not empty and not a preference set, so it is left alone. Choose another "
            "directory."
        )
    if overwrite:
        return None
    try:
        found = PreferenceSet.open(target)
    except DataError as error:
        if cached:
            return None
        raise RunError(f"{error}\nReplace it with --overwrite.") from None
    if found.manifest.recipe_sha256 == plan.sha256:
        return found
    made = found.manifest
    raise RunError(
        f"{target} holds another preference set ({made.task} on {made.dataset}, seed {made.seed}, "
        "perhaps other options or images). Choose another directory, or replace it with "
        "--overwrite."
    )


def _write(plan: Plan, folder: Path, workers: int, say: Reporter) -> None:
    """Write the whole set into an empty directory."""
    recipe = Recipe(plan.task, plan.dataset, plan.seed, plan.max_side, folder)
    counts: dict[str, SplitCounts] = {}
    quarantine: list[Row] = []
    with Workers(recipe, workers) as pool:
        for split in plan.splits:
            counts[split], refused = _write_split(plan, split, folder / split, pool, say)
            quarantine += refused
    tables = [f"{split}/{TABLE}" for split in plan.splits]
    with storage_errors(folder):
        if quarantine:
            (folder / QUARANTINE).write_bytes(b"".join(map(_line, quarantine)))
            tables.append(QUARANTINE)
        (folder / PREVIEW).write_bytes(_preview(plan, folder, counts))
        files = {name: sha256_file(folder / name) for name in tables}
        (folder / MANIFEST).write_text(plan.manifest(counts, files).dump(), encoding="utf-8")


def _write_split(
    plan: Plan, split: str, folder: Path, pool: Workers, say: Reporter
) -> tuple[SplitCounts, list[Row]]:
    """Write one split; return its counts and its quarantine."""
    examples = plan.examples(split)
    refused: list[Row] = []
    rows = 0
    with storage_errors(folder):
        for part in ("images", "clean"):
            (folder / part).mkdir(parents=True)
        table = (folder / TABLE).open("wb")
    packer = Packer(folder, split, plan.shard_rows) if plan.shard_rows else None
    with table, packer or nullcontext(), say.progress(f"Preparing {split}", len(examples)) as bar:
        for outcome in pool.outcomes(split, examples):
            if outcome.quarantined is not None:
                refused.append(outcome.quarantined)
            lines = packer.pack(outcome.rows) if packer else outcome.rows
            with storage_errors(folder):
                table.writelines(map(_line, lines))
            rows += len(outcome.rows)
            bar.advance()
        with storage_errors(folder):
            table.flush()
    if packer:
        for part in ("images", "clean"):
            (folder / part).rmdir()
    skipped = _skipped(plan.dataset, split)
    refused += [{"split": split, "key": n, "file": n, "reason": reason} for n, reason in skipped]
    images = len(examples) + len(skipped)
    counts = SplitCounts(images=images, rows=rows, quarantined=len(refused))
    if not rows:
        raise DataError(_none_usable(plan.dataset, split, refused))
    return counts, refused


def _skipped(dataset: Dataset, split: str) -> Sequence[tuple[str, str]]:
    """Files that a dataset passed over, with reasons, where it keeps count of them."""
    skipped: Any = getattr(dataset, "skipped", None)
    return skipped(split) if skipped else ()


def _none_usable(dataset: Dataset, split: str, refused: Sequence[Row]) -> str:
    lines = [f"  {row['file']}: {row['reason']}" for row in refused[:_REASONS_SHOWN]]
    if len(refused) > len(lines):
        lines.append(f"  and {len(refused) - len(lines)} more")
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


def _line(row: Row) -> bytes:
    """One line of a table. ASCII escapes carry even names that are not valid Unicode."""
    return json.dumps(row, allow_nan=False).encode("ascii") + b"\n"
