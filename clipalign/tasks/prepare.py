"""`prepare`: from labelled images to a preference set on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from filelock import FileLock

from clipalign.arguments import check_options, check_whole, names, plain_arguments
from clipalign.cache import cache_dir
from clipalign.config import RunConfig
from clipalign.datasets.base import Dataset, last_change
from clipalign.datasets.locate import in_memory, is_table, locate_dataset
from clipalign.errors import DataError, RunError, UsageError, near_matches
from clipalign.files import storage_errors
from clipalign.options import component
from clipalign.plugins import registry
from clipalign.progress import Reporter, Silent, heard_by
from clipalign.staging import staged
from clipalign.tasks.base import Task
from clipalign.tasks.manifest import MANIFEST, read_manifest
from clipalign.tasks.plan import Plan
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.tasks.shards import Shard, Shards, parse_shard
from clipalign.tasks.writing import join, write, write_part

__all__ = ["made", "plan_of", "preferences_of", "prepare", "prepare_part"]

FORMATS = ("imagefolder", "webdataset")


@plain_arguments
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
    reporter: Reporter | bool | None = None,
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
        reporter: hears what is being done; True prints it in plain lines on standard error.

    Returns:
        The set; the rows of one that was just made are read when they are first asked for.

    Raises:
        UsageError, ConfigError: an unknown name or option, or a number that cannot be.
        DataError: the dataset cannot serve the task, or none of its images can be used.
        RunError: something else stands at `output`.
        StorageError: the disk is full or not writable; nothing is left behind.
    """
    say = heard_by(reporter)
    check_whole("workers", workers, 0)
    plan = _plan(
        task, dataset, task_options=task_options, dataset_options=dataset_options, splits=splits,
        seed=seed, limit=limit, max_side=max_side, format=format, shard_size=shard_size,
    )  # fmt: skip
    _check_needs(plan, needs)
    if output is not None:
        return _made(Path(output), plan, workers, say, cached=False, overwrite=overwrite)
    return made(plan, workers, say, overwrite=overwrite)


def made(plan: Plan, workers: int, say: Reporter, *, overwrite: bool = False) -> PreferenceSet:
    """The set of a plan in the cache, made unless it is there.

    Raises:
        DataError: none of its images can be used.
        StorageError: the disk is full or not writable; nothing is left behind.
    """
    target = cache_dir("preferences") / f"{plan.task.name}-{plan.cache_key}"
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):  # of two at once, one waits
        return _made(target, plan, workers, say, cached=True, overwrite=overwrite)


@plain_arguments
def prepare_part(
    shard: str | Shard,
    task: str | Task,
    dataset: str | Path | Dataset | None,
    output: str | Path,
    *,
    workers: int = 0,
    overwrite: bool = False,
    reporter: Reporter | bool | None = None,
    **arguments: Any,
) -> list[int]:
    """Make one part of a preference set; whoever makes the last one puts the set into its place.

    The parts may be made at any time, in any order, on machines that share the file system. All
    take the same arguments, as `prepare` does; the set is the one that it makes, to the byte. A
    part that was broken off is made again by the same call, and one that is there is left alone.
    Tar shards are packed by whoever makes the last part, and for that time take their room twice.

    Args:
        shard: "i/n": part i, from 0, of n.
        task: as for `prepare`; so are all others.
        dataset: likewise.
        output: directory to make.
        workers: likewise.
        overwrite: likewise.
        reporter: likewise.
        **arguments: those of `prepare` that decide what is made, such as seed=1.

    Returns:
        The parts that are still missing; none when the set stands at `output`.

    Raises:
        UsageError: there is no such part; and whatever `prepare` raises.
    """
    say = heard_by(reporter)
    check_whole("workers", workers, 0)
    shard = parse_shard(shard) if isinstance(shard, str) else shard
    plan = _plan(task, dataset, **arguments)
    target = Path(os.path.realpath(output))
    parts = Shards(target, shard, plan.sha256)
    with parts.held(say):
        if _equal_set(target, plan, say, cached=False, overwrite=overwrite) is not None:
            return []
        parts.begin(plan.splits)
        if not parts.done:
            _warn(plan, say)
            write_part(plan, parts, workers, say)
        stands = parts.settle(lambda: join(plan, parts, say), replace=overwrite)
        return [] if stands else parts.missing()


