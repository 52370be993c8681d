"""Model cards of runs and of transformed models: manifest, metrics with intervals, what it cost."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipalign.errors import ClipAlignError
from clipalign.evals.results import MetricValue, SuiteResult, read_result
from clipalign.files import atomic_write_text
from clipalign.models.card import CARD_NAME, Card, is_own, render_card, table
from clipalign.models.load_lines import load_lines
from clipalign.models.spec import EMBEDDED, is_run, parse_model_spec
from clipalign.plain_yaml import read_yaml_mapping
from clipalign.tasks.manifest import MANIFEST, read_manifest
from clipalign.training.outcome import outcome
from clipalign.training.rundir import RunDirectory

__all__ = ["card_is_old", "card_of", "refresh_card", "run_card"]

_TRANSFORM = "transform.yaml"
_EMBEDDED_LICENCE = "mit"
_BIAS = re.compile(r"gender|skew|bias|ndkl|parity|stereotype|top_k")
_DETAIL = re.compile(r"(^|_)reverse_|_(median|p\d+)$")
_DISTANCE = re.compile(r"(^|_)kl_to_reference$|cosine_to_reference$")


def card_of(
    model: str | os.PathLike[str],
    sha256: str | None = None,
    *,
    results: Path | None = None,
    licence: str | None = None,
) -> Card:
    """What is known of a model.

    Args:
        model: a run, the directory of a transformed model, or any other model spec.
        sha256: of the weights: results of other weights are left out.
        results: folder of results; None for a run's own.
        licence: of the weights, an SPDX name; None where it is not known.

    Raises:
        ModelError: there is no such model.
    """
    spec = parse_model_spec(model)
    folder = spec.path if spec.kind == "directory" else None
    if spec.run:
        card, results = run_card(spec.run), results or spec.run / "results"
    elif folder and (folder / _TRANSFORM).is_file():
        card = _transformed(folder)
    else:
        base = spec.name if spec.path else str(spec)
        licence = licence or (_EMBEDDED_LICENCE if spec.kind == "embedded" else None)
        card = Card(spec.name, base, "Not trained with clipalign, or not in one of its runs.")
    measured = [] if results is None else _results(results, sha256)
    return dataclasses.replace(
        card,
        metrics=_metrics(measured),
        given_up=_given_up(measured),
        bias=_bias(measured),
        licence=licence or card.licence,
    )


def refresh_card(model: Path, sha256: str | None = None) -> None:
    """Write the card of an open_clip directory again, with what is known by now.

    A README.md that clipalign did not write is left alone, and so is whatever a link leads to.

    Args:
        model: a run's model/, or the directory of a transformed model.
        sha256: of its weights.

    Raises:
        StorageError: it cannot be written.
    """
    if _is_ours(model):
        atomic_write_text(model / CARD_NAME, _text(model, sha256))


def card_is_old(model: Path) -> bool:
    """Whether the card of a run's model, if it is ours, says something else than the results now.

    They may then be of other weights, which is not looked at.
    """
    path = model / CARD_NAME
    text = path.read_bytes() if path.is_file() else b""
    return _is_ours(model) and text != _text(model, None).encode()


def _is_ours(model: Path) -> bool:
    path = model / CARD_NAME
    linked = model.is_symlink() or path.is_symlink()
    return not linked and (not path.exists() or is_own(path))


def _text(model: Path, sha256: str | None) -> str:
    return render_card(card_of(model, sha256), "open_clip", load_lines("open_clip"))


def public(text: str) -> str:
    """A spec or path fit for strangers: of a local path its last part only."""
    spec = text.removeprefix("local-dir:").removeprefix("hf-dir:")
    local = spec != text or spec.startswith(("/", ".", "~")) or Path(spec).exists()
    return Path(spec).name if local and not text.startswith("hf-hub:") else text


def run_card(run: Path) -> Card:
    """What a run's configuration and manifest say of its model; without measurements."""
    config = read_yaml_mapping(run / "config.yaml")
    base = public(str(config.get("model", "")))
    train: dict[str, Any] = config.get("train") or {}
    facts = {
        "base model": base,
        "method": _with_options(config.get("method"), config.get("method_options")),
        "trained": config.get("trainable"),
        "regulariser": _regulariser(config),
        "steps": _steps(run, train),
        "batch": train.get("batch_size"),
        "averaging": train.get("averaging"),
        "seed": config.get("seed"),
    }
    return Card(
        run.resolve().name,
        base,
        f"{base}, aligned with preferences by clipalign: task {config.get('task')}, method "
        f"{config.get('method')} (arXiv 2411.08923).",
        {name: str(value) for name, value in facts.items() if value is not None},
        _data(run),
        licence=_EMBEDDED_LICENCE if base == EMBEDDED else None,
    )


