"""The model card: README.md beside every model that is written.

A card says what is known and says of the rest that it was not measured. It holds no path of the
machine that wrote it and nothing of its environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from clipalign._version import __version__

__all__ = ["CARD_NAME", "Card", "is_own", "render_card", "table"]

CARD_NAME = "README.md"
_SIGNED = "Written by clipalign"
_LIBRARY = {"open_clip": "open_clip", "transformers": "transformers", "onnx": "onnx"}
_NOT_MEASURED = "Not measured."
_BIAS = (
    "Models trained on pictures and captions of the web carry the web's stereotypes of gender, "
    "skin colour, age and origin, and aligning one concept says nothing about the others. Do not "
    "use this model to decide about people."
)


@dataclass(frozen=True)
class Card:
    """What a card says, as Markdown lines by section. An empty section says "Not measured.".

    Attributes:
        title: name of the model.
        base: spec of the model that it was made from.
        summary: how it was made.
        facts: what was done, name → value.
        data: of what it was trained on, name → value.
        metrics: blocks of Markdown: what was measured, with intervals.
        given_up: blocks: what became worse than in the base model.
        bias: blocks: what was measured of bias.
        licence: of the weights; None where it is not known.
        load: Python lines that load the model; those of its own directory where there are none.
    """

    title: str
    base: str
    summary: str
    facts: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[str] = ()
    given_up: Sequence[str] = ()
    bias: Sequence[str] = ()
    licence: str | None = None
    load: Sequence[str] = ()


def render_card(card: Card, form: str, load: Sequence[str]) -> str:
    """The card as Markdown with the header that the hub reads.

    Args:
        card: what it says.
        form: open_clip, transformers or onnx.
        load: Python lines that load the model, where the card has none.
    """
    head: dict[str, object] = {
        "library_name": _LIBRARY[form],
        "pipeline_tag": "zero-shot-image-classification",
        "license": card.licence or "other",
        "tags": ["clip", "clipalign", form.replace("_", "-")],
    }
    if re.fullmatch(r"hf-hub:[\w.-]+/[\w.-]+", card.base):
        head["base_model"] = card.base.removeprefix("hf-hub:")
    licence = card.licence or (
        f"Not stated. The licence of {_code(card.base)}, which these weights were made from, goes "
        "on holding; so may that of the images."
    )
    sections = [
        ("How to load it", ["```python\n" + "\n".join(card.load or load) + "\n```"]),
        ("How it was made", [table(("", ""), card.facts.items())] if card.facts else []),
        ("Data", [table(("", ""), card.data.items())] if card.data else ["None is recorded."]),
        ("What was measured", card.metrics or [_NOT_MEASURED]),
        ("What was given up", card.given_up or [_NOT_MEASURED]),
        ("Bias", [*(card.bias or [f"Of this model: {_NOT_MEASURED.lower()}"]), _BIAS]),
        ("Licence", [licence]),
    ]
    body = "\n\n".join(
        "\n\n".join([f"## {title}", *blocks]) for title, blocks in sections if blocks
    )
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=False)
    made = f"{_SIGNED} {__version__}."
    return f"---\n{front}---\n\n# {_inline(card.title)}\n\n{card.summary}\n\n{body}\n\n{made}\n"


def is_own(path: Path) -> bool:
    """Whether a README.md is a card that clipalign wrote, by its last line."""
    lines = path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    return bool(lines) and lines[-1].startswith(_SIGNED)


def table(header: Sequence[str], rows: object) -> str:
    """A Markdown table; bars and line ends within a cell are kept from breaking it."""
    lines = [f"| {' | '.join(header)} |", f"|{'-|' * len(header)}"]
    assert hasattr(rows, "__iter__")
    for row in rows:
        lines.append("| " + " | ".join(_inline(str(cell)) for cell in row) + " |")
    return "\n".join(lines)


def _inline(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"
