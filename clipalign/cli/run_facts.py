"""What is known of a run, by key, for lists, filters and sorting. Imports nothing heavy.

A key is a column of `runs list`, a key of the configuration (`train.lr`), a number of the last line
of `metrics.jsonl` (`loss`), or a metric of a result: `attacked_accuracy` for that of the split
`test` (without one, of the first test split), `attacked_accuracy@test-unseen-style` for another's,
`typographic-emoji-test.attacked_accuracy` for that of one file.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipalign.errors import ClipAlignError, DataError, RunError, UsageError, near_matches
from clipalign.files import parse_json, read_regular
from clipalign.models.spec import is_run, runs_within

if TYPE_CHECKING:
    from clipalign.evals.results import SuiteResult

ROOT = Path("runs")
MAX_BYTES = 1 << 26
COLUMNS = ("run", "state", "step", "task", "method", "model")

_TAIL = 1 << 20
_CONDITION = re.compile(r"([^<>=!]+)(!=|>=|<=|=|<|>)(.*)", re.S)
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def find_runs(root: Path) -> list[Path]:
    """Run directories in `root`, which may be one itself; kto-2 comes before kto-10."""
    if is_run(root):
        return [root]
    folders = [path for path in root.glob("*") if is_run(path)]
    return sorted(folders, key=lambda p: [t.zfill(9) for t in re.split(r"(\d+)", p.name)])


def check_run(run: Path) -> None:
    """Refuse what is no run directory.

    Raises:
        RunError: with the near matches.
    """
    if not is_run(run):
        known = [str(r) for r in find_runs(run.parent)]
        raise RunError(
            f"{run} is not a run directory: it has no config.yaml."
            f"{runs_within(run) or near_matches(str(run), known)}"
        )


def summarise(run: Path) -> dict[str, Any]:
    """The row of one run. A run that cannot be read says so in its state."""
    from clipalign.training.rundir import RunDirectory

    row = {"run": str(run), "task": "?", "method": "?", "model": "?", "step": None}
    try:
        config = read_config(run)
    except ClipAlignError as error:
        return row | {"state": f"unreadable ({' '.join(str(error).split())})"}
    finished = RunDirectory(run).finished
    return row | {
        **{key: config.get(key, "?") for key in ("task", "method", "model")},
        "step": last_metrics(run).get("step"),
        "state": "finished" if finished else "unfinished",
    }


def read_config(run: Path) -> dict[str, Any]:
    """What `config.yaml` says, as it stands: it may be of an older version of clipalign."""
    from clipalign.plain_yaml import read_yaml_mapping
    from clipalign.training.rundir import RunDirectory

    directory = RunDirectory(run)
    directory.check(directory.config)
    return read_yaml_mapping(directory.config)


def last_metrics(run: Path) -> dict[str, Any]:
    """The last whole line of `metrics.jsonl`; empty when there is none.

    A line that a kill cut short is passed over.

    Raises:
        RunError: the log of a finished run was changed.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        return {}
    from clipalign.training.rundir import RunDirectory

    RunDirectory(run).check(path)
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            return row
    return {}


def read_results(run: Path) -> dict[str, Any]:
    """Result files by their path from `results/`, without suffix, as they stand.

    Raises:
        RunError: one is not JSON.
    """
    folder = run / "results"
    return {
        str(path.relative_to(folder).with_suffix("")): _read_json(path)
        for path in sorted(folder.rglob("*.json"))
    }


def read_headlines(run: Path) -> tuple[dict[str, SuiteResult], dict[str, str]]:
    """The aims and costs of each result, by the same names; and why others cannot be shown."""
    from clipalign.comparison.runs import result_files
    from clipalign.evals.results import read_result
    from clipalign.reports.headline import headline

    found, refused = {}, {}
    for name, path in sorted(result_files(run).items()):
        try:
            found[name] = headline(read_result(path, check_rows=False))
        except DataError as error:
            refused[name] = " ".join(str(error).split())
    return found, refused