def _regulariser(config: Mapping[str, Any]) -> str | None:
    """Its name and λ; of none there is nothing to weigh."""
    name, weight = config.get("regulariser"), config.get("regulariser_weight")
    return _with_options(name, {} if name == "none" else {"weight": weight})


def _steps(run: Path, train: Mapping[str, Any]) -> str:
    """What was to be taken; under early stopping also what was, and which weights are kept."""
    planned = str(train.get("steps") or f"{train.get('epochs')} epochs")
    if train.get("early_stopping_patience") is None:
        return planned
    ended = outcome(RunDirectory(run).logged(), early_stopping=True)
    if ended.kept is None:
        return planned
    return (
        f"{ended.step} of at most {planned}; the weights of step {ended.kept} are kept, with "
        f"validation loss {ended.metrics['validation_loss']:.4g}"
    )


def _transformed(folder: Path) -> Card:
    made = read_yaml_mapping(folder / _TRANSFORM)
    source = str(made.get("source", ""))
    facts = {"transform": made.get("method"), "made from": public(source)}
    edit = made.get("transform") or {}
    for name, value in edit.items():
        if isinstance(value, str | int | float) and "/" not in str(value):
            facts[name] = value
    data: dict[str, str] = {}
    if is_run(Path(source)):
        data = _data(Path(source))
    base = public(str(made.get("model", source)))
    return Card(
        folder.name,
        base,
        f"{public(source)}, edited without training by clipalign: {made.get('method')}.",
        {name: str(value) for name, value in facts.items()} | _turned(edit),
        data,
        licence=_EMBEDDED_LICENCE if base == EMBEDDED else None,
    )


def _turned(edit: Mapping[str, Any]) -> dict[str, str]:
    """The maps that a model was turned by, each with its t; and of a neutral one t*."""
    maps = edit.get("maps") or []
    facts = {
        f"map {number}" if len(maps) > 1 else "map": f"of {public(part['run'])}, t = {part['t']:g}"
        for number, part in enumerate(maps, 1)
    }
    if neutral := edit.get("neutral"):
        bounds = neutral["interval"]
        sure = f" [{bounds['low']:.3f}, {bounds['high']:.3f}]" if bounds else ""
        level = f" ({100 * bounds['level']:g} %)" if bounds else ""
        facts[f"neutral t* of {neutral['concept']}"] = f"{neutral['t']:.3f}{sure}{level}"
    return facts


def _data(run: Path) -> dict[str, str]:
    """The manifest of what a run was trained on."""
    if not (run / MANIFEST).is_file():  # a run of an earlier version kept none
        return {}
    manifest = read_manifest(run)
    counts = [f"{name} {count.rows:,}" for name, count in manifest.counts.items()]
    texts = [f"“{text}”" for text in manifest.candidates[:3]]
    return {
        "task": manifest.task,
        "images": public(manifest.dataset),
        "licence of the images": manifest.licence,
        "rows": ", ".join(counts),
        "candidate texts": f"{len(manifest.candidates)}: {', '.join(texts)} …",
        "seed": str(manifest.seed),
        "sha256 of the set": manifest.content_sha256,
        "sha256 of the images": manifest.dataset_fingerprint,
    }


def _results(folder: Path, sha256: str | None) -> list[SuiteResult]:
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            result = read_result(path, check_rows=False)
        except ClipAlignError:  # another JSON file, or one that was changed: nothing to quote
            continue
        if sha256 is None or result.model.sha256 == sha256:
            found.append(result)
    return found


