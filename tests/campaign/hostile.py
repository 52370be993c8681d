"""What the cases of hostile input share: a fence around the output, and what a command may say."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from tests.campaign.cases import Broken, Trial
from tests.campaign.commands import Finished

REFUSED = (2, 3, 5, 6, 7, 8)
"""Exit codes of a refusal in words (see clipalign/errors.py)."""

_SHOWN = set("\n\t\u200c\u200d")
MEMORY = 12 << 30
"""Address space in bytes that a command may take: torch alone maps 5 GiB of it."""


def fence(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Mode, size and time of change of everything around the output (`out*`) and the cache."""
    found = {}
    for where, folders, files in os.walk(folder):
        if Path(where) == folder:
            folders[:] = [f for f in folders if not f.startswith("out") and f != ".cache"]
            files = [f for f in files if not f.startswith("out")]
        for name in [*folders, *files]:
            path = os.path.join(where, name)
            about = os.lstat(path)
            size = 0 if stat.S_ISDIR(about.st_mode) else about.st_size
            found[path] = (about.st_mode, size, about.st_mtime_ns)
    return found


def canary(trial: Trial) -> Path:
    """A folder beside the input that nothing may change; what would be run would put a file there.

    It holds a picture and a text, as targets of paths that lead out of a folder.
    """
    folder = trial.folder / "canary"
    if not folder.exists():
        folder.mkdir()
        Image.new("RGB", (32, 32), "red").save(folder / "secret.png")
        (folder / "secret.txt").write_text("nobody's business\n")
    return folder


def attempt(trial: Trial, *arguments: str, **options: Any) -> Finished:
    """Run a command that may refuse its input, and hold it to what every command promises.

    No traceback, no hang; 0 or a documented refusal with a reason; nothing that a terminal obeys;
    nothing written but below `out…` and the cache.
    """
    canary(trial)
    before = fence(trial.folder)
    options.setdefault("timeout", 180)  # the machine may be busy
    options.setdefault("limits", {"RLIMIT_AS": MEMORY})
    done = trial.run(*arguments, **options)
    if done.code not in (0, *REFUSED):
        raise Broken("lost", f"{done.line}: code {done.code}: {done.err[-600:]}")
    # a comparison names what failed cell by cell
    if done.code and "Error" not in done.err and " failed: " not in done.err:
        raise Broken("lost", f"{done.line}: code {done.code} and no reason: {done.err[-300:]}")
    after = fence(trial.folder)
    if before != after:
        changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
        raise Broken("escape", f"{done.line}: changed {sorted(changed)[:5]}")
    inert(done.out + done.err, done.line)
    return done


def inert(text: str, where: str) -> None:
    """Raise `Broken` where a text holds what a terminal obeys, or what turns its direction."""
    if bad := {c for c in text if not c.isprintable()} - _SHOWN:
        raise Broken("escape", f"{where} printed {sorted(map(ascii, bad))}: {text[-300:]!a}")


def accounted(trial: Trial, done: Finished, output: str, given: int) -> None:
    """Of `given` inputs each is in the set or in its quarantine with a reason; or all are refused.

    `done` is a `prepare` of one split with one row an input at least.
    """
    folder = trial.folder / output
    if done.code:
        if folder.exists():
            raise Broken("lost", f"{done.line}: refused, and {output} is there")
        return
    manifest = (folder / "manifest.yaml").read_text()
    counts = [
        sum(
            int(line.split()[1]) for line in manifest.splitlines() if line.startswith(f"    {key}:")
        )
        for key in ("images", "quarantined")
    ]
    refused = quarantine(folder)
    used = {row["source_key"] for row in rows(folder)}
    if counts[0] != given or counts[1] != len(refused):
        raise Broken("lost", f"{done.line}: {given} given, the manifest counts {counts}")
    if len(used) + len(refused) != given:
        missing = given - len(used) - len(refused)
        raise Broken("lost", f"{done.line}: {missing} of {given} are neither used nor quarantined")
    if twice := [k for k, n in Counter([*used, *(r["key"] for r in refused)]).items() if n > 1]:
        raise Broken("lost", f"{done.line}: used and quarantined: {twice[:3]!a}")


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a preference set."""
    tables = sorted(folder.glob("*/metadata.jsonl"))
    return [json.loads(line) for table in tables for line in table.read_bytes().splitlines()]


def quarantine(folder: Path) -> list[dict[str, Any]]:
    """The rows of its quarantine; each has a reason."""
    file = folder / "quarantine.jsonl"
    lines = file.read_bytes().splitlines() if file.exists() else []
    found = [json.loads(line) for line in lines]
    for row in found:
        if not row["reason"].strip() or not row["key"]:
            raise Broken("lost", f"a row of the quarantine says nothing: {row}")
    return found


def write_jsonl(path: Path, table: Iterable[Mapping[str, Any]]) -> None:
    """Rows as JSON Lines; lone surrogates as escapes."""
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
