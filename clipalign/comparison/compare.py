"""`compare`: make and measure every cell of a recipe, and set them side by side."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import shutil
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from clipalign.arguments import plain_arguments
from clipalign.comparison.defaults import taken
from clipalign.comparison.plan import RECIPE, Cell, Plan, make_plan
from clipalign.comparison.recipe import Evaluation, Recipe, folder_name
from clipalign.comparison.records import (
    OtherReference,
    Record,
    check_definitions,
    check_reference,
    is_measured,
    is_settled,
    is_whole,
    read_record,
    write_record,
)
from clipalign.comparison.summarise import summarise
from clipalign.comparison.summary import Summary
from clipalign.comparison.write import write_summary
from clipalign.errors import (
    ClipAlignError,
    Interrupted,
    RunError,
    StorageError,
    from_machine,
)
from clipalign.files import atomic_write_text, storage_errors, write_sums
from clipalign.progress import Reporter, heard_by

if TYPE_CHECKING:
    from clipalign.models.loaded import LoadedModel

__all__ = ["CompareResult", "compare", "report", "state_of"]


@dataclass(frozen=True)
class CompareResult:
    """What became of a comparison.

    Attributes:
        output: its directory.
        summary: the table, as it is written to compare.json.
        files: the report: JSON, CSV, Markdown and, where matplotlib is installed, pictures.
        failed: records of the cells that failed, by name.
    """

    output: Path
    summary: Summary
    files: tuple[Path, ...]
    failed: Mapping[str, Record] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "output": str(self.output),
            "summary": self.summary.model_dump(mode="json"),
            "files": [str(file) for file in self.files],
        }


@plain_arguments
def compare(
    recipe: Recipe | Path | str | Mapping[str, Any],
    *,
    output: str | Path | None = None,
    only_missing: bool = True,
    device: str | None = None,
    reporter: Reporter | bool | None = None,
) -> CompareResult:
    """Train and evaluate a grid of methods × seeds × models, and set them side by side.

        clipalign.compare("examples/study/typographic.yaml")
        clipalign.compare({"methods": {"kto": {"set": {}}}, "seeds": [0, 1, 2]})

    It goes on where it stopped: a finished cell is passed over, one in the middle of its training
    is resumed. A cell that fails is recorded with its reason, and the others go on; the next call
    tries it again.

    Args:
        recipe: a recipe, its YAML file or content, or the directory of an earlier comparison.
        output: another directory than the recipe's.
        only_missing: pass over what is finished; False measures finished cells again (and trains
            none of them again: the same configuration gives the same weights).
        device: "cpu", "cuda", …; None for a GPU where there is one.
        reporter: hears what is being done; True prints it in plain lines on standard error.

    Raises:
        ConfigError: something in the recipe is wrong; nothing was written.
        RunError: the directory is in use, or holds cells that another recipe made, or that were
            made from other weights.
        StorageError: the disk is full or not writable.
        Interrupted: Ctrl-C or SIGTERM; the same call goes on from there.
    """
    from clipalign.training.signals import StopSignal

    say = heard_by(reporter)
    plan = make_plan(recipe, None if output is None else Path(output))
    with storage_errors(plan.output):
        plan.output.mkdir(parents=True, exist_ok=True)
    with _held(plan.output):
        check_definitions(plan, to_be_made=True)
        write_recipe(plan)
        work = _Work(plan, device, say, only_missing)
        try:
            with StopSignal():
                for number, cell in enumerate(plan.cells, 1):
                    work.make(number, cell)
        except Interrupted:
            raise Interrupted(
                f"Stopped; what was done is kept. Go on with: clipalign compare {plan.output}"
            ) from None
        return report(plan, reporter=say)


def report(plan: Plan, *, reporter: Reporter | None = None) -> CompareResult:
    """Write the tables and plots of what there is: from result files, without a model.

    Raises:
        DataError: a result file is damaged or was changed.
        StorageError: the report cannot be written.
    """
    summary = summarise(plan)
    files = write_summary(summary, plan.output, reporter)
    records = {cell.name: read_record(plan, cell) for cell in plan.cells}
    failed = {name: r for name, r in records.items() if r.state == "failed"}
    return CompareResult(plan.output, summary, tuple(files), failed)


def state_of(plan: Plan, cell: Cell) -> str:
    """How far a cell is, in words; without loading anything.

    Raises:
        RunError: its record is damaged.
    """
    record = read_record(plan, cell)
    if record.state == "finished":
        return "finished" if is_measured(plan, record) else "to be measured again"
    if record.state == "failed":
        return f"failed: {record.reason}"
    if record.state == "started" and cell.kind == "train":
        from clipalign.training.rundir import RunDirectory

        trained = RunDirectory(plan.folder(cell)).finished
        return "to be measured" if trained else "started"
    return record.state


def write_recipe(plan: Plan) -> None:
    """Keep the recipe, grids spread, in the directory of its comparison."""
    content = json.loads(plan.recipe.model_dump_json(exclude_defaults=True, exclude={"output"}))
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    atomic_write_text(
        plan.output / RECIPE, f"# `clipalign compare {plan.output}` goes on with this.\n{text}"
    )
    write_sums(plan.output, [RECIPE])


class _held:
    """Hold the directory for this process.

    Raises:
        RunError: another comparison holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, FileLock(folder / ".lock")

    def __enter__(self) -> None:
        with storage_errors(self.folder):
            try:
                self.lock.acquire(timeout=0)
            except Timeout:
                raise RunError(
                    f"{self.folder} is in use by another comparison. Wait for it, or choose "
                    "another --output."
                ) from None

    def __exit__(self, *_: object) -> None:
        self.lock.release()