def _plan(
    task: str | Task,
    dataset: str | Path | Dataset | None,
    *,
    task_options: Mapping[str, Any] | None = None,
    dataset_options: Mapping[str, Any] | None = None,
    splits: Sequence[str] | None = None,
    seed: int = 0,
    limit: int | None = None,
    max_side: int | None = 1024,
    format: str = "imagefolder",
    shard_size: int = 1000,
) -> Plan:
    """Build the task and its dataset, and check what can be checked."""
    check_whole("seed", seed, 0)
    check_whole("limit", limit, 1, optional=True)
    check_whole("max_side", max_side, 1, optional=True)
    check_whole("shard_size", shard_size, 1)
    check_options("task_options", task_options)
    check_options("dataset_options", dataset_options)
    splits = None if splits is None else names("splits", splits)
    if format not in FORMATS:
        raise UsageError(f"There is no format {format!r}.{near_matches(format, FORMATS)}")
    facts = registry("tasks").entry(task).metadata if isinstance(task, str) else {}
    if dataset is None:
        dataset = str(facts.get("dataset", "emoji"))
    if isinstance(task, str):
        task = cast(Task, component("tasks", task, **(task_options or {})))
    elif not isinstance(task, Task):
        raise UsageError(f"task must be the name of a task, or a Task, not {task!r:.80}.")
    options = dict(dataset_options or {})
    if isinstance(dataset, str | Path):
        name, options = locate_dataset(dataset, options)
        if name == "table":
            options = {**facts.get("table", {}), **options}
        dataset = cast(Dataset, component("datasets", name, **options))
    dataset = in_memory(dataset)
    shard_rows = shard_size if format == "webdataset" else None
    return Plan.make(
        task, dataset, options, splits,
        seed=seed, limit=limit, max_side=max_side, shard_rows=shard_rows,
    )  # fmt: skip


def preferences_of(config: RunConfig, reporter: Reporter | None = None) -> PreferenceSet:
    """The preferences of a run: the set that it names, or one prepared in the cache.

    Args:
        config: of the run.
        reporter: hears what is being done.

    Raises:
        UsageError: `data` is a table, and the task takes none.
        DataError: the set is damaged, or the dataset cannot serve the task.
    """
    found = plan_of(config)
    if isinstance(found, PreferenceSet):
        return found
    return made(found, config.train.workers, reporter or Silent())


def plan_of(
    config: RunConfig, *, needs: Sequence[str] = (), validates: bool = False
) -> PreferenceSet | Plan:
    """The preference set that a run names, or the plan of the one that it wants; reads no image.

    Args:
        config: of the run.
        needs: texts that every row must have, as `prepare` takes them.
        validates: whether there must be a split `validation`.

    Raises:
        UsageError: `data` is a table, and the task takes none.
        DataError: the set is damaged, or the dataset cannot serve the task or lacks texts or a
            split.
    """
    if config.data is not None and not is_table(config.data):
        found = PreferenceSet.open(config.data)
        if validates:
            _check_validation(str(found.root), found.splits)
        return found
    if config.data is not None and "table" not in registry("tasks").entry(config.task).metadata:
        raise UsageError(
            f"{config.data} is a table. Judgements of your own are trained on with --task "
            f"preferences; labelled images for the task {config.task!r} are given with --dataset."
        )
    plan = _plan(
        config.task,
        config.data or config.dataset,
        task_options=config.task_options,
        dataset_options=config.dataset_options,
        seed=config.seed,
    )
    if "train" not in plan.splits:
        raise DataError(
            f"A training needs a split 'train', and the dataset {plan.dataset.name!r} has "
            f"{', '.join(plan.splits)}. Put the images to train on into a folder `train`, or write "
            "it into the column `split` of their rows."
        )
    if validates:
        _check_validation(f"the dataset {plan.dataset.name!r}", plan.splits)
    _check_needs(plan, needs)
    return plan


def _check_needs(plan: Plan, needs: Sequence[str]) -> None:
    if needs and (reason := plan.lacking(needs)):
        raise DataError(
            f"Every row must have {' and '.join(needs)}, and {reason}. Use a method that takes "
            "judgements of single texts, such as kto."
        )


def _check_validation(where: str, splits: Sequence[str]) -> None:
    if "validation" not in splits:
        raise DataError(
            f"train.validate_every needs a split 'validation', and {where} has "
            f"{', '.join(splits)}. Put images of its own into a folder `validation` beside "
            "`train`, or write the split of each row into a column `split` of the table (and "
            "prepare a prepared set again); or leave train.validate_every out."
        )


def _made(
    target: Path, plan: Plan, workers: int, say: Reporter, *, cached: bool, overwrite: bool
) -> PreferenceSet:
    """The set at `target`, written unless it is there."""
    found = _equal_set(target, plan, say, cached=cached, overwrite=overwrite)
    if found is not None:
        return found
    _warn(plan, say)
    with staged(target, replace=cached or overwrite) as folder:
        write(plan, folder, workers, say)
    return PreferenceSet(target, read_manifest(target))


def _warn(plan: Plan, say: Reporter) -> None:
    for note in plan.candidates.notes:
        say.note(f"Warning: {note}")


def _equal_set(
    target: Path, plan: Plan, say: Reporter, *, cached: bool, overwrite: bool
) -> PreferenceSet | None:
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
        say.note(f"Using the preference set in {target}.")
        if not cached and last_change(plan.dataset) > (target / MANIFEST).stat().st_mtime_ns:
            say.note(
                "Warning: files of its images were changed or copied since it was made, though "
                "none has another size. If they show something else now, add --overwrite."
            )
        return found
    made = found.manifest
    raise RunError(
        f"{target} holds another preference set ({made.task} on {made.dataset}, seed {made.seed}, "
        "perhaps other options or images). Choose another directory, or replace it with "
        "--overwrite."
    )
