"""What turning trained heads does, over several seeds: reading against seeing, or gender against
activity, whichever they were trained for.

    clipalign train --task typographic --trainable head -o runs/head-0 --seed 0
    clipalign train --task gender -o runs/gender-0 --seed 0
    python examples/study/over_t.py runs/head-0 --scan=-1:1:0.1 -o studies/figures
    python examples/study/over_t.py runs/gender-0 --scan=0:1.2:0.05 -o studies/figures

Each run is scanned as `clipalign transform --scan` does it; several runs give mean ± standard
deviation. Writes Markdown, and SVG of curves.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipalign.transforms.scan_values import parse_scan
from clipalign.transforms.transform import scan

Curves = dict[str, list[list[float]]]
"""Name → one curve a run, one value a t."""


def scanned(runs: Sequence[Path], ts: Sequence[float], split: str) -> tuple[Curves, str]:
    """The curves of a scan that are shares, run by run, and what they are of."""
    curves: Curves = {}
    title = ""
    for path in runs:
        found = scan(path, ts, split=split)
        title = found.title
        for panel in found.panels():
            for name, values in panel.curves.items() if panel.percent else ():
                if None not in values:
                    key = (
                        f"{name}, {panel.title.removeprefix('% ')}" if panel.title != "%" else name
                    )
                    curves.setdefault(key, []).append([float(v) for v in values if v is not None])
    return curves, title


def table(curves: Curves, ts: Sequence[float], about: str, command: str) -> str:
    """Markdown: percent, mean over runs ± standard deviation."""
    runs = len(next(iter(curves.values())))
    spread = "; mean ± standard deviation over runs" if runs > 1 else ""
    of = f"{runs} runs of different seeds" if runs > 1 else "one run"
    lines = [f"{about}; {of}{spread}; percent. Made by `{command}`.", ""]
    lines += ["| t | " + " | ".join(curves) + " |", "|-" * (len(curves) + 1) + "|"]
    for i, t in enumerate(ts):
        cells = []
        for each in curves.values():
            values = 100 * np.array([curve[i] for curve in each])
            spread = f" ± {values.std(ddof=1):.1f}" if runs > 1 else ""
            cells.append(f"{values.mean():.1f}{spread}")
        lines.append(f"| {t:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(curves: Curves, ts: Sequence[float], about: str, path: Path) -> None:
    """Mean over runs, shaded from the lowest to the highest run."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for (name, each), colour in zip(
        curves.items(), ("#0072b2", "#d55e00", "#009e73", "#666666"), strict=False
    ):
        values = 100 * np.array(each)
        axes.plot(ts, values.mean(axis=0), color=colour, label=name)
        axes.fill_between(ts, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2)
    runs = len(next(iter(curves.values())))
    axes.set(xlabel="t", ylabel="%", ylim=(-3, 103), title=f"{about}; {runs} run(s)")
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    with matplotlib.rc_context({"svg.hashsalt": "clipalign", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="that trained a head on the same task")
    parser.add_argument("--scan", default="-1:1:0.1", help="A:B:STEP of t, written --scan=-1:1:0.1")
    parser.add_argument("--split", default="test", help="of the runs' dataset")
    parser.add_argument("-o", "--output", type=Path, default=Path("studies/figures"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    ts = parse_scan(arguments.scan)
    curves, about = scanned(arguments.runs, ts, arguments.split)
    command = shlex.join(["python", "examples/study/over_t.py", *sys.argv[1:]])
    text = table(curves, ts, about, command)
    stem = arguments.output / f"{arguments.runs[0].name}-over-t"
    plot(curves, ts, about, stem.with_suffix(".svg"))
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
