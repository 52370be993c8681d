"""Where every number comes from: configuration, environment, data, commands to make it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clipalign.errors import ClipAlignError
from clipalign.evals.results import SuiteResult
from clipalign.plugins import registry
from clipalign.reports.sources import Measured, Source
from clipalign.tasks.manifest import MANIFEST, read_manifest

__all__ = ["Provenance", "eval_command", "provenance_of"]

_PATHS = ("root", "path")  # options that name a folder or a table, which --dataset does too


@dataclass(frozen=True)
class Provenance:
    """What is known of a source.

    Attributes:
        title: its name.
        config: as YAML; empty without a run.
        environment: names and values.
        manifest: of the preference set, as YAML, or why there is none to show.
        results: (file, names and values) of each result, or of the scan.
        commands: that make it again, one a line.
    """

    title: str
    config: str
    environment: tuple[tuple[str, str], ...]
    manifest: str
    results: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    commands: tuple[str, ...]


def provenance_of(source: Source) -> Provenance:
    """Gather it."""
    config = source.config
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=80) if config else ""
    environment = [(key, str(value)) for key, value in sorted(source.environment.items())]
    return Provenance(
        source.name,
        text,
        tuple(environment),
        _manifest(config),
        (*((m.path.name, _identity(m.result)) for m in source.results), *_scanned(source)),
        tuple(_commands(source)),
    )


def eval_command(source: Source, measured: Measured) -> str:
    """The command that makes a result again."""
    result = measured.result
    words = ["clipalign", "eval", result.model.spec, "--suite", result.suite]
    if result.against is None:
        words += ["--against", "none"]
    elif result.against.spec != source.config.get("model"):
        words += ["--against", result.against.spec]
    words += [*_dataset(result), "--split", result.dataset.split]
    for key, value in _settings(result).items():
        words += ["--set", f"{key}={_inline(value)}"]
    if result.seed:
        words += ["--seed", str(result.seed)]
    if source.run is None or measured.path.parent != source.run.results:
        words += ["-o", str(measured.path.parent)]
    return shlex.join(words)


def _commands(source: Source) -> list[str]:
    commands = []
    config = source.config
    if source.run is not None:
        if config.get("data"):
            commands.append("# the preference set; see its manifest")
            commands.append(_prepare(Path(str(config["data"]))))
        again = f"{source.run.path}-again"
        commands.append(
            shlex.join(
                ["clipalign", "train", "--config", str(source.run.config), "--output", again]
            )
        )
    commands += [eval_command(source, m) for m in source.results]
    return [command for command in commands if command]


def _prepare(folder: Path) -> str:
    """The command that made a preference set; empty where its manifest cannot be read."""
    try:
        made = read_manifest(folder)
    except ClipAlignError:
        return ""
    where = _where(made.dataset, made.dataset_options)
    words = ["clipalign", "prepare", made.task, "--dataset", where]
    for key, value in made.dataset_options.items():
        if key not in _PATHS:
            words += ["--dataset-set", f"{key}={_inline(value)}"]
    for key, value in made.options.items():
        if value is not None:
            words += ["--set", f"{key}={_inline(value)}"]
    for split in made.counts:
        words += ["--split", split]
    words += ["--seed", str(made.seed), "--max-side", str(made.max_side or 0)]
    if made.limit is not None:
        words += ["--limit", str(made.limit)]
    return shlex.join([*words, "-o", str(folder)])


def _where(name: str, options: Mapping[str, Any]) -> str:
    return next((str(options[key]) for key in _PATHS if options.get(key)), name)


def _dataset(result: SuiteResult) -> list[str]:
    """--dataset and its options, where the suite's own default would be another."""
    data = result.dataset
    own = None
    if result.suite in registry("suites").names():
        own = getattr(registry("suites").load(result.suite), "dataset", None)
    options = {k: v for k, v in data.options.items() if k not in _PATHS}
    words = []
    if data.name != own or data.options:
        words += ["--dataset", _where(data.name, data.options)]
    for key, value in options.items():
        words += ["--set", f"dataset.{key}={_inline(value)}"]
    return words


def _settings(result: SuiteResult) -> dict[str, Any]:
    """Options of the suite that are not its defaults, of those that it knows."""
    if result.suite not in registry("suites").names():
        return dict(result.options)
    suite = registry("suites").load(result.suite)
    fields = getattr(getattr(suite, "Options", None), "model_fields", {})
    defaults = getattr(suite(), "options", None)
    usual = defaults.model_dump(mode="json") if defaults is not None else {}
    changed = {k: v for k, v in result.options.items() if k in fields and v != usual.get(k)}
    # what a null stands for is resolved in the result; the null gives the same again
    return {k: v for k, v in changed.items() if usual.get(k) is not None}


def _inline(value: Any) -> str:
    """A value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _manifest(config: Mapping[str, Any]) -> str:
    if not config.get("data"):
        return ""
    folder = Path(str(config["data"]))
    try:
        manifest = read_manifest(folder)
    except ClipAlignError as error:
        return f"{folder / MANIFEST} cannot be read: {error}"
    tree = manifest.model_dump(mode="json")
    for key in ("candidates", "regulariser_candidates"):
        tree[key] = _shortened(tree[key])
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=80)


def _shortened(texts: Sequence[str] | None) -> list[str] | None:
    if texts is None or len(texts) <= 10:
        return list(texts) if texts is not None else None
    return [*texts[:10], f"… and {len(texts) - 10} more"]


def _scanned(source: Source) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    """What a scan that was named by itself says of where it comes from."""
    if source.scan is None or source.run is not None:
        return []
    ts = [row["t"] for row in source.scan["rows"]]
    rows = {key: value for key, value in source.scan.items() if key != "rows"}
    rows |= {"t": f"{len(ts)} values from {min(ts):g} to {max(ts):g}"}
    words = {k: ", ".join(v) if isinstance(v, list) else str(v) for k, v in rows.items()}
    return [("scan.json", tuple(words.items()))]


def _identity(result: SuiteResult) -> tuple[tuple[str, str], ...]:
    against = result.against
    rows = [
        ("suite", f"{result.suite}, version {result.suite_version}"),
        ("made by", result.created_by),
        ("model", f"{result.model.spec} ({result.model.sha256[:12]}…)"),
        ("reference", f"{against.spec} ({against.sha256[:12]}…)" if against else "none"),
        ("data", f"{result.dataset.label}, {result.dataset.split}, {result.dataset.n:,} images"),
        ("data fingerprint", result.dataset.fingerprint),
        ("licence of the data", result.dataset.licence),
        ("seed", str(result.seed)),
        ("templates", "; ".join(result.templates) or "the prompts of the suite"),
        ("content sha256", result.content_sha256 or "not written to a file"),
    ]
    return tuple(rows)
