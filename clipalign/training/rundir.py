"""A run directory: one training, and everything that is known of it.

    config.yaml       the resolved configuration; alone it reproduces the run
    environment.json  versions and machine
    manifest.yaml     of the preference set that it trains on
    metrics.jsonl     one row every `log_every` steps, of the first and last, and a validation
    checkpoints/      the newest state, complete or absent
    model/            an ordinary open_clip directory, once training has finished
    linear_map.safetensors   W of a trained head, which model/ has folded in
    results/          evaluations
    SHA256SUMS        of the files above

Nothing here imports torch: lists of runs and shell completion answer at once.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from clipalign.config import RunConfig, load_config
from clipalign.config_text import dump_config
from clipalign.errors import ConfigError, RunError
from clipalign.files import (
    SUMS,
    atomic_write_bytes,
    atomic_write_text,
    canonical_json,
    changed_file,
    parse_json,
    sha256_bytes,
    sha256_file,
    storage_errors,
    write_sums,
)
from clipalign.models.spec import is_run

RUNS = Path("runs")
"""Where runs lie that no place is named for."""

_BEFORE_A_STEP = (".lock", "config.yaml", "environment.json", "manifest.yaml", SUMS)
_UNKNOWN_NAME = re.compile(r": There is no [a-z]+ '")
_REGISTER = (
    "What the run was made with must be known again: install the package that had the name, or, if "
    "it was given with clipalign.register, go on from Python: register it there first, and then "
    "clipalign.train(resume=RUN)."
)


@dataclass(frozen=True)
class RunDirectory:
    """The places of one run."""

    path: Path
    _held: FileLock | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[RunDirectory], tuple[Path]]:
        return RunDirectory, (self.path,)  # another process does not hold it

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        """The manifest of the preference set."""
        return self.path / "manifest.yaml"

    @property
    def metrics(self) -> Path:
        """The log of steps."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The exported model; there once the run has finished."""
        return self.path / "model"

    @property
    def linear_map(self) -> Path:
        """W of a trained head, before it was folded into the model."""
        return self.path / "linear_map.safetensors"

    @property
    def results(self) -> Path:
        """The folder of evaluations."""
        return self.path / "results"

    @property
    def finished(self) -> bool:
        """Whether the model has been exported."""
        return (self.model / "open_clip_config.json").is_file()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to train, export or seal."""
        sums = self.path / SUMS
        return (
            self.finished
            and sums.is_file()
            and self.metrics.name in sums.read_text(encoding="utf-8", errors="replace").split()
        )

    @classmethod
    def create(cls, config: RunConfig, root: Path = RUNS) -> RunDirectory:
        """Make the directory of a new run and write its configuration.

        The run is held from then on, until `lock` is left or the object is gone: another process
        that was given the same directory finds it in use, or taken.

        Args:
            config: with `output`, or None there for the next free `root/<task>-<method>-<n>`.
            root: where numbered runs lie.

        Raises:
            RunError: `output` holds something already, or is in use.
            StorageError: it cannot be written.
        """
        path = config.output
        if path is None:
            stem = f"{config.task}-{config.method}"
            taken = [
                int(m[1])
                for p in root.glob(f"{stem}-*")
                if (m := re.fullmatch(rf"{re.escape(stem)}-(\d+)", p.name))
            ]
            number = max(taken, default=0) + 1
            while True:  # another process may take the same number at the same moment
                path = root / f"{stem}-{number}"
                try:
                    with storage_errors(path):
                        path.mkdir(parents=True)
                    break
                except FileExistsError:
                    number += 1
        check_vacant(path)
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        run = cls(path, FileLock(path / ".lock"))
        run._acquire()
        check_vacant(path)  # by a process that was quicker
        with storage_errors(path):
            for left in (e for e in path.iterdir() if e.is_file() and e.name != ".lock"):
                left.unlink()
        atomic_write_text(run.config, dump_config(config))
        run.seal()
        return run

    @classmethod
    def open(cls, path: Path) -> tuple[RunDirectory, RunConfig]:
        """An existing run and its configuration.

        Raises:
            RunError: `path` is not a run directory.
            ConfigError: its configuration does not validate.
        """
        if not is_run(path):
            raise RunError(
                f"{path} is not a run directory: it has no config.yaml. "
                "`clipalign runs list` shows the runs that there are."
            )
        run = cls(path)
        run.check(run.config)
        try:
            return run, load_config(run.config)
        except ConfigError as error:
            if _UNKNOWN_NAME.search(str(error)):  # which it was not where the run began
                raise ConfigError(f"{error}\n{_REGISTER}") from None
            raise

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            RunError: another process holds it.
        """
        lock = self._acquire()
        try:
            yield
        finally:
            lock.release(force=True)

    def _acquire(self) -> FileLock:
        lock = self._held or FileLock(self.path / ".lock")
        with storage_errors(self.path):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise RunError(
                    f"{self.path} is in use by another process. Wait for it, or train to another "
                    "--output."
                ) from None
        return lock

    def seal(self) -> None:
        """Write SHA256SUMS of what is there by now; the log of steps counts once it is finished."""
        files = [self.config, self.manifest, self.path / "environment.json"]
        if self.finished:
            files += [self.metrics, self.linear_map]
        write_sums(self.path, [file.name for file in files if file.is_file()])

    def check(self, *files: Path) -> None:
        """Prove that files of the run are what was written.

        Raises:
            RunError: naming one that was changed.
        """
        with storage_errors(self.path):
            changed = changed_file(self.path, [file.name for file in files])
        if changed:
            raise RunError(
                f"{changed} Put it back as it was, or start a new run: a run is what its "
                f"configuration says. (To use it all the same, remove {self.path / SUMS}.)"
            )

    def sweep(self) -> None:
        """Remove what a process that was killed had half written. Only who holds the run may."""
        if self.checkpoints.is_dir():
            for entry in self.checkpoints.iterdir():
                if entry.name.startswith(".") and entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
        for entry in self.path.iterdir():
            if _is_torn(entry) and entry.is_file():
                entry.unlink(missing_ok=True)

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Write environment.json."""
        text = json.dumps(environment, indent=2, sort_keys=True) + "\n"
        atomic_write_bytes(self.path / "environment.json", text.encode())

    def environment(self) -> dict[str, Any]:
        """What environment.json says; empty where there is none.

        Raises:
            RunError: it was changed.
        """
        path = self.path / "environment.json"
        if not path.is_file():
            return {}
        self.check(path)
        try:
            with storage_errors(path):
                return dict(parse_json(path.read_bytes()))
        except (TypeError, ValueError) as error:
            raise RunError(f"{path} is not what a run writes: {error}.") from None

    def logged(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl; a line that a kill cut short is passed over."""
        if not self.metrics.is_file():
            return []
        rows = []
        for line in self.metrics.read_bytes().splitlines():
            try:
                row = parse_json(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append({k: v for k, v in row.items() if isinstance(v, int | float)})
        return rows

    def metrics_sha256(self) -> str | None:
        """Of the log of steps as it stands; None where there is none."""
        return sha256_file(self.metrics) if self.metrics.is_file() else None

    def truncate_metrics(self, step: int, sha256: str | None = None) -> None:
        """Drop rows of steps after `step`, which a resumed run takes again, and torn lines.

        Args:
            step: that the run goes on from.
            sha256: of the log when that step was saved, where it is known.

        Raises:
            RunError: what is left is something else; nothing was changed.
        """
        if not self.metrics.is_file():
            return
        kept = []
        for line in self.metrics.read_bytes().splitlines():
            try:
                row = parse_json(line)
            except ValueError:
                continue
            if isinstance(row, dict) and row.get("step", 0) <= step:
                kept.append(canonical_json(row) + b"\n")
        log = b"".join(kept)
        if sha256 not in (None, sha256_bytes(log)):
            raise RunError(
                f"{self.metrics} is not what was written: its rows up to step {step} were changed "
                "or damaged. Put it back as it was, or remove it to go on without them."
            )
        atomic_write_bytes(self.metrics, log)


def check_vacant(path: Path) -> None:
    """Refuse a directory that holds anything but a lock, what a killed process left torn, and what
    a run writes before its first step: one that failed there left nothing to go on with.

    Raises:
        RunError: it does, saying how to go on where it is a run; or it is a file.
    """
    if path.is_file():
        raise RunError(f"{path} is a file. Choose another --output.")
    if not path.is_dir() or all(map(_is_nothing, path.iterdir())):
        return
    advice = f"go on with `clipalign train --resume {path}`, or c"
    raise RunError(
        f"{path} already holds "
        + (f"a run: {advice}hoose" if is_run(path) else "files: choose")
        + " another --output."
    )


def _is_nothing(entry: Path) -> bool:
    """Whether nothing is lost when a new run takes the place of a file or folder."""
    if entry.is_symlink():
        return False
    if entry.is_dir():
        return entry.name == "checkpoints" and not any(entry.iterdir())
    if entry.name == "metrics.jsonl":
        return entry.stat().st_size == 0
    return entry.name in _BEFORE_A_STEP or _is_torn(entry)


def _is_torn(entry: Path) -> bool:
    """Whether a file is what a killed process left of one that it was writing."""
    return entry.name.startswith(".clipalign-") and entry.suffix == ".tmp"


def newest_run(root: Path = RUNS) -> Path | None:
    """The finished run below `root` that was finished last; None when there is none."""
    found = [
        config for config in root.glob("*/model/open_clip_config.json") if is_run(config.parents[1])
    ]
    return max(found, key=lambda p: p.stat().st_mtime_ns).parents[1] if found else None
