"""Reads a report's HTML for tests: well-formed or not, tables, attributes, scripts."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "input", "br", "link", "hr"}


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        problems: tags that do not nest.
        attributes: (tag, name, value) of all.
        rows: of every table row: (label of its first cell, value of every data element in it).
        text: all that is shown.
        scripts: (type, content).
    """

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[tuple[str, list[tuple[str, str]]]] = []
        self.text = ""
        self.scripts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self._label: str | None = None
        self._data: str | None = None
        source = path.read_text(encoding="utf-8")
        self.feed(source)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in given.items()]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append(("", []))
        if tag == "span" and given.get("class") == "metric":
            self._label = ""
        if tag == "data" and self.rows:
            self._data = ""
            self.rows[-1][1].append((given["value"], ""))
        if tag == "script":
            self.scripts.append((given.get("type", ""), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self._open[-1:]} at {self.getpos()}")
        elif tag not in VOID:
            self._open.pop()
        if tag == "span" and self._label is not None:
            self.rows[-1] = (self._label, self.rows[-1][1])
            self._label = None
        if tag == "data":
            self._data = None

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            kind, content = self.scripts[-1]
            self.scripts[-1] = (kind, content + data)
            return
        if inside == "style":
            return
        self.text += data
        if self._label is not None:
            self._label += data
        if self._data is not None and self.rows and self.rows[-1][1]:
            value, shown = self.rows[-1][1][-1]
            self.rows[-1][1][-1] = (value, shown + data)
