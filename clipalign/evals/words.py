"""How a number of a result is written: the same in every table and on the page."""

from __future__ import annotations

import re
from typing import Final

from clipalign.evals.statistics import Interval

__all__ = ["DETAIL", "interval", "label", "mark", "number", "p_value"]

DETAIL: Final = re.compile(r"^reverse_|_(median|p\d+)$")
"""Names of metrics that only a reader of details asks for: percentiles, the reverse KL."""

_ABBREVIATIONS = {"kl": "KL", "asr": "ASR", "ece": "ECE", "ndkl": "NDKL", "od": "OD", "ocr": "OCR"}


def number(value: float, unit: str, sign: str = "-") -> str:
    """A share in percent with one decimal, anything else with four."""
    text = f"{100 * value:{sign}.1f}" if unit == "share" else f"{value:{sign}.4f}"
    if float(text) == 0:  # no -0.0
        return text.replace("-", "+" if sign == "+" else "")
    return text


def interval(bounds: Interval | None, unit: str, sign: str = "-") -> str:
    """The two ends in brackets after a space; empty where there is none."""
    if bounds is None:
        return ""
    return f" [{number(bounds.low, unit, sign)}, {number(bounds.high, unit, sign)}]"


def mark(unit: str) -> str:
    """What stands after a number of this unit."""
    return " %" if unit == "share" else ""


def p_value(value: float | None) -> str:
    """Three decimals, or "<0.001"; empty where there is no test."""
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def label(name: str) -> str:
    """The name of a metric in words."""
    return " ".join(_ABBREVIATIONS.get(word, word) for word in name.split("_"))
