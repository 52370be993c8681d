"""Names and labels that would act in a page, a terminal, a sheet or a shell."""

from __future__ import annotations

import csv
import os
import pty
import random
import re
import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

from tests.campaign import broken_images as make
from tests.campaign.cases import Broken, Trial, case
from tests.campaign.hostile import attempt, inert, write_jsonl

LABELS = (
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "=cmd|' /C calc'!A0",
    "@SUM(1)",
    "-2+3", "+1", "[red]x[/red]", "[link=http://x]y[/link]", "{{7*7}}", "{% raw %}", "%s%n",
    "$(id)", "`id`",
    "a|b", "**b**", "javascript:alert(1)", "&lt;", "'\"><svg onload=alert(1)>", "../../x",
    "C:\\x", "a/b",
    "--help", "%2e%2e", "\\x1b[31m", "<!--", "]]>", "\u3164", "e\u0301" * 4, "👩\u200d🚒",
)  # fmt: skip
"""What can be printed, and so may be a label."""

ACTING = (
    "\x1b[31m", "\x1b]8;;http://x\x07y\x1b]8;;\x07", "\x1b]52;c;eA==\x07", "\x07", "\x9b31m",
    "\x9d0;x\x9c",
    "\u202egnp.x", "\u2066a\u2069", "\u200b", "\ufeff", "\u2028", "\x7f", "\b\b", "\r",
    "\x1bP1$x\x1b\\",
    "\U000e0041", "\x1b[2J", "\x1b[6n", "\u061c", "\x00",
)  # fmt: skip
"""What a terminal or a reader obeys; no label, but it may stand in any other column or name."""


def dataset(place: Path, rng: random.Random) -> tuple[str, ...]:
    """A table with such labels, names and columns; which labels."""
    labels = tuple(rng.sample(LABELS, 4))
    (place / "images").mkdir(parents=True)
    table = []
    for number in range(8):
        acting = rng.choice(ACTING).replace("\0", "").replace("/", "")
        name = f"images/{number}{acting}{rng.choice(LABELS).replace('/', '')}.png"
        (place / name).write_bytes(make.picture("png", "RGB", 40))
        row: dict[str, Any] = {
            "image": name,
            "label": labels[number % 4],
            "style": rng.choice(ACTING),
        }
        row["group"] = f"{rng.choice(ACTING)}{number}"
        row["more" + rng.choice(ACTING)] = rng.choice(LABELS)
        table.append(row)
    table += [
        {"image": rng.choice(ACTING) + "x", "label": "a"},
        {"image": name, "label": ACTING[0]},
    ]
    write_jsonl(place / "table.jsonl", table)
    return labels


