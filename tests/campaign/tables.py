"""Hostile tables of labelled images and of preferences."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaign import broken_images as make
from tests.campaign.cases import Broken, Trial, case
from tests.campaign.hostile import accounted, attempt, canary, quarantine, rows

LABELS = ("apple", "pear", "plum")
Cells = dict[str, Any]


def sound_rows(place: Path) -> list[Cells]:
    """Images, and a row for each."""
    (place / "images").mkdir(parents=True)
    found = []
    for i in range(6):
        name = f"images/{i}.png"
        (place / name).write_bytes(make.picture("png", "RGB"))
        found.append({"image": name, "label": LABELS[i % 3]})
    return found


def _path(rng: random.Random) -> Any:
    away = str(Path.cwd())
    return rng.choice(
        (
            "../canary/secret.png", "images/../../canary/secret.png", "/etc/passwd", away,
            "/dev/zero",
            "images/out.png", "images/pipe.png", "links/secret.png", "images", ".", "..", "", "//",
            "images/none.png", "\\\\host\\share\\x.png", "C:\\x.png", "a\0b.png", "images/\0",
            "~/x.png",
            "file:///etc/passwd", "http://127.0.0.1:9/x.png", "x" * 5000, "é" * 300 + ".png",
            "\u202egnp.x", "\x1b]0;x\x07.png", "images/0.png/", "images/round.png", None, 7, True,
            1e400, {"a": 1}, ["images/0.png"], float("nan"), 10**4000, "\ud800", "-rf", "|id", "*",
        )
    )  # fmt: skip


def _label(rng: random.Random) -> Any:
    return rng.choice(
        (
            "", " ", float("nan"), None, "\x1b[31mred", "a\nb", "\u202eelppa", "x" * 201,
            "x" * 5000,
            "\x07", "\0", "\ud83d", {"a": 1}, [], "a\u200bb", "\r", "\u2028", "\x9b31m",
        )
    )  # fmt: skip


def hostile_row(rng: random.Random, number: int) -> Cells:
    """A row that cannot be used: its path or its label is wrong."""
    if rng.random() < 0.5:
        return {"image": _path(rng), "label": rng.choice(LABELS)}
    return {"image": f"images/extra-{number}.png", "label": _label(rng)}


def traps(place: Path, outside: Path) -> None:
    """Links out of the folder and a pipe, for rows to name."""
    import os

    images = place / "images"
    (images / "out.png").symlink_to(outside / "secret.png")
    (images / "round.png").symlink_to("round.png")
    (place / "links").symlink_to(outside)
    os.mkfifo(images / "pipe.png")


def write_table(path: Path, table: list[Cells], rng: random.Random) -> int:
    """Write rows in the format of the name; how many rows a reader must find."""
    columns = list(dict.fromkeys(c for row in table for c in row))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
        return len(table)
    texts = [[_text(row.get(c)) for c in columns] for row in table]
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        clean = [[t.encode("utf-8", "replace").decode() for t in row] for row in texts]
        made = pyarrow.table({c: [row[i] for row in clean] for i, c in enumerate(columns)})
        pyarrow.parquet.write_table(made, path)
        return len(table)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for row in texts:
        ragged = rng.random()
        writer.writerow([*row, "more"] if ragged < 0.1 else row[:1] if ragged < 0.15 else row)
    path.write_bytes(buffer.getvalue().encode("utf-8", "surrogatepass"))
    return len(table)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


@case("table rows", long=60)
def table_rows(trial: Trial) -> None:
    """Rows with paths out of the folder, links, pipes, labels of all kinds: none is lost."""
    rng, place = trial.rng, trial.folder / "in"
    good = sound_rows(place)
    traps(place, canary(trial))
    trial.inputs = 20 if trial.number == 0 else 45
    bad = [hostile_row(rng, i) for i in range(trial.inputs)]
    for i, row in enumerate(bad):
        if row["image"] == f"images/extra-{i}.png":
            (place / row["image"]).write_bytes(make.picture("png", "RGB"))
    table = [*good, *bad, good[0]]  # a row twice
    rng.shuffle(table)
    ending = ("jsonl", "csv", "parquet")[trial.number % 3]
    given = write_table(place / f"table.{ending}", table, rng)
    done = attempt(
        trial, "prepare", "typographic", "--dataset", f"in/table.{ending}", "-o", "out",
        "--dataset-set", "wrong_rows=quarantine",
    )  # fmt: skip
    accounted(trial, done, "out", given)
    used = {row["source_key"] for row in rows(trial.folder / "out")} if not done.code else set()
    if leaked := {key for key in used if "secret" in key or "out.png" in key or "pipe" in key}:
        raise Broken("escape", f"{done.line}: read {leaked}")
    whole = attempt(
        trial, "prepare", "typographic", "--dataset", f"in/table.{ending}", "-o", "out-2"
    )  # fmt: skip
    if whole.code != 5 or "problems" not in whole.err:
        raise Broken("lost", f"{whole.line}: not refused: {whole.code} {whole.err[-300:]}")


@case("preference rows", long=40)
def preference_rows(trial: Trial) -> None:
    """Judgements that contradict themselves, say nothing, or hold what is no text."""
    rng, place = trial.rng, trial.folder / "in"
    good = [
        {"image": r["image"], "chosen": r["label"], "rejected": "a bus"} for r in sound_rows(place)
    ]
    traps(place, canary(trial))
    texts: tuple[Any, ...] = (
        "", "a cat", "a\u202eb", "\x1b[0m", None, float("nan"), "x" * 4001, True, 3, {"x": 1},
        "\ud800",
        "<script>alert(1)</script>", "=1+1", "a\nb", "\0", " ", "a" * 130_000,
    )  # fmt: skip
    trial.inputs = 20 if trial.number == 0 else 40
    bad = []
    for number in range(trial.inputs):
        name = f"images/own-{number}.png"
        (place / name).write_bytes(make.picture("png", "RGB"))
        row: Cells = {"image": _path(rng) if rng.random() < 0.3 else name}
        for column in ("chosen", "rejected", "text", "desirable"):
            if rng.random() < 0.6:
                row[column] = rng.choice(texts)
        bad.append(row)
    table = [*good, *bad]
    rng.shuffle(table)
    ending = ("jsonl", "csv", "parquet")[trial.number % 3]
    given = write_table(place / f"table.{ending}", table, rng)
    done = attempt(trial, "prepare", "preferences", "--dataset", f"in/table.{ending}", "-o", "out")
    if done.code:
        return accounted(trial, done, "out", given)
    used, refused = rows(trial.folder / "out"), quarantine(trial.folder / "out")
    if len(used) + len(refused) != given:
        raise Broken("lost", f"{done.line}: {given} rows, {len(used)} used, {len(refused)} refused")


# --- Whole files ----------------------------------------------------------------------------------


def _csv(rng: random.Random, text: str) -> bytes:
    """One thing done to a sound CSV file."""
    lines = text.split("\n")
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: text.encode("utf-16"),
        lambda: text.encode("utf-16-le"),
        lambda: text.encode("utf-32"),
        lambda: b"\xef\xbb\xbf" + text.encode(),
        lambda: b"\xef\xbb\xbf\xef\xbb\xbf" + text.encode(),
        lambda: text.replace("apple", "äpfel").encode("latin-1"),
        lambda: text.encode() + b"images/0.png,\xff\xfe\n",
        lambda: text.encode() + b'images/0.png,"' + b"x" * 10_000_000,
        lambda: text.encode() + b"images/0.png," + b"x" * 10_000_000 + b"\n",
        lambda: b"image,image\n" + b"\n".join(map(str.encode, lines[1:])),
        lambda: b"image,label,label\n" + text.encode(),
        lambda: b"file,class\n" + text.encode(),
        lambda: b"," * 100_000 + b"\n" + text.encode(),
        lambda: text.replace("label", "l\0abel").encode(),
        lambda: text.encode().replace(b"apple", b"ap\0ple"),
        lambda: text.replace("\n", "\r").encode(),
        lambda: text.replace(",", ";").encode(),
        lambda: text.encode() + b'"',
        lambda: b'"' * 9999,
        lambda: b"",
        lambda: b"\n" * 1000,
        lambda: lines[0].encode(),
        lambda: bytes(4096),
        lambda: rng.randbytes(4096),
        lambda: text.encode()[: rng.randrange(len(text))],
        lambda: make.flipped(rng, text.encode()),
        lambda: make.flipped(rng, text.encode()),
        lambda: make.spliced(rng, text.encode()),
        lambda: ("image,label\x1b]8;;http://x\x07," + "=cmd()\n" + text).encode(),
        lambda: make.picture("png", "RGB"),
    )
    return rng.choice(kinds)()


def _jsonl(rng: random.Random, text: str) -> bytes:
    first = text.split("\n")[0]
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: text.encode() + b"[" * 100_000 + b"\n",
        lambda: text.encode() + b'{"image":' * 50_000 + b"\n",
        lambda: text.encode() + b'{"image": ' + b"9" * 5000 + b', "label": "apple"}\n',
        lambda: text.encode() + b'{"image": 1e999, "label": -Infinity}\n',
        lambda: text.encode() + b'{"image": true, "label": false}\n',
        lambda: text.encode() + b'{"image": "a", "image": "b", "label": "c"}\n',
        lambda: text.encode() + b'{"image": "' + b"x" * 10_000_000 + b'"}\n',
        lambda: text.encode() + b'null\n[]\n7\n"x"\n{}\n',
        lambda: text.encode() + b'{"\\ud800": "\\udfff", "image": "a", "label": "b"}\n',
        lambda: text.encode() + b'{"\\u001b]52;c;eA==\\u0007": "x", "image": "a"}\n',
        lambda: text.encode() + b'{"": "x", "image": "images/0.png", "label": ""}\n',
        lambda: (first.replace("}", ', "file_name": "x", "sha256": "y"}') + "\n" + text).encode(),
        lambda: json.dumps([json.loads(x) for x in text.splitlines()]).encode(),
        lambda: text.encode("utf-16"),
        lambda: b"\xef\xbb\xbf" + text.encode(),
        lambda: text.replace("\n", "\r\n").encode(),
        lambda: text.replace("\n", " ").encode(),
        lambda: text.replace("label", "LABEL").encode(),
        lambda: b"",
        lambda: rng.randbytes(4096),
        lambda: text.encode()[: rng.randrange(len(text))],
        lambda: make.flipped(rng, text.encode()),
        lambda: make.flipped(rng, text.encode()),
        lambda: make.spliced(rng, text.encode()),
    )
    return rng.choice(kinds)()


def _parquet(rng: random.Random, table: list[Cells]) -> bytes:
    import datetime

    import pyarrow
    import pyarrow.parquet

    columns: dict[str, Any] = {k: [row[k] for row in table] for k in table[0]}
    n = len(table)
    more = rng.choice(
        (
            {}, {}, {}, {}, {"x": [b"\xff"] * n}, {"x": [[1, 2]] * n}, {"x": [{"a": 1}] * n},
            {"x": [datetime.date(2020, 1, 1)] * n}, {"x": [None] * n}, {"x": [float("nan")] * n},
            {"\x1b[31m": ["=1+1"] * n}, {"label": [1.5] * n}, {"label": [True, False,
            None] * (n // 3)},
            {"image": [b"images/0.png"] * n},
        )
    )  # fmt: skip
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns | more), buffer)
    data = buffer.getvalue()
    return data if more else rng.choice(make.DAMAGES)(rng, data)


@case("table files", long=60)
def table_files(trial: Trial) -> None:
    """Wrong encodings, byte order marks, zero bytes, cells of 10 million letters, depth bombs."""
    rng, place = trial.rng, trial.folder / "in"
    good = sound_rows(place)
    trial.inputs = 4 if trial.number == 0 else 8
    for number in range(trial.inputs):
        ending = rng.choice(("csv", "jsonl", "csv", "jsonl", "parquet"))
        plain = place / f"plain.{ending}"
        own = rng.random() < 0.3
        table = [{"image": r["image"], "chosen": r["label"], "rejected": "x"} for r in good]
        table = table if own else good
        write_table(plain, table, random.Random(1))
        file = place / f"{number}.{ending}"
        if ending == "parquet":
            file.write_bytes(_parquet(rng, table))
        else:
            file.write_bytes((_csv if ending == "csv" else _jsonl)(rng, plain.read_text()))
        task = "preferences" if own else "typographic"
        how = [] if own or rng.random() < 0.3 else ["--dataset-set", "wrong_rows=quarantine"]
        out = f"out-{number}"
        done = attempt(trial, "prepare", task, "--dataset", f"in/{file.name}", "-o", out, *how)
        if done.code == 0:
            made = trial.folder / out
            if task == "typographic" and not rows(made):
                raise Broken("lost", f"{done.line}: an empty set")
            quarantine(made)
