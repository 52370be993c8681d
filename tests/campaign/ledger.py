"""What was tried and what came of it: one JSON line a trial, and the table made of them."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.campaign.cases import OUTCOMES, Broken, Case, Trial
from tests.campaign.commands import Zygote


class Ledger:
    """The trials in a folder; those done are not done again."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "trials.jsonl"
        self.rows: list[dict[str, object]] = []
        if self.file.exists():
            lines = self.file.read_text().splitlines()
            # the last line may be half of one, if the campaign itself was killed
            self.rows = [json.loads(line) for line in lines if line.endswith("}")]

    def done(self) -> set[tuple[object, object, object]]:
        """Case, seed and number of every trial recorded."""
        return {(r["case"], r["seed"], r["trial"]) for r in self.rows}

    def try_once(self, case: Case, number: int, zygote: Zygote) -> dict[str, object]:
        """Try a case once, record it, and return the row."""
        rng = random.Random(f"{case.name}/{self.seed}/{number}")
        place = self.folder / "work" / f"{case.name.replace(' ', '-')}-{number}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        shared = self.folder / "shared"
        shared.mkdir(exist_ok=True)
        trial = Trial(number, rng, place.resolve(), shared.resolve(), zygote)
        outcome, note, began = "held", "", time.monotonic()
        try:
            case.try_it(trial)
        except Broken as broken:
            outcome, note = broken.outcome, broken.note
        if outcome == "held":
            shutil.rmtree(place, ignore_errors=True)
        row: dict[str, object] = {
            "case": case.name,
            "seed": self.seed,
            "trial": number,
            "inputs": trial.inputs,
            "outcome": outcome,
            "seconds": round(time.monotonic() - began, 2),
            "note": note,
        }
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        return row


def table(rows: Iterable[dict[str, object]]) -> str:
    """The Markdown table: a line for every case, and the sum."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        count = counts.setdefault(str(row["case"]), Counter())
        count["tried"] += 1
        count["inputs"] += int(str(row["inputs"]))
        count[str(row["outcome"])] += 1
    total: Counter[str] = sum(counts.values(), Counter())
    heads = ("case", "trials", "inputs", *OUTCOMES)
    lines = ["| " + " | ".join(heads) + " |", "|" + "-|" * len(heads)]
    for name, count in [*counts.items(), ("**all**", total)]:
        cells = [name, count["tried"], count["inputs"], *(count[o] for o in OUTCOMES)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
