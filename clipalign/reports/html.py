"""From what was gathered to one HTML file that needs nothing else.

Names, labels and texts come from files and packages: they are escaped, control and direction marks
are shown as escapes, and the page's own policy lets no script run but the one it carries.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from markupsafe import Markup, escape

from clipalign._version import __version__
from clipalign.errors import UsageError
from clipalign.evals import words
from clipalign.evals.statistics import Interval
from clipalign.reports.boards import Board, Row
from clipalign.reports.charts import Chart, dumbbell, figure
from clipalign.reports.classes import ClassTable
from clipalign.reports.gallery import Gallery
from clipalign.reports.provenance import Provenance
from clipalign.reports.scans import Turned, gallery_charts
from clipalign.reports.wall import KINDS, Wall
from clipalign.text import printable

__all__ = ["Page", "render"]


@dataclass(frozen=True)
class Page:
    """Everything that a report shows.

    Attributes:
        title: its heading.
        sources: (name, what it is) of each source.
        command: that makes the page again.
        boards, curves, walls, galleries, tables, provenance: the sections; empty ones are left out.
        scans: curves over t of scans that were named, or that a run keeps.
        notes: what a reader must know first.
    """

    title: str
    sources: Sequence[tuple[str, str]]
    command: str
    boards: Sequence[Board] = ()
    curves: Sequence[Chart] = ()
    walls: Sequence[Wall] = ()
    galleries: Sequence[Gallery] = ()
    scans: Sequence[Turned] = ()
    tables: Sequence[ClassTable] = ()
    provenance: Sequence[Provenance] = ()
    notes: Sequence[str] = ()


def render(page: Page) -> str:
    """The page as HTML; equal pages give equal text.

    Raises:
        UsageError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise UsageError(
            "A report needs jinja2. Install it with: pip install 'clipalign[report]'"
        ) from None
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"json": json.dumps, "script_json": _script_json, "tight": _tight}
    script, style = _file("report.js"), _file("report.css")
    template = environment.from_string(_file("report.html"))
    return template.render(
        page=page,
        title=page.title,
        version=__version__,
        policy=_policy(script),
        css=Markup(style),
        js=Markup(script),
        sections=_sections(page),
        sources=[{"name": name, "about": about} for name, about in page.sources],
        heroes=_heroes(page.boards),
        notes=page.notes,
        boards=page.boards,
        curves=[figure(chart) for chart in page.curves],
        curves_note="What each step measured on its own batch. The last value stands at the end.",
        walls=page.walls,
        kinds=KINDS,
        galleries=page.galleries,
        scan_figures=lambda gallery: [figure(c) for c in gallery_charts(gallery)],
        jumps=_jumps,
        scans=page.scans,
        figure=figure,
        tables=page.tables,
        provenance=page.provenance,
        command=page.command,
        number=_number,
        interval=_interval,
        mark=words.mark,
        p=words.p_value,
        plain=_plain,
        dumbbell=_dumbbell,
    )


def _number(value: float, unit: str, sign: str = "-") -> str:
    return words.number(value, unit, sign).replace("-", "−")


def _interval(bounds: Interval, unit: str, sign: str = "-") -> str:
    return words.interval(bounds, unit, sign).strip().replace("-", "−")


def _sections(page: Page) -> list[tuple[str, str]]:
    """Those there are: (id, name)."""
    named = (
        ("results", "Before and after", page.boards),
        ("training", "Training", page.curves),
        ("wall", "Under attack", page.walls),
        ("turned", "Over t", page.scans),
        ("searches", "Searches", page.galleries),
        ("classes", "Classes", page.tables),
        ("made", "How it was made", page.provenance),
    )
    return [(id_, name) for id_, name, content in named if content]


def _heroes(boards: Sequence[Board]) -> list[Board]:
    """The first board of each suite and model, where a model stands alone."""
    seen: dict[tuple[str, tuple[str, ...]], Board] = {}
    for board in boards:
        if any(row.cells[0].metric for row in board.key_figures):
            seen.setdefault((board.result.suite, board.columns), board)
    return list(seen.values())[:4]


def _jumps(gallery: Gallery) -> list[tuple[int, str]]:
    """Stops that have a button."""
    if not gallery.ts:
        return list(enumerate(gallery.stops))
    wanted = [(0.0, "t = 0"), (1.0, "t = 1")]
    if gallery.neutral is not None:
        wanted.insert(1, (round(gallery.neutral.t, 6), "t*"))
    return [(gallery.ts.index(t), name) for t, name in wanted if t in gallery.ts]


def _dumbbell(row: Row) -> Markup:
    metric = row.cells[0].metric
    assert metric is not None
    assert metric.value is not None
    assert row.before is not None
    bounds = metric.interval
    return dumbbell(row.before, metric.value, (bounds.low, bounds.high) if bounds else None)


def _plain(value: float | int, column: tuple[str, str, bool]) -> str:
    """A number of the per-class table."""
    if isinstance(value, int) and not column[2]:
        return f"{value:,}"
    return _number(value, "share" if column[2] else "")


def _inert(value: Any) -> Any:
    """What jinja2 prints, before it escapes it."""
    if isinstance(value, Markup):
        return value
    return printable(value) if isinstance(value, str) else value


def _script_json(value: Any) -> Markup:
    """JSON that may stand inside a script element: ASCII, and without < or >."""
    text = json.dumps(_inert_tree(value), separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _tight(text: str) -> Markup:
    """Prose whose numbers do not part from their signs at the end of a line."""
    inert = str(escape(printable(text)))
    return Markup(inert.replace(" %", "&nbsp;%").replace(" = ", "&nbsp;=&nbsp;"))


def _inert_tree(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(k)): _inert_tree(v) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [_inert_tree(v) for v in value]
    return value


def _policy(script: str) -> str:
    """Nothing is fetched, and no script runs but this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _file(name: str) -> str:
    return (resources.files("clipalign.reports") / "page" / name).read_text(encoding="utf-8")
