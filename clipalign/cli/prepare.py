"""`clipalign prepare`: turn labelled images into preferences."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipalign.cli.console import Console, table
from clipalign.cli.flags import (
    TASK_HELP,
    DatasetSetOption,
    JsonFlag,
    QuietFlag,
    all_settings,
    complete,
    dataset_option,
    options_of,
    output_option,
    seed_option,
    set_option,
    with_flags,
)
from clipalign.errors import Interrupted, UsageError
from clipalign.plugins import registry

if TYPE_CHECKING:
    from clipalign.tasks.preference_set import PreferenceSet

app = typer.Typer()

_REASONS_SHOWN = 10


@app.command()
def prepare(
    task: Annotated[
        str,
        typer.Argument(help=TASK_HELP, autocompletion=complete("tasks")),
    ] = "typographic",
    dataset: Annotated[
        str | None, dataset_option("Labelled images; the task's own if left out.")
    ] = None,
    output: Annotated[
        Path | None, output_option("Directory to make; one in the cache if left out.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Split to prepare; train and validation if left out. May be repeated."),
    ] = None,
    attacks_per_image: Annotated[
        int | None, typer.Option(help="Attacked copies of each image.")
    ] = None,
    style: Annotated[
        list[str] | None,
        typer.Option(help="How words are drawn: outlined or note. May be repeated."),
    ] = None,
    settings: Annotated[
        list[str] | None, set_option("Option of the task, or dataset.KEY of the dataset.")
    ] = None,
    dataset_settings: DatasetSetOption = None,
    seed: Annotated[int, seed_option("Seed of everything random.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Images a split, drawn at random.")] = None,
    max_side: Annotated[
        int, typer.Option(min=0, help="Shrink larger images to this many pixels; 0 for never.")
    ] = 1024,
    form: Annotated[
        str, typer.Option("--format", help="imagefolder, or webdataset: tar shards of the same.")
    ] = "imagefolder",
    shard_size: Annotated[int, typer.Option(help="Rows a tar shard at most.")] = 1000,
    workers: Annotated[int, typer.Option(help="Processes; the result is the same.")] = 0,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Make part I of N, from 0, of the same set; see above."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a preference set that stands there.")
    ] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Turn labelled images into preferences: a set of images on disk, to train on.

    \b
    Examples:
      clipalign prepare typographic -o prefs/               # the embedded images
      clipalign prepare typographic --dataset ./photos -o prefs/ --workers 8
      clipalign prepare --dataset photos/index.csv --dataset-set label_column=name
      clipalign prepare --dataset oxford-pets:/data/pets -o prefs/
      clipalign prepare preferences --dataset my.csv     # image, chosen, rejected
      clipalign prepare --style note --attacks-per-image 3 --split test -o prefs
      clipalign prepare --dataset photos -o prefs --shard $SLURM_ARRAY_TASK_ID/64
      torchrun --nproc-per-node 8 -m clipalign prepare --dataset photos -o prefs

    The parts of --shard, or of torchrun's processes, may be made on any machines that see the same
    --output, in any order; the last one to finish puts the set there. It is byte for byte the set
    of a single process. A part that was broken off is made again by the same command.

    A folder has one sub-folder a class (or train/, val/ and test/ with those); a table has the
    columns image and label. Images that cannot be used are listed in quarantine.jsonl.

    Preferences of your own may say in columns reward_chosen and reward_rejected what the two texts
    are worth, where a text that its row does not judge is worth 0; objectives that take rewards
    read them.
    """
    out = Console(json=as_json, quiet=quiet)
    given = all_settings(settings, dataset_settings)
    options, of_dataset = options_of(given, "attacks_per_image=3")
    flags = {"attacks_per_image": attacks_per_image, "styles": style or None}
    options = with_flags(options, flags)
    from clipalign.tasks.prepare import prepare as run
    from clipalign.tasks.prepare import prepare_part
    from clipalign.tasks.shards import shard_of_environment
    from clipalign.training.signals import StopSignal

    if task not in registry("tasks").names() and Path(task).exists():
        raise UsageError(
            f"{task} is no task, and images stand after --dataset: clipalign prepare --dataset "
            f"{shlex.quote(task)}"
        )
    part = shard or shard_of_environment()
    if part is not None and output is None:
        raise UsageError("Parts of a set need a place to meet: give --output.")
    how: dict[str, Any] = {
        "task_options": options,
        "dataset_options": of_dataset,
        "splits": split or None,
        "seed": seed,
        "workers": workers,
        "limit": limit,
        "max_side": max_side or None,
        "format": form,
        "shard_size": shard_size,
        "overwrite": overwrite,
        "reporter": out,
    }
    try:
        with StopSignal():
            if part is None or output is None:
                made = run(task, dataset, output, **how)
            else:
                missing = prepare_part(part, task, dataset, output, **how)
    except Interrupted as stopped:
        kept = "Nothing was written" if part is None else "Other parts are kept"
        raise Interrupted(f"{stopped} {kept}; run the same command again.") from None
    if part is None:
        out.result(_document(made), _text(made))
    else:
        document = {"part": str(part), "missing": missing, "output": output}
        out.result(document, _text_of_part(str(part), missing, output))


def _text_of_part(part: str, missing: list[int], output: Path | None) -> str:
    if not missing:
        return f"Part {part} is there, and so are all others.\nSet:     {output}"
    shown = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
    return f"Part {part} is there. Still missing: {shown}."


def _document(made: PreferenceSet) -> dict[str, Any]:
    return {
        "output": made.root,
        "task": made.manifest.task,
        "dataset": made.manifest.dataset,
        "candidates": len(made.candidates),
        "counts": {split: counts.model_dump() for split, counts in made.manifest.counts.items()},
        "quarantined": made.quarantined(),
        "preview": made.preview,
        "content_sha256": made.content_sha256,
        "next": _next(made),
    }


def _text(made: PreferenceSet) -> str:
    refused = made.quarantined()
    rows = [
        (split, f"{counts.images:,}", f"{counts.rows:,}", f"{counts.quarantined:,}")
        for split, counts in made.manifest.counts.items()
    ]
    lines = [table(("SPLIT", "IMAGES", "PREFERENCES", "QUARANTINED"), rows)]
    if refused:
        lines += ["", f"Quarantined ({made.quarantine}):"]
        lines += [f"  {row['file']}: {row['reason']}" for row in refused[:_REASONS_SHOWN]]
        if len(refused) > _REASONS_SHOWN:
            lines.append(f"  and {len(refused) - _REASONS_SHOWN} more")
    lines += ["", f"Set:     {made.root}", f"Preview: {made.preview}"]
    if command := _next(made):
        lines += ["", f"Train on it: {command}"]
    return "\n".join(lines)


def _next(made: PreferenceSet) -> str | None:
    if "train" not in made.splits:
        return None
    return f"clipalign train --data {shlex.quote(str(made.root))}"
