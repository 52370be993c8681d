"""Hostile WebDataset shards."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
from pathlib import Path

from tests.campaign import broken_images as make
from tests.campaign.cases import Broken, Trial, case
from tests.campaign.hostile import accounted, attempt, canary, rows

PATHS = (
    "../canary/secret", "../../x", "/etc/passwd", "/tmp/x", "a/../../x", "./a", "a//b", "~/x", "",
    "con\x1b]0;x\x07", "\u202egnp", "a\nb", "x" * 300, "-rf", "..", ".", ".hidden", "\x80\xff",
    "C:\\x",
)  # fmt: skip


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **about: object) -> None:
    """A member; `about` sets what its header says."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in about.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def sample(tar: tarfile.TarFile, key: str, label: str = "apple") -> None:
    """A sound sample."""
    add(tar, f"{key}.png", make.picture("png", "RGB"))
    add(tar, f"{key}.json", json.dumps({"label": label}).encode())


def hostile_sample(tar: tarfile.TarFile, rng: random.Random, number: int) -> bool:
    """One sample with something wrong; whether it counts as one."""
    key = f"bad-{number:04}"
    picture = make.picture("png", "RGB")
    wild = rng.choice(PATHS)
    kind = rng.randrange(16)
    if kind < 3:
        sample(tar, f"{wild}{number}")
    elif kind == 3:
        link = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE))
        add(
            tar,
            f"{key}.png",
            type=link,
            linkname=rng.choice(("/etc/passwd", "../canary/secret.png")),
        )
    elif kind == 4:
        device = rng.choice((tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE))
        add(tar, f"{key}.png", type=device, devmajor=1, devminor=5)
    elif kind == 5:
        add(tar, f"{key}.{rng.choice(('tar', 'zip', 'gz', 'jpg.tar'))}", picture)
    elif kind == 6:
        add(tar, f"{key}.json", b'{"label": "apple"}')
    elif kind == 7:
        add(tar, f"{key}.png", picture)
        add(tar, f"{key}.jpg", picture)
    elif kind == 8:
        add(tar, f"{key}.png", make.damaged(rng)[0])
        add(tar, f"{key}.cls", b"pear")
    elif kind < 12:
        texts = (
            b"[" * 99_999, b"null", b"\xff", b'{"label": ' + b"9" * 5000 + b"}", b"",
            b'{"label": {"a": 1}}', b'{"label": "\\u001b[31m"}', b'{"label": "\\ud800"}',
            b'{"\\u202e": 1, "label": "apple"}', b'{"label": "' + b"x" * 5000 + b'"}',
            b'{"file_name": "x", "sha256": 7, "label": "pear"}', b'{"label": NaN}',
            b'{"label": true}', b'{"label": "apple", "x": [1, {"y": 2}]}', b" " * (1 << 21),
        )  # fmt: skip
        add(tar, f"{key}.png", picture)
        add(tar, f"{key}.json", rng.choice(texts))
    elif kind == 12:
        add(tar, f"{key}.png", picture)
        add(tar, f"{key}.cls", rng.choice((b"", b"\x1b", b"\xff", b"99999", b"9" * 5000, b"-1")))
    elif kind == 13:
        add(tar, f"{key}.png", picture)
        add(
            tar,
            f"{key}.txt",
            rng.choice((b"\xff", b"\x1b]8;;http://x\x07", b"=1+1", b"x" * 999_999)),
        )
    elif kind == 14:
        add(tar, f"{key}", picture)
    else:
        add(tar, f"{key}.png", b"")
    return True


