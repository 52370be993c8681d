"""`transform`: edit a trained model without training, and write the result as a plain model."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clipalign._version import __version__
from clipalign.arguments import check_whole, plain_arguments
from clipalign.errors import ModelError, PluginError, UsageError
from clipalign.evals.card import refresh_card
from clipalign.files import check_writable
from clipalign.models.export import export_model
from clipalign.models.load_lines import open_clip_line
from clipalign.models.loaded import LoadedModel
from clipalign.models.spec import CONFIG_NAME, parse_model_spec
from clipalign.options import component, option_problems
from clipalign.plain_yaml import read_yaml_mapping
from clipalign.plugins import owner_of
from clipalign.progress import Reporter, heard_by
from clipalign.tasks.typographic import Typographic
from clipalign.transforms.base import Fitter, Transform
from clipalign.transforms.context import RECORD, FitContext
from clipalign.transforms.power import powers_of
from clipalign.transforms.reading_scan import ReadingScan, scan_reading
from clipalign.transforms.scan import Scan, scan_powers
from clipalign.transforms.scan_files import write_scan
from clipalign.transforms.scan_values import parse_scan

__all__ = ["TransformResult", "open_context", "scan", "transform"]

SCHEMA_VERSION = 1  # of transform.yaml
UNFOLDED = "transform.safetensors"


@dataclass(frozen=True)
class TransformResult:
    """What was made.

    Attributes:
        method: name of the transform.
        source: the run or model spec it was made from.
        model: the open_clip directory, absolute; `transform.yaml` in it says how it was made.
        open_clip_line: the Python line that loads it.
        transform: the fitted transform.
    """

    method: str
    source: str
    model: Path
    open_clip_line: str
    transform: Transform

    def __fspath__(self) -> str:
        """The model, so that it stands wherever a path does: `evaluate(result)`."""
        return str(self.model)

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON; `statement` is None where nothing was to be found."""
        return {
            "method": self.method,
            "source": self.source,
            "model": str(self.model),
            "open_clip_line": self.open_clip_line,
            "transform": self.transform.describe(),
            "statement": self.transform.statement() or None,
        }


@plain_arguments
def transform(
    run: str | os.PathLike[str] | FitContext,
    *,
    method: str = "power",
    output: str | Path | None = None,
    task: str | None = None,
    dataset: str | Path | None = None,
    dataset_options: Mapping[str, Any] | None = None,
    device: str | None = None,
    reporter: Reporter | bool | None = None,
    **options: Any,
) -> TransformResult:
    """Edit a trained model without training.

        clipalign.transform("runs/gender-kto-1", t="auto")
        clipalign.transform("runs/dpo", method="interpolate", alpha=0.5, output="models/half")
        clipalign.transform("emoji-tiny", method="project", calibration=0)

    Args:
        run: a run directory. `project`, `interpolate` with `against`, and most packages' take any
            model spec. Or what `open_context` gave, which knows the next three already.
        method: registered name: power, interpolate, project or a package's.
        output: directory to make; None for models/<run>-<what was done>.
        task: concept task whose captions are used; None for the run's own.
        dataset: name, folder or table of labelled images, of which the validation split is used;
            None for the run's own.
        dataset_options: of that dataset.
        device: "cpu", "cuda", …; None for a GPU where there is one.
        reporter: hears what is being done; True prints it in plain lines on standard error.
        **options: of the method: t, epsilon, range, after; alpha, against, metric; calibration,
            prompts. `clipalign plugins show transforms/power` lists them.

    Returns:
        Where the model is, and what was fitted.

    Raises:
        UsageError: an option is unknown or wrong, the method does not go with the run, or the
            output holds something else.
        DataError: the labelled images cannot serve.
        ModelError: the model cannot be used or takes no fold; in the latter case the unfolded
            transform is in the output, and the message has the lines that apply it.
        StorageError: the output cannot be written.
    """
    say = heard_by(reporter)
    problems = option_problems("transforms", method, options, "")
    if problems:
        lines = "\n".join(f"  {line.lstrip('.')}" for line in problems)
        raise UsageError(f"The transform {method!r} cannot use these options:\n{lines}")
    fitter: Fitter = component("transforms", method, **options)
    context = open_context(
        run,
        task=task,
        dataset=dataset,
        dataset_options=dataset_options or {},
        device=device,
        reporter=say,
    )
    earlier = _earlier(context, fitter)
    if output is not None:
        _check_output(Path(output))
    fitted = fitter.fit(context)
    if not isinstance(fitted, Transform):
        raise PluginError(
            f"The transform {method!r} of {owner_of(fitter)} was fitted to {fitted!r:.60}, which "
            "is no clipalign.transforms.base.Transform."
        )
    target = Path(output) if output is not None else _default_output(context, fitted)
    _check_output(target)
    base = context.reference if fitted.starts_from == "reference" else context.trained
    fitted.check(base)
    try:
        edited = fitted.apply(base)
    except ModelError as error:
        raise _unfolded(error, fitted, target) from None
    if not isinstance(edited, LoadedModel):
        raise PluginError(
            f"The transform {method!r} of {owner_of(fitter)} made {edited!r:.60} of the model."
        )
    record = {
        "schema_version": SCHEMA_VERSION,
        "made_with": {"clipalign": __version__},
        "method": method,
        "source": context.path,
        "model": str(base.spec),
        "model_sha256": base.sha256,
        "result_sha256": edited.sha256,
        "options": fitter.options.model_dump(mode="json"),
        "labelled": context.labels(),
        "transform": fitted.describe(),
        "earlier": earlier,
    }
    plain = json.loads(json.dumps(record))  # nothing shared, so that YAML needs no aliases
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=False, width=100)
    export_model(edited, target, beside={RECORD: f"# How this model was made.\n{text}"})
    refresh_card(target)
    return TransformResult(method, context.path, target.absolute(), open_clip_line(target), fitted)