class Facts(dict[str, Any]):
    """What is known of a run, by key.

    Attributes:
        splits: metric → the split that its plain name stands for, where that is not `test`.
    """

    def __init__(self, *known: Mapping[str, Any], splits: Mapping[str, str] | None = None) -> None:
        super().__init__({key: value for each in known for key, value in each.items()})
        self.splits = {} if splits is None else splits


def facts(run: Path) -> Facts:
    """Everything that a run can be filtered and sorted by, by key; less of a damaged run."""
    found: dict[str, Any] = {}
    splits: dict[str, str] = {}
    try:
        results = read_results(run)
        config = read_config(run)
    except ClipAlignError:
        return Facts(summarise(run))
    for name, result in sorted(results.items(), key=lambda item: _rank(_split(item[1]))):
        metrics = result.get("metrics") if isinstance(result, Mapping) else None
        for metric, value in metrics.items() if isinstance(metrics, Mapping) else ():
            number = value.get("value") if isinstance(value, Mapping) else None
            split = _split(result)
            found[f"{name}.{metric}"] = number
            found.setdefault(f"{metric}@{split}", number)
            if metric not in found:
                found[metric] = number
                splits |= {metric: split} if split not in ("", "test") else {}
    own = dict(_leaves(config))
    return Facts(found, last_metrics(run), own, summarise(run), splits=splits)


def _split(result: Any) -> str:
    """The split that a result says it is of; empty where it says none."""
    dataset = result.get("dataset") if isinstance(result, Mapping) else None
    return str(dataset.get("split", "")) if isinstance(dataset, Mapping) else ""


def _rank(split: str) -> tuple[bool, bool]:
    """What a plain metric means: `test`, else a test split, else any; files in order of name."""
    return split != "test", not split.startswith("test")


@dataclass(frozen=True)
class Condition:
    """`KEY=VALUE`, or with !=, <, <=, >, >=."""

    key: str
    sign: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read one.

        Raises:
            UsageError: it is none.
        """
        from clipalign.plain_yaml import parse_yaml

        match = _CONDITION.fullmatch(text)
        if match is None:
            raise UsageError(
                f"--where {text}: must be KEY=VALUE, such as method=kto or 'train.lr<=1e-4'."
            )
        key, sign, value = match[1].strip(), match[2], match[3].strip()
        try:
            return cls(key, sign, parse_yaml(value))
        except ValueError as error:
            raise UsageError(f"--where {text}: {error}") from None

    def holds(self, known: Mapping[str, Any]) -> bool:
        """Whether a run meets it; one that does not have the key meets `!=` alone."""
        mine, wanted = known.get(self.key), self.value
        numbers = _number(mine), _number(wanted)
        if None not in numbers:
            mine, wanted = numbers
        if self.sign in ("=", "!="):
            same = mine == wanted or str(mine) == str(wanted)
            return same is (self.sign == "=")
        return None not in numbers and _OPERATORS[self.sign](mine, wanted)


def check_keys(keys: Iterable[str], known: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a key that no run has.

    Raises:
        UsageError: with the near matches.
    """
    every = {key for each in known for key in each}
    for key in keys:
        if known and key not in every:
            near = near_matches(key, every)
            words = near if "Did you mean" in near else f" {_KEYS}"
            raise UsageError(f"No run has a key {key!r}.{words}")


_KEYS = (
    "A key is a column of the list, a key of the configuration such as train.lr, a number of the "
    "log such as loss, or a metric of a result such as attacked_accuracy (of the split test) or "
    "attacked_accuracy@SPLIT."
)


def sort_key(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then text, then what is absent."""
    if value is None:
        return 2, 0.0, ""
    number = _number(value)
    return (1, 0.0, str(value)) if number is None else (0, number, "")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)  # YAML reads 1e-5 as text
    except (ValueError, OverflowError):
        return None


def _leaves(tree: Mapping[str, Any], where: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value


def _read_json(path: Path) -> Any:
    if path.stat().st_size > MAX_BYTES:
        raise RunError(f"{path} is larger than a result file can be ({MAX_BYTES} bytes).")
    try:
        return parse_json(read_regular(path))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not a result file: {error}. Evaluate the run again.") from None