@case("shard members", long=40)
def shard_members(trial: Trial) -> None:
    """Paths out of the archive, links, devices, archives within, wrong texts: all accounted for."""
    trial.inputs = 20 if trial.number == 0 else 40
    canary(trial)
    path = trial.folder / "in" / "train-0.tar"
    path.parent.mkdir()
    form = trial.rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    with tarfile.open(path, "w", format=form) as tar:
        for i in range(4):
            sample(tar, f"good-{i}", ("apple", "pear")[i % 2])
        for number in range(trial.inputs):
            hostile_sample(tar, trial.rng, number)
    done = attempt(trial, "prepare", "typographic", "--dataset", "in", "-o", "out")
    if done.code == 0:
        accounted(trial, done, "out", given(path))
        good = {r["source_key"] for r in rows(trial.folder / "out") if "good" in r["source_key"]}
        if len(good) != 4:
            raise Broken("lost", f"{done.line}: sound samples are missing: {good}")
    elif not (done.code == 5 and "classes are numbers" in done.err):
        raise Broken("lost", f"{done.line}: refused whole: {done.err[-400:]}")


def given(path: Path) -> int:
    """Samples of a shard as the field counts them: members side by side that share a key."""
    found, last = 0, None
    with tarfile.open(path, errors="surrogateescape") as tar:
        for info in tar:
            if info.isdir():
                continue
            folder, slash, name = info.name.rpartition("/")
            stem, dot, _ = name.partition(".")
            key = folder + slash + stem if dot and stem else info.name
            found += key != last
            last = key
    return found


def whole_shard(rng: random.Random, folder: Path) -> None:
    """A folder with one sound shard, and one as a whole that is not."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for i in range(4):
            sample(tar, f"s{i}", ("apple", "pear")[i % 2])
    data = buffer.getvalue()
    (folder / "train-0.tar").write_bytes(data)
    file = folder / "train-1.tar"
    head = bytearray(data[:512])
    kind = rng.randrange(16)
    if kind == 0:
        head[124:136] = b"77777777777\0"  # 8 GiB
        file.write_bytes(bytes(head) + data[512:])
    elif kind == 1:
        head[124:136] = b"\x80" + b"\xff" * 11  # as big as a number can be
        file.write_bytes(bytes(head) + data[512:])
    elif kind == 2:
        file.write_bytes(gzip.compress(bytes(50 << 20)))
    elif kind == 3:
        os.mkfifo(file)
    elif kind == 4:
        file.symlink_to("/dev/zero")
    elif kind == 5:
        file.mkdir()
    elif kind == 6:
        file.write_bytes(b"")
    elif kind == 7:
        file.write_bytes(bytes(10240))
    elif kind == 8:
        file.write_bytes(data[: rng.randrange(len(data))])
    elif kind == 9:
        file.write_bytes(rng.randbytes(5000))
    elif kind == 10:
        file.write_bytes(data + data)
    elif kind == 11:
        (folder / "classnames.txt").write_bytes(
            rng.choice((b"\xff\xfe", b"", b"a\na\n", b"\x1b\n" * 9))
        )
        file.write_bytes(data)
    elif kind == 12:
        pax = tarfile.TarInfo("x")
        pax.pax_headers = {"path": "../../x.png", "size": "-1", "mtime": "nan", "linkpath": "\n"}
        with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(pax)
    else:
        changed = bytearray(data)
        for _ in range(rng.choice((1, 3, 9))):
            block = rng.randrange(len(data) // 512) * 512 if rng.random() < 0.3 else 0
            changed[block + rng.randrange(512)] = rng.randrange(256)
        if rng.random() < 0.7:  # and its sum put right
            changed[148:156] = b" " * 8
            changed[148:156] = b"%06o\0 " % sum(changed[:512])
        file.write_bytes(bytes(changed))


@case("shard files", long=30)
def shard_files(trial: Trial) -> None:
    """Headers that lie, pipes, devices, compressed bombs, flipped and missing bytes."""
    trial.inputs = 5 if trial.number == 0 else 12
    for number in range(trial.inputs):
        folder = trial.folder / f"in-{number}"
        folder.mkdir()
        whole_shard(trial.rng, folder)
        spec = trial.rng.choice(
            (folder.name, f"{folder.name}/train-1.tar", f"webdataset:{folder.name}/*")
        )
        attempt(
            trial, "prepare", "typographic", "--dataset", spec, "-o", f"out-{number}", timeout=30
        )