def _metrics(results: Sequence[SuiteResult]) -> list[str]:
    """A title and a table a result; what is the same beside all of them is shown once."""
    blocks: list[str] = []
    shown: set[tuple[str, float | None]] = set()
    for result in results:
        kept = {
            name: metric
            for name, metric in result.metrics.items()
            if not _DETAIL.search(name) and (name, metric.value) not in shown
        }
        shown |= {(name, m.value) for name, m in kept.items() if name.startswith("retention_")}
        blocks += _measured(result, kept)
    return blocks


def _measured(result: SuiteResult, metrics: Mapping[str, MetricValue]) -> list[str]:
    data = result.dataset
    against = f", against {public(result.against.name)}" if result.against else ""
    title = f"**{result.suite}** on {public(data.name)}, split {data.split}: {data.n:,} images"
    differences = {c.metric: c for c in result.comparisons}
    rows = []
    for name, metric in metrics.items():
        if metric.value is None:
            continue
        change = differences.get(name)
        shift = "" if change is None else _with_interval(change.difference, change, metric, "+")
        rows.append((_label(name), _with_interval(metric.value, metric, metric), shift))
    header = ("metric", "value [95 %]", "against the base model, in points or units [95 %]")
    return [f"{title}{against}.", table(header, rows)]


def _given_up(results: Sequence[SuiteResult]) -> list[str]:
    """Every measure that became worse, and how far the model moved; by result."""
    blocks = []
    shown: set[tuple[str, float]] = set()
    for result in results:
        rows = []
        for change in result.comparisons:
            metric = result.metrics[change.metric]
            better = metric.higher_is_better
            same = (change.metric, change.difference)
            if same in shown or _DETAIL.search(change.metric):
                continue
            if better is None or change.difference == 0 or (change.difference > 0) == better:
                continue
            if change.metric.startswith("retention_"):
                shown.add(same)
            sure = change.interval is not None and change.interval.low * change.interval.high > 0
            shift = _with_interval(change.difference, change, metric, "+")
            rows.append((_label(change.metric), shift, "yes" if sure else "no"))
        for name, metric in result.metrics.items():
            distance = _DISTANCE.search(name) and not _DETAIL.search(name)
            if not distance or metric.value is None or _at_rest(name, metric.value):
                continue
            if (name, metric.value) not in shown:
                if name.startswith("retention_"):
                    shown.add((name, metric.value))
                rows.append((_label(name), _with_interval(metric.value, metric, metric), "–"))
        if rows:
            header = ("worse than before", "by, in points or units [95 %]", "interval excludes 0")
            where = f"{result.suite} on {public(result.dataset.name)}, {result.dataset.split}"
            blocks += [f"{where}:", table(header, rows)]
    return blocks


def _at_rest(name: str, value: float) -> bool:
    """Whether a distance says, in the digits that are printed, that nothing moved."""
    return round(value, 4) == (1 if "cosine" in name else 0)


def _bias(results: Sequence[SuiteResult]) -> list[str]:
    rows = [
        (result.suite, result.dataset.split, _label(name), _with_interval(m.value, m, m))
        for result in results
        for name, m in result.metrics.items()
        if m.value is not None and (_BIAS.search(name) or result.suite in ("gender", "fairness"))
    ]
    return [table(("suite", "split", "metric", "value [95 %]"), rows)] if rows else []


def _with_interval(value: float, owner: Any, metric: MetricValue, sign: str = "-") -> str:
    """A value of a metric with its interval; with sign "+" a difference, shares in points."""
    scale, mark = (100, " %" if sign == "-" else "") if metric.unit == "share" else (1, "")
    digits = 1 if scale == 100 else 4
    text = f"{scale * value:{sign}.{digits}f}{mark}"
    interval = owner.interval
    if interval is None or not math.isfinite(interval.low + interval.high):
        return text
    ends = (f"{scale * end:{sign}.{digits}f}" for end in (interval.low, interval.high))
    return f"{text} [{', '.join(ends)}]"


def _with_options(name: Any, options: Any) -> str | None:
    kept = {k: v for k, v in (options or {}).items() if v is not None}
    words = ", ".join(f"{key}={value}" for key, value in kept.items())
    return None if name is None else f"{name} ({words})" if words else str(name)


def _label(name: str) -> str:
    return name.replace("_", " ")
