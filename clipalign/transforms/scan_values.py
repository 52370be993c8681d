"""The values of t that a scan visits: read before anything heavy is imported."""

from __future__ import annotations

import math

from clipalign.errors import UsageError

__all__ = ["MAX_POINTS", "parse_scan"]

MAX_POINTS = 10_000


def parse_scan(text: str) -> list[float]:
    """The values of "A:B:STEP", both ends included: "-2:1.2:0.1" gives 33.

    Raises:
        UsageError: it is not that, or holds no value or far too many.
    """
    try:
        low, high, step = (float(part) for part in text.split(":"))
    except ValueError:
        raise UsageError(f"A scan is A:B:STEP, such as -2:1.2:0.1, and not {text!r}.") from None
    if not all(map(math.isfinite, (low, high, step))) or step <= 0 or high < low:
        raise UsageError(
            f"The scan {text!r} holds no value: A:B:STEP needs A ≤ B and a STEP above 0."
        )
    steps = (high - low) / step  # infinite where the ends lie too far apart
    if steps + 1 > MAX_POINTS:
        raise UsageError(
            f"The scan {text!r} holds {steps + 1:.6g} values; at most {MAX_POINTS} are taken."
        )
    count = math.floor(steps + 1e-9) + 1
    return [round(low + i * step, 12) + 0.0 for i in range(count)]
