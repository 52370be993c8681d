"""What turning trained heads does, over several seeds: reading against seeing, or gender against
activity, whichever they were trained for.

    clipalign train --task gender --seed 0 -o runs/gender-0
    clipalign train --task gender --seed 1 -o runs/gender-1
    python examples/study/over_t.py runs/gender-0 runs/gender-1 --scan=0:1.2:0.05 -o studies/figures

Each run is scanned as `clipalign transform --scan` does it; of several runs the mean is shown.
Writes Markdown, and SVG of curves.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipalign.comparison.tables import seeds_in_words
from clipalign.evals.curves import Curve
from clipalign.training.rundir import RunDirectory
from clipalign.transforms.scan_values import parse_scan
from clipalign.transforms.transform import scan

Curves = dict[str, list[Curve]]
"""What it is of → one curve a run."""


def scanned(runs: Sequence[Path], ts: Sequence[float], split: str) -> tuple[Curves, str]:
    """The curves of a scan that are shares, run by run, and what they are of."""
    curves: Curves = {}
    about = ""
    for path in runs:
        found = scan(path, ts, split=split)
        about = f"{found.title} in {found.groups} independent groups (drawings)"
        for panel in found.panels():
            for name, curve in panel.sampled.items() if panel.percent else ():
                of = f"{name}, {panel.among}" if panel.among else name
                curves.setdefault(of, []).append(curve)
    return curves, about


def table(curves: Curves, ts: Sequence[float], about: str, seeds: str, command: str) -> str:
    """Markdown: percent, mean over runs ± standard deviation, with the interval of the mean."""
    several = len(next(iter(curves.values()))) > 1
    spread = "mean ± sample standard deviation over seeds; " if several else ""
    lines = [
        f"{about}; {seeds}; percent; {spread}in brackets a 95 % bootstrap interval over images "
        f"(those of one drawing are drawn together) with these seeds given. Made by `{command}`.",
        "",
        "| t | " + " | ".join(curves) + " |",
        "|-" * (len(curves) + 1) + "|",
    ]
    means = {name: Curve.mean(each) for name, each in curves.items()}
    intervals = {name: curve.intervals for name, curve in means.items()}
    for i, t in enumerate(ts):
        cells = []
        for name, each in curves.items():
            cell = f"{100 * means[name].values[i]:.1f}"
            if several:
                cell += f" ± {100 * np.std([curve.values[i] for curve in each], ddof=1):.1f}"
            sure = intervals[name][i]
            cells.append(
                cell if sure is None else f"{cell} [{100 * sure.low:.1f}, {100 * sure.high:.1f}]"
            )
        lines.append(f"| {t:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(curves: Curves, ts: Sequence[float], about: str, seeds: str, path: Path) -> None:
    """Each run as a thin line, their mean, and its interval over images shaded."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for (name, each), colour in zip(
        curves.items(), ("#0072b2", "#d55e00", "#009e73", "#666666"), strict=False
    ):
        mean = Curve.mean(each)
        ends = [
            (100 * value, 100 * value) if sure is None else (100 * sure.low, 100 * sure.high)
            for value, sure in zip(mean.values, mean.intervals, strict=True)
        ]
        axes.fill_between(ts, *zip(*ends, strict=True), color=colour, alpha=0.15, linewidth=0)
        axes.plot(ts, 100 * np.array(mean.values), color=colour, label=name)
        for curve in each if len(each) > 1 else ():
            axes.plot(ts, 100 * np.array(curve.values), color=colour, linewidth=0.5)
    axes.set(xlabel="t", ylabel="%", ylim=(-3, 103))
    shown = "mean; thin: each seed; " if len(each) > 1 else ""
    axes.set_title(f"{about}\n{seeds}; {shown}shaded: 95 % interval over images", fontsize="small")
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
    seeds = seeds_in_words(RunDirectory.open(run)[1].seed for run in arguments.runs)
    curves, about = scanned(arguments.runs, ts, arguments.split)
    command = shlex.join(["python", "examples/study/over_t.py", *sys.argv[1:]])
    text = table(curves, ts, about, seeds, command)
    first = arguments.runs[0].name
    stem = first.rstrip("-0123456789") if len(arguments.runs) > 1 else first
    path = arguments.output / f"{stem or first}-over-t"
    plot(curves, ts, about, seeds, path.with_suffix(".svg"))
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