@dataclass
class _Work:
    """Makes and measures cells, one after the other."""

    plan: Plan
    device: str | None
    say: Reporter
    only_missing: bool
    base: tuple[str, LoadedModel] | None = None

    def make(self, number: int, cell: Cell) -> None:
        """One cell; whatever fails in it is recorded, and the disk's and the user's stop pass."""
        plan, before = self.plan, read_record(self.plan, cell)
        title = f"[{number}/{len(plan.cells)}] {cell.name}"
        if self.only_missing and is_measured(plan, before):
            self.say.note(f"{title}: finished before")
            return
        self.say.note(title)
        made = before.state == "finished"
        record = Record(
            "started",
            cell.document(),
            [e.measuring() for e in plan.evaluations],
            reference=before.reference,
            taken=before.taken if is_settled(plan, cell, before) else taken(cell),
        )
        try:
            record = replace(record, reference=self._reference(cell.model).sha256)
            self._clear(cell, before)
            write_record(plan, cell, record)
            if not made:
                self._build(cell)
            results = {e.label: self._measure(cell, e) for e in plan.evaluations}
            record = replace(record, state="finished", results=results)
        except (Interrupted, StorageError, OtherReference):
            raise
        except ClipAlignError as error:
            record = _failed(record, error)
        except Exception as error:  # the machine's, a plugin's, or a bug: the other cells go on
            refused = from_machine(error)
            if isinstance(refused, StorageError):
                raise refused from error
            details = None if refused else "".join(traceback.format_exception(error))
            record = _failed(record, refused or error, details)
        if record.state == "failed":
            self.say.note(f"{title} failed: {record.reason}")
        write_record(plan, cell, record)
        _hand_back()

    def _clear(self, cell: Cell, before: Record) -> None:
        """Remove the results that are not to be kept: a broken-off attempt's of these evaluations
        are, so that what is there afterwards was measured as it is to be.
        """
        for evaluation in self.plan.evaluations:
            kept = self.only_missing and evaluation.measuring() in before.evaluations
            for path in self._paths(cell, evaluation):
                if not (kept and is_whole(path)):
                    with storage_errors(path):
                        path.unlink(missing_ok=True)

    def _build(self, cell: Cell) -> None:
        """Train or edit; a bare model needs nothing."""
        folder = self.plan.folder(cell)
        if cell.kind == "train":
            from clipalign.models.spec import is_run
            from clipalign.training.rundir import RunDirectory
            from clipalign.training.train import train

            if RunDirectory(folder).finished:
                return
            if is_run(folder):
                train(resume=folder, device=self.device, reporter=self.say)
                return
            assert cell.config is not None
            config = cell.config.model_copy(update={"output": folder})
            train(config, device=self.device, reporter=self.say)
        elif cell.kind == "transform":
            self._edit(cell, folder / "model")

    def _edit(self, cell: Cell, target: Path) -> None:
        from clipalign.transforms.transform import transform

        assert cell.transform is not None
        edit: dict[str, Any] = dict(cell.transform)
        source: str | Path = cell.model
        if cell.source is None:
            # a model that is no run has no task and no images of its own: the base's are taken
            edit = {
                "task": self.plan.base.task,
                "dataset": self.plan.base.dataset,
                "dataset_options": self.plan.base.dataset_options,
                **edit,
            }
        else:
            source = self._spec(cell.source)
        with storage_errors(target):
            shutil.rmtree(target, ignore_errors=True)  # what a killed attempt left
        transform(source, output=target, device=self.device, reporter=self.say, **edit)

    def _spec(self, name: str) -> Path:
        """The model of another cell.

        Raises:
            RunError: that cell is not finished.
        """
        [cell] = [c for c in self.plan.cells if c.name == name]
        if read_record(self.plan, cell).state != "finished":
            raise RunError(f"It is made from {name}, which is not finished.")
        folder = self.plan.folder(name)
        return folder if cell.kind == "train" else folder / "model"

    def _measure(self, cell: Cell, evaluation: Evaluation) -> list[str]:
        """Evaluate; gives the result files, as seen from the cell's folder."""
        from clipalign.evals.evaluate import evaluate

        folder = self.plan.folder(cell)
        reference = self._reference(cell.model)
        model: Any = folder if cell.kind == "train" else folder / "model"
        if cell.kind == "model":
            model = reference if cell.bare == cell.model else cell.bare
        evaluate(
            model,
            suites=[evaluation.suite],
            against=reference,
            suite_options={evaluation.suite: evaluation.options},
            **_data(evaluation),
            seed=evaluation.seed,
            output=self._output(cell, evaluation),
            device=self.device,
            retention=True,
            only_missing=True,  # of what `_clear` has left
            reporter=self.say,
        )
        return [str(path.relative_to(folder)) for path in self._paths(cell, evaluation)]

    def _output(self, cell: Cell, evaluation: Evaluation) -> Path:
        folder = self.plan.folder(cell) / "results"
        return folder if evaluation.name is None else folder / folder_name(evaluation.name)

    def _paths(self, cell: Cell, evaluation: Evaluation) -> list[Path]:
        """Of the results, one a split."""
        from clipalign.evals.evaluate import planned_paths

        return planned_paths(
            self._output(cell, evaluation),
            evaluation.suite,
            suite_options=evaluation.options,
            **_data(evaluation),
        )

    def _reference(self, spec: str) -> LoadedModel:
        """The grid's model as it is, which every cell is measured against; loaded once.

        Raises:
            OtherReference: it is not what cells on the disk were made from.
        """
        if self.base is None or self.base[0] != spec:
            import torch

            from clipalign.models.load import load_model

            device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
            model = load_model(spec, device)
            check_reference(self.plan, spec, model.sha256)
            self.base = (spec, model)
        return self.base[1]


def _data(evaluation: Evaluation) -> dict[str, Any]:
    """What it measures on, as arguments of `evaluate`."""
    return {
        "dataset": evaluation.dataset,
        "dataset_options": evaluation.dataset_options,
        "splits": evaluation.splits,
    }


def _hand_back() -> None:
    """Give the memory of a finished cell back to the system.

    Its models, optimisers and features are gone, but glibc keeps what was freed between what lives
    on: 250 to 430 MiB on the embedded world, and more of a larger model.
    """
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library, which has no such call
            ctypes.CDLL(None).malloc_trim(0)


def _failed(record: Record, error: Exception, details: str | None = None) -> Record:
    return replace(
        record,
        state="failed",
        error=type(error).__name__,
        reason=" ".join(str(error).split()) or type(error).__name__,
        exit_code=error.exit_code if isinstance(error, ClipAlignError) else 1,
        details=details,
    )
