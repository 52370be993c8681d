"""Text of others made inert: what files and packages say is shown, and never obeyed."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Show control and direction marks as escapes; new lines, tabs and joined emoji stay."""
    return "".join(
        c if c.isprintable() or c in "\n\t\u200d" else c.encode("unicode_escape").decode()
        for c in text
    )
