"""Read the index of a tar shard: where each member lies, without unpacking anything.

Nothing is ever written, so that a name such as `../../etc/passwd` harms nobody; such members, links
and archives within the archive are refused all the same, each with its reason.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from clipalign.errors import DataError
from clipalign.text import can_be_printed

__all__ = ["Member", "Sample", "read_at", "samples"]

_BLOCK = 512  # bytes; a tar file is made of them
_NAME = re.compile(r"((?:[^/]*/)*[^/.]+)\.([^/]+)")
_ARCHIVES = ("tar", "zip", "gz", "tgz", "bz2", "xz", "zst", "7z", "rar")


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of one member lie in the shard."""

    offset: int
    size: int


@dataclass(slots=True)
class Sample:
    """The members that share a key, by their endings in lower case."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def samples(path: Path) -> Iterator[Sample]:
    """The samples of a shard, in its order: members that stand together and share a key.

    The key is the name up to the first dot of its last part. Only headers are read.

    Raises:
        DataError: it is no tar file, is compressed, or was cut short; or the members of a sample
            stand apart, so that an image would be taken without its label.
    """
    sample: Sample | None = None
    seen: dict[str, frozenset[str]] = {}  # endings by key
    kinds: dict[frozenset[str], frozenset[str]] = {}  # the same ones, each held once
    for info in _members(path):
        if info.isdir():
            continue
        match = _NAME.fullmatch(info.name)
        key, ending = match.groups() if match else (info.name, "")
        if sample is None or key != sample.key:
            if sample is not None:
                endings = frozenset(sample.members)
                seen.setdefault(sample.key, kinds.setdefault(endings, endings))
                yield sample
            sample = Sample(key)
            if key in seen:
                sample.problems.append("its key came before in this shard")
        if ending.lower() not in seen.get(key, (ending.lower(),)):
            raise DataError(
                f"The shard {path} has {info.name!a} apart from the other files of its sample. "
                "Files of one sample must stand together: make it again with `tar --sort=name`."
            )
        problem = _problem(info, ending, sample)
        if problem:
            sample.problems.append(f"{info.name!a}: {problem}")
        else:
            sample.members[ending.lower()] = Member(info.offset_data, info.size)
    if sample is not None:
        yield sample


def read_at(path: Path, member: Member) -> bytes:
    """The bytes of a member.

    Raises:
        OSError: the shard cannot be read.
        EOFError: it ends before the member does.
    """
    with path.open("rb") as file:
        file.seek(member.offset)
        data = file.read(member.size)
    if len(data) != member.size:
        raise EOFError
    return data


def _problem(info: tarfile.TarInfo, ending: str, sample: Sample) -> str | None:
    pure = PurePosixPath(info.name)
    if pure.is_absolute() or ".." in pure.parts or not can_be_printed(info.name):
        return "its name leads out of the archive, or cannot be printed"
    if not info.isreg() or info.issparse():
        return "it is a link or a device and not a file"
    if not ending:
        return "its name has no ending"
    if ending.lower().rpartition(".")[2] in _ARCHIVES:
        return "it is an archive within the archive"
    if ending.lower() in sample.members:
        return "there are two of its kind"
    return None


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """All members; the list that tarfile would keep of them is thrown away as it grows."""
    try:
        whole = path.stat().st_size
        with tarfile.open(path, "r:", errors="surrogateescape") as tar:
            end = 0
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # flat memory, however many
                end = tar.offset  # of the next header
                if info.isreg() and info.offset_data + info.size > whole:
                    raise DataError(_cut(path, info.name))
                yield info
        with path.open("rb") as file:
            file.seek(end)
            if file.read(_BLOCK) != bytes(_BLOCK):
                raise DataError(_cut(path, None))
    except tarfile.TarError as error:
        raise DataError(
            f"{path} is not a tar file that can be read ({error}). Compressed shards are not read "
            "in place: unpack them with gunzip or zstd -d first."
        ) from None
    except OSError as error:
        raise DataError(f"The shard {path} cannot be read: {error.strerror}.") from None


def _cut(path: Path, name: str | None) -> str:
    where = "its end mark is missing" if name is None else f"it ends within {name!a}"
    return f"The shard {path} was cut short or is damaged: {where}. Copy it again, or leave it out."
