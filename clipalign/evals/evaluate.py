"""`evaluate`: measure a model with one suite or several, against a reference where there is one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from clipalign.arguments import check_options, check_whole, names, plain_arguments
from clipalign.datasets.base import Dataset
from clipalign.datasets.locate import in_memory, locate_dataset
from clipalign.errors import DataError, PluginError, RunError, UsageError, near_matches
from clipalign.evals.base import EvalContext, Outcome, Suite
from clipalign.evals.card import card_is_old, refresh_card
from clipalign.evals.heads import head_on
from clipalign.evals.own_suite import own_suite, suite_of_run
from clipalign.evals.places import check_place, planned_path, result_path
from clipalign.evals.results import SuiteResult, write_result
from clipalign.evals.retention import with_retention
from clipalign.evals.trained_on import trained_on
from clipalign.files import check_writable
from clipalign.models.load import default_device, load_model
from clipalign.models.loaded import LoadedModel
from clipalign.models.spec import ModelSpec, parse_model_spec
from clipalign.options import component
from clipalign.plain_yaml import read_yaml_mapping
from clipalign.plugins import owner_of
from clipalign.progress import Reporter, heard_by
from clipalign.training.distributed import join
from clipalign.training.rundir import RunDirectory

__all__ = ["default_splits", "evaluate", "evaluate_run", "loaded", "planned_paths", "result_path"]

REFERENCE = "reference"
"""What `against` is called for the model that a run started from."""


@plain_arguments
def evaluate(
    model: str | os.PathLike[str] | LoadedModel = "emoji-tiny",
    *,
    suites: Sequence[str] | None = None,
    against: str | os.PathLike[str] | LoadedModel | None = None,
    dataset: str | Path | Dataset | None = None,
    suite_options: Mapping[str, Mapping[str, Any]] | None = None,
    dataset_options: Mapping[str, Any] | None = None,
    splits: Sequence[str] | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    use_cache: bool = True,
    retention: bool = False,
    only_missing: bool = False,
    reporter: Reporter | bool | None = None,
) -> list[SuiteResult]:
    """Measure a model.

        clipalign.evaluate("runs/typographic-kto-1", against="reference")
        clipalign.evaluate("ViT-B-32/openai", dataset="./photos", output="results/")

    Under torchrun the processes share the encoding, and the first one writes.

    Args:
        model: model spec, a run directory included, or a loaded model.
        suites: registered names, or one; None for the suite of a run's task, on the images that
            its preferences came from; `typographic` for any other model, and where there is none.
        against: "reference" for the model that a run started from, any other model spec, or a
            loaded model; None for no comparison.
        dataset: registered name, a folder, a table file, or a dataset; None for each suite's own,
            or the run's where `suites` is None.
        suite_options: by the name of the suite.
        dataset_options: of a dataset given by name or path.
        splits: names; None for the suite's own (`Suite.splits`) of its own dataset, and otherwise
            for those whose names begin with "test", or what comes nearest.
        seed: of attacks and resampling.
        output: folder of the results; None for RUN/results for a run, and for nothing written
            otherwise.
        device: "cpu", "cuda", …; None for a GPU where there is one.
        batch_size: images that go through a tower at once; None for what suits the device.
        use_cache: whether features are read from the cache and kept there.
        retention: put zero-shot accuracy and Recall@k on concepts that no alignment saw beside
            every result.
        only_missing: pass over what `output` has a file of, whatever options it was measured with.
        reporter: hears what is being done; True prints it in plain lines on standard error.

    Returns:
        One result for each suite and split, in that order; where they are written, each is at
        `result_path(output, result)`.

    Raises:
        UsageError, ConfigError: an unknown name or option, a number that cannot be, or a result
            would be written over that of other data.
        DataError: the data cannot serve a suite.
        ModelError: a model cannot be used.
        RunError: there is no run whose reference could be taken.
        StorageError: the results cannot be written.
    """
    check_whole("seed", seed, 0)
    check_whole("batch_size", batch_size, 1, optional=True)
    world = join()
    say = heard_by(reporter if world.first else None)
    spec = model.spec if isinstance(model, LoadedModel) else parse_model_spec(model)
    check_options("suite_options", suite_options)
    check_options("dataset_options", dataset_options)
    splits = None if splits is None else names("splits", splits)
    if suites is None:
        own = own_suite(spec)
        suites = [own.name]
        given = suite_options or {}
        suite_options = {**given, own.name: {**own.options, **given.get(own.name, {})}}
        if dataset is None:
            dataset = own.dataset
            dataset_options = {**own.dataset_options, **(dataset_options or {})}
            if missing := own.missing():
                raise DataError(
                    f"The images that {spec} was trained on are not here. {missing} Name others as "
                    "--dataset, in Python dataset=…."
                )
    suites = names("suites", suites)
    work = _work(suites, suite_options or {}, dataset, dataset_options or {}, splits)
    if against == REFERENCE:
        against = _reference_of(spec)
    run = spec.run
    if output is None and run is not None:
        output = run / "results"
    if output is not None:
        place = Path(output)
        world.from_first(lambda: check_writable(place))
        there = [check_place(place, s.name, data, o, split) for s, data, o, split in work]
        there = world.from_first(lambda: there)
        if only_missing:
            work = [job for job, is_there in zip(work, there, strict=True) if not is_there]
    in_run = run is not None and output is not None and Path(output).resolve() == _results(run)
    if not work:
        # who is stopped behind the last result has not written the card
        if run is not None and in_run and world.first and card_is_old(run / "model"):
            refresh_card(run / "model", loaded(model, device).sha256)
        return []
    tested = loaded(model, device)
    reference = None if against is None else loaded(against, device)
    head = None if reference is None else head_on(tested, reference)
    results = []
    for suite, data, options, split in work:
        say.note(f"Suite {suite.name}: {data.name}, split {split}")
        context = EvalContext(
            tested, reference, data, split, seed, batch_size, use_cache, say, options, head
        )
        result, rows = _outcome(suite, context)
        if run and (known := trained_on(run, result, data)):
            result = result.model_copy(update={"warnings": [known, *result.warnings]})
        if retention:
            result = with_retention(result, context)
        if output is not None:
            path = result_path(output, result)
            result = world.from_first(partial(write_result, path, result, rows))
        results.append(result)
    if run is not None and in_run:
        refresh_card(run / "model", tested.sha256)
    return results


def _results(run: Path) -> Path:
    return (run / "results").resolve()


def planned_paths(
    output: str | Path,
    suite: str,
    *,
    dataset: str | Path | Dataset | None = None,
    suite_options: Mapping[str, Any] | None = None,
    dataset_options: Mapping[str, Any] | None = None,
    splits: Sequence[str] | None = None,
) -> list[Path]:
    """Where `evaluate` writes the results of one suite, one path a split.

    Raises:
        UsageError, ConfigError, DataError: as `evaluate`.
    """
    options = {suite: dict(suite_options or {})}
    work = _work([suite], options, dataset, dataset_options or {}, splits)
    return [planned_path(output, s.name, data.name, o, split) for s, data, o, split in work]


def _outcome(suite: Suite, context: EvalContext) -> Outcome:
    """What a suite measures.

    Raises:
        PluginError: it gives something else, or a result under another's name.
    """
    outcome: Any = suite.run(context)
    whose = f"The suite {suite.name!r} of {owner_of(suite)}"
    if not (isinstance(outcome, tuple) and len(outcome) == 2):
        raise PluginError(f"{whose} gives {outcome!r:.60} where a result and its rows are wanted.")
    result, rows = outcome
    if not isinstance(result, SuiteResult) or result.suite != suite.name:
        name = result.suite if isinstance(result, SuiteResult) else result
        raise PluginError(f"{whose} gives {name!r:.60} for its result.")
    return result, rows


def evaluate_run(
    run: str | os.PathLike[str],
    *,
    device: str | None = None,
    only_missing: bool = False,
    reporter: Reporter | bool | None = None,
) -> list[SuiteResult]:
    """Compare a finished run with its reference, by its task's suite, on the data it came from.

    Args:
        run: its directory.
        device: see `evaluate`.
        only_missing: see `evaluate`.
        reporter: see `evaluate`; also told why nothing is measured.

    Returns:
        The results, which are also in RUN/results; none where the task has no suite, or where the
        images that the run's preference set was made of are not here.

    Raises:
        ConfigError, ModelError: it is not a finished run.
        RunError: its configuration was changed.
    """
    say = heard_by(reporter)
    own = suite_of_run(Path(run))
    if own is None:
        say.note(
            f"No suite belongs to this task. Name one: clipalign eval {run} --suite retention, or, "
            f"with labelled images, clipalign eval {run} --suite typographic --dataset PATH"
        )
        return []
    if missing := own.missing():
        say.note(
            f"Not measured: the images that {run} was trained on are not here. {missing} Measure "
            f"the run with: clipalign eval {run} --dataset PATH"
        )
        return []
    return evaluate(
        run,
        against=REFERENCE,
        device=device,
        retention=True,
        only_missing=only_missing,
        reporter=say,
    )


def default_splits(dataset: Dataset) -> list[str]:
    """The splits to evaluate where none is named: tests, else all but train, else all."""
    splits = list(dataset.splits())
    tests = [split for split in splits if split.startswith("test")]
    return tests or [split for split in splits if split != "train"] or splits


def _work(
    suites: Sequence[str],
    suite_options: Mapping[str, Mapping[str, Any]],
    dataset: str | Path | Dataset | None,
    dataset_options: Mapping[str, Any],
    splits: Sequence[str] | None,
) -> list[tuple[Suite, Dataset, Mapping[str, Any], str]]:
    """What is to be measured on what: suite, dataset, the options it was named with, split.

    Every refusal comes before a model is loaded.
    """
    for name in suite_options:
        if name not in suites:
            raise UsageError(
                f"There are options for the suite {name!r}, which is not evaluated."
                + near_matches(name, suites)
            )
    work = []
    for name in dict.fromkeys(suites):
        suite: Suite = component("suites", name, **suite_options.get(name, {}))
        source = suite.dataset if dataset is None else dataset
        options: Mapping[str, Any] = {}
        if isinstance(source, str | Path):
            kind, options = locate_dataset(source, dataset_options)
            data: Dataset = component("datasets", kind, **options)
        else:
            data, options = in_memory(source), _options_of(source)
        known = data.splits()
        own = getattr(suite, "splits", ()) if dataset is None else ()
        for split in splits or own or default_splits(data):
            if split not in known:
                raise UsageError(f"{data.name} has no split {split!r}.{near_matches(split, known)}")
            work.append((suite, data, options, split))
    return work


def _options_of(dataset: Dataset) -> Mapping[str, Any]:
    """What a dataset that was handed over was built with, where it says so."""
    options = getattr(dataset, "options", None)
    if not isinstance(options, BaseModel):
        return {}
    return options.model_dump(mode="json", exclude_unset=True)


def _reference_of(model: ModelSpec) -> str:
    """The spec of the model that a run started from."""
    run = model.run
    if run is None:
        raise RunError(
            f"{model} is not a run, so it has no reference. Name the model to compare it with, "
            "such as --against emoji-tiny."
        )
    directory = RunDirectory(run)
    directory.check(directory.config)
    spec = read_yaml_mapping(directory.config).get("model")
    if not isinstance(spec, str):
        raise RunError(f"{run / 'config.yaml'} does not say which model the run started from.")
    return spec


def loaded(
    model: str | os.PathLike[str] | LoadedModel,
    device: str | None,
    reporter: Reporter | bool | None = None,
) -> LoadedModel:
    """A model by its spec, on a device; one that is loaded stays where it is.

    Its weights are hashed anew: features are kept by that hash, and a training loop of one's own
    changes the weights between two evaluations.
    """
    if isinstance(model, LoadedModel):
        return model.as_it_is()
    say = heard_by(reporter)
    return load_model(model, default_device(device), announce=say.note)