class Page(HTMLParser):
    """Gathers the tags and the handlers of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            linked = name in ("href", "src", "action") and not re.match(
                r"#|data:image/", value or ""
            )
            if name.startswith("on") or linked:
                self.bad.append(f"{tag} {name}={value}")


def check_page(path: Path) -> None:
    """The page runs its one script, has no handler, and loads nothing."""
    text = path.read_text(encoding="utf-8")
    inert(text, path.name)
    page = Page()
    page.feed(text)
    if page.bad or page.tags.count("script") > 2 or "onload" in page.tags:
        raise Broken("escape", f"{path.name}: {page.bad[:5]} {page.tags.count('script')} scripts")
    if re.search(r"<script>alert|<svg onload|<img src=x", text):
        raise Broken("escape", f"{path.name}: a label is part of the page")


def check_files(folder: Path) -> None:
    """Names of what was written are plain, and its tables compute nothing."""
    for path in folder.rglob("*"):
        if not re.fullmatch(r"[\w.=+ -]+", path.name):
            raise Broken("escape", f"wrote a file called {path.name!a}")
        if path.suffix == ".csv":
            for row in csv.reader(path.open(newline="", encoding="utf-8")):
                for cell in row:
                    number = re.fullmatch(r"[-+]?[\d.]+(e-?\d+)?", cell)
                    if cell.lstrip()[:1] in tuple("=+-@\t") and cell and not number:
                        raise Broken("escape", f"{path.name} has the formula {cell!a}")
                    inert(cell, path.name)
        elif path.suffix in (".json", ".jsonl", ".yaml", ".md"):
            inert(path.read_text(encoding="utf-8"), path.name)


def on_terminal(trial: Trial, *arguments: str) -> None:
    """The same command on a terminal: its own colours and bars, and nothing of the payloads."""
    ours, theirs = pty.openpty()
    heard: list[bytes] = []

    def listen() -> None:
        while True:
            try:
                data = os.read(ours, 1 << 16)
            except OSError:
                return
            if not data:
                return
            heard.append(data)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    name = os.ttyname(theirs)
    env = {"CLIPALIGN_CACHE": str(trial.folder / ".cache"), "TERM": "xterm-256color"}
    asked = {"argv": list(arguments), "cwd": str(trial.folder), "env": env, "limits": {}}
    pid = trial.zygote.ask({**asked, "out": name, "err": name})["pid"]
    code = trial.zygote.ask({"wait": pid, "timeout": 180})["code"]
    os.close(theirs)
    listener.join(10)
    os.close(ours)
    text = b"".join(heard).decode("utf-8", "replace")
    line = " ".join(arguments)
    if code is None:
        raise Broken("hang", line)
    if "Traceback" in text or code == 1:
        raise Broken("traceback", f"{line}: {text[-500:]}")
    own = re.sub(r"\x1b\[(?:[\d;]*m|\?25[lh]|[012]?K|1?A|2K|\d*[ABCDG])|\r", "", text)
    inert(own, f"{line} (on a terminal)")


@case("names", long=12)
def names(trial: Trial) -> None:
    """From a table with such names to a set, a run, results and a page."""
    place = trial.folder / "in"
    dataset(place, trial.rng)
    trial.inputs = 10
    source = ("--dataset", "in/table.jsonl")
    short = "templates=['{}']"  # the embedded model takes 16 tokens
    quarantine = ("--dataset-set", "wrong_rows=quarantine", "--dataset-set", short)
    done = attempt(trial, "prepare", "typographic", *source, *quarantine, "-o", "out-set")
    if done.code:
        raise Broken("lost", f"{done.line}: {done.err[-400:]}")
    on_terminal(trial, "prepare", "typographic", *source, *quarantine, "-o", "out-again")
    on_terminal(trial, "prepare", "typographic", *source, "-o", "out-third")
    passed = ("--set", "dataset.wrong_rows=quarantine", "--set", f"dataset.{short}")
    measured = attempt(trial, "eval", "emoji-tiny", *source, *passed, "-o", "out-results")
    if measured.code:
        raise Broken("lost", f"{measured.line}: {measured.err[-400:]}")
    page = attempt(trial, "report", "out-results", "-o", "out-page.html", "--plots", "out-plots")
    if page.code:
        raise Broken("lost", f"{page.line}: {page.err[-400:]}")
    check_page(trial.folder / "out-page.html")
    if trial.number % 4 == 1:
        trained = attempt(
            trial, "train", "--data", "out-set", "--trainable", "head", "-o", "out-run",
            "--set", "train.steps=1", "--set", "train.batch_size=2",
        )  # fmt: skip
        if trained.code:
            raise Broken("lost", f"{trained.line}: {trained.err[-400:]}")
        on_terminal(trial, "runs", "show", "out-run")
    for folder in trial.folder.glob("out-*"):
        if folder.is_dir():
            check_files(folder)


@case("names of folders", long=12)
def names_of_folders(trial: Trial) -> None:
    """Runs, results, models and methods that are called so."""
    rng = trial.rng
    trial.inputs = 12
    method = rng.choice(("=cmd|' /C calc'!A0", "@SUM(1)", "-2+3", "+1", *LABELS))
    recipe = {
        "title": rng.choice(LABELS),
        "base": {"task": "typographic"},
        "methods": {method: {"model": "base"}},
        "evaluate": [{
            "suite": "typographic", "name": rng.choice(LABELS), "dataset": "in/table.jsonl",
            "dataset_options": {"wrong_rows": "quarantine", "templates": ["{}"]},
        }],
    }  # fmt: skip
    dataset(trial.folder / "in", rng)
    (trial.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = attempt(trial, "compare", "recipe.yaml", "-o", "out-compare")
    if done.code == 0:
        check_files(trial.folder / "out-compare")
    for number in range(10):
        name = (
            rng.choice(ACTING).replace("\0", "x").replace("/", "")
            + rng.choice(LABELS).replace("/", "")
            + str(number)
        )
        folder = trial.folder / name
        folder.mkdir()
        (folder / "config.yaml").write_text(
            rng.choice(("method: kto\n", "x: \x1b\n", "method: '[red]'\n"))
        )
        (folder / "metrics.jsonl").write_text('{"step": 1, "loss\\u001b[31m": 2, "loss": 1}\n')
        command = rng.choice(
            (["runs", "list", "."], ["runs", "show", name], ["report", name, "-o", "out.html"],
             ["eval", name], ["eval", "--dataset", name], ["train", "--data", name], ["export",
             name],
             ["prepare", "--dataset", name], ["config", "validate", name], [name], ["datasets",
             "show", name])
        )  # fmt: skip
        if not name.startswith("-"):
            attempt(trial, *command)
            on_terminal(trial, *command)