@plain_arguments
def scan(
    run: str | os.PathLike[str] | FitContext,
    ts: str | Sequence[float],
    *,
    output: str | Path | None = None,
    after: Mapping[str, float] | None = None,
    k: int = 10,
    task: str | None = None,
    dataset: str | Path | None = None,
    dataset_options: Mapping[str, Any] | None = None,
    split: str | None = None,
    device: str | None = None,
    reporter: Reporter | bool | None = None,
) -> Scan | ReadingScan:
    """What W_t of a head run does and what it costs, for many t.

    Of a concept, its accuracy and what was to stay; of the task `typographic`, whether the object
    or the written word is chosen.

        clipalign.scan("runs/gender-kto-1", "-2:1.2:0.1")

    Features are computed once; each t costs milliseconds.

    Args:
        run: a run that trained a head.
        ts: values of t, or "A:B:STEP".
        output: folder of scan.csv, scan.json and scan.png; None writes nothing.
        after: maps of other runs that go before this one's, each with its own t.
        k: images that the retrieval looks at.
        task: see `transform`.
        dataset: see `transform`.
        dataset_options: see `transform`.
        split: to measure on; None for validation, from which a t may be chosen.
        device: see `transform`.
        reporter: hears what is being done; True prints it in plain lines on standard error.

    Raises:
        UsageError: the scan is empty, a number cannot be, or the run has no linear map or no
            concept.
        DataError, ModelError, StorageError: see `transform`.
    """
    say = heard_by(reporter)
    try:
        values = parse_scan(ts) if isinstance(ts, str) else [float(t) for t in ts]
    except (TypeError, ValueError):
        raise UsageError(f"ts must be numbers, or A:B:STEP as text, not {ts!r:.60}.") from None
    if not values or not all(map(math.isfinite, values)):
        raise UsageError("The scan needs values of t, one at least, and all of them finite.")
    check_whole("k", k, 1)
    if output is not None:
        check_writable(output)
    context = open_context(
        run,
        task=task,
        dataset=dataset,
        dataset_options=dataset_options or {},
        split=split,
        device=device,
        reporter=say,
    )
    found: Scan | ReadingScan
    if isinstance(context.subject, Typographic):
        if after:
            raise UsageError(
                "The scan of a run that was trained on written words takes no other maps (after)."
            )
        found = scan_reading(context, values)
    else:
        powers = powers_of(context, [(Path(path), t) for path, t in (after or {}).items()])
        found = scan_powers(powers, values, k=k, reporter=say)
    if output is not None:
        write_scan(found, Path(output), say)
    return found


def open_context(run: str | os.PathLike[str] | FitContext, **fields: Any) -> FitContext:
    """Look at a run or a model spec, for `transform` and `scan` to share what is loaded.

    Args:
        run: see `transform`; what is open already is given back as it is.
        **fields: task, dataset, dataset_options, split, device, reporter; see `FitContext`.
    """
    return run if isinstance(run, FitContext) else FitContext.open(run, **fields)


def default_name(context: FitContext) -> str:
    """The name of a run or a model, fit for a directory."""
    name = context.run.path.resolve().name if context.run else parse_model_spec(context.path).name
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


def _default_output(context: FitContext, fitted: Transform) -> Path:
    return Path("models") / f"{default_name(context)}-{fitted.label}"


def _earlier(context: FitContext, fitter: Fitter) -> dict[str, Any] | None:
    """How the source itself was made, where it is the result of a transform.

    Raises:
        UsageError: it is, and the transform would be folded in twice.
    """
    spec = None if context.run else parse_model_spec(context.path)
    record = spec.path / RECORD if spec and spec.kind == "directory" and spec.path else None
    if record is None or not record.is_file():
        return None
    made = read_yaml_mapping(record)
    if fitter.frozen.starts_from == "reference":
        raise UsageError(
            f"{context.path} is the result of a transform already ({made.get('method')} of "
            f"{made.get('source')}; see {record}), and nothing is folded in twice. Transform "
            f"{made.get('source')} again, from its start; to compose the maps of several runs, "
            "name the others with --after RUN=T (in Python after={RUN: T})."
        )
    context.reporter.note(
        f"{context.path} was made by {made.get('method')} of {made.get('source')}; this is applied "
        "to the result."
    )
    return made


def _check_output(target: Path) -> None:
    """Refuse to replace a model that is not a transform's, and a place that cannot be written.

    Raises:
        UsageError: there is such a model.
        StorageError: nothing can be made there.
    """
    if (target / CONFIG_NAME).is_file() and not (target / RECORD).is_file():
        raise UsageError(
            f"{target} holds a model that no transform made, so it is not replaced. Choose another "
            "output."
        )
    check_writable(target)


def _unfolded(error: ModelError, fitted: Transform, target: Path) -> ModelError:
    """Keep a transform that a model cannot take, and say how it is applied to features."""
    path = target / UNFOLDED
    lines = fitted.unfolded(path)
    if not lines:
        return error
    fitted.save(path)
    return ModelError(
        f"{error}\nThe unfolded transform is in {path}. These lines apply it to features:\n{lines}"
    )
