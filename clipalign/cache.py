"""Where clipalign keeps what it can compute again."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from clipalign.errors import ClipAlignError, UsageError, near_matches
from clipalign.files import parse_json, storage_errors
from clipalign.plain_yaml import read_yaml_mapping

_MAX_HEADER = 1 << 20


def cache_dir(kind: str) -> Path:
    """The folder for one kind of cached thing: "features", "preferences", ….

    It lies in the user's cache folder, or below the environment variable CLIPALIGN_CACHE where that
    is set. It is not made here: a reader needs none, and writers make the parents of what they
    write. Everything in it may be deleted at any time.
    """
    return cache_root() / kind


# --- Looking at it ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One thing that is kept.

    Attributes:
        path: a file or a directory within the cache.
        name: as a person calls it: the path's, cut to what tells it apart.
        kind: "images", "texts", "trunk", "preferences", or the folder's name.
        size: in bytes, of all its files.
        age: seconds since it was last written.
        about: what it belongs to; empty where it does not say.
    """

    path: Path
    name: str
    kind: str
    size: int
    age: float
    about: str


def entries() -> list[Entry]:
    """Everything in the cache, largest first. Imports no torch."""
    return sorted(_entries(), key=lambda e: (-e.size, e.name))


def _entries() -> Iterator[Entry]:
    root, now = cache_root(), time.time()
    folders = sorted(p for p in root.iterdir() if _is_folder(p)) if root.is_dir() else []
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") and not path.name.endswith(".tmp"):
                continue  # locks, which cost nothing and must stay while they may be held
            size, written = _measure(path)
            kind, about = _described(path, folder.name)
            yield Entry(path, _short(path.name), kind, size, max(0.0, now - written), about)


def select(
    names: Sequence[str] = (),
    kinds: Sequence[str] = (),
    older_than: float | None = None,
    *,
    everything: bool = False,
) -> list[Entry]:
    """The entries that are meant: those named, or all of some kinds and of an age.

    Args:
        names: beginnings of names; each must fit one entry.
        kinds: of all.
        older_than: days.
        everything: whatever there is.

    Raises:
        UsageError: nothing was said, or a name fits none or several.
    """
    found = entries()
    if names:
        return [_named(name, found) for name in dict.fromkeys(names)]
    known = sorted({e.kind for e in found})
    for kind in kinds:
        if found and kind not in known:
            raise UsageError(
                f"The cache holds nothing of the kind {kind!r}.{near_matches(kind, known)}"
            )
    if not (everything or kinds or older_than is not None):
        raise UsageError("Say what to remove: names, --kind, --older-than DAYS, or --all.")
    return [
        e for e in found if (not kinds or e.kind in kinds) and e.age >= 86_400 * (older_than or 0.0)
    ]


def remove(entry: Entry) -> None:
    """Remove an entry, and nothing that lies outside of the cache: links are not followed.

    Raises:
        UsageError: it is not within the cache.
        StorageError: it cannot be removed.
    """
    root, parent = Path(os.path.realpath(cache_root())), Path(os.path.realpath(entry.path.parent))
    if parent.parent != root or entry.path.name in ("", ".", ".."):
        raise UsageError(f"{entry.path} is not an entry of the cache {root}.")
    with storage_errors(entry.path):
        if _is_folder(entry.path):
            shutil.rmtree(entry.path)  # which does not follow links either
        else:
            entry.path.unlink(missing_ok=True)


def _named(name: str, found: Sequence[Entry]) -> Entry:
    fits = [e for e in found if e.path.name.startswith(name)]
    if len(fits) == 1:
        return fits[0]
    names = [e.name for e in found]
    if not fits:
        near = near_matches(name, names)  # of all that there is, the list tells more
        words = near if "Did you mean" in near else " `clipalign cache list` shows what it holds."
        raise UsageError(f"The cache holds no entry {name!r}.{words}")
    raise UsageError(f"{name!r} could be {' or '.join(e.name for e in fits[:5])}: give more of it.")


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _measure(path: Path) -> tuple[int, float]:
    """Bytes of an entry, and when it was last written. What is gone meanwhile counts nothing."""
    size, written = 0, 0.0
    paths = [path]
    while paths:
        here = paths.pop()
        try:
            facts = here.lstat()
            written = max(written, facts.st_mtime) if here == path else written
            if stat.S_ISDIR(facts.st_mode):
                paths += here.iterdir()
            else:
                size += facts.st_size
        except OSError:
            continue
    return size, written


def _described(path: Path, folder: str) -> tuple[str, str]:
    """Kind of an entry and what it belongs to, as far as it says."""
    if path.name.endswith(".tmp"):
        return "unfinished", "left by a process that was killed, or is at work"
    if path.suffix == ".safetensors":
        header = entry_header(path)
        facts = header[0].get("__metadata__", {}) if header else {}
        return path.name.split("-")[0], str(facts.get("about", "")) if header else "damaged"
    if (path / "manifest.yaml").is_file():
        try:
            tree = read_yaml_mapping(path / "manifest.yaml")
        except ClipAlignError:
            return folder, "its manifest cannot be read"
        rows = sum(c.get("rows", 0) for c in tree.get("counts", {}).values())
        return folder, (
            f"{tree.get('task')} on {tree.get('dataset')}, seed {tree.get('seed')}, {rows:,} rows"
        )
    return folder, ""


def _short(name: str) -> str:
    """A name whose hash is cut to 12 digits."""
    stem, dash, digest = name.removesuffix(".safetensors").rpartition("-")
    return f"{stem}-{digest[:12]}" if dash and len(digest) == 64 else name


# --- Where it is ---------------------------------------------------------------------------------


def cache_root() -> Path:
    """The folder that all kinds lie in."""
    root = os.environ.get("CLIPALIGN_CACHE")
    return Path(root).expanduser() if root else platformdirs.user_cache_path("clipalign", False)


def entry_header(path: Path) -> tuple[dict[str, Any], int] | None:
    """What a safetensors file says of itself, and where its tensors begin, in bytes.

    Returns:
        None when it is absent or no such file. Imports no torch.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER:
                return None
            header = parse_json(file.read(length))
    except (OSError, ValueError, struct.error):
        return None
    return (header, 8 + length) if isinstance(header, dict) else None


def size_text(size: float) -> str:
    """Bytes for the eye: "1.4 GiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size:.0f} bytes"
        size /= 1024
    return f"{size:,.1f} TiB"
