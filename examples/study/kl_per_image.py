"""KL(reference ‖ model) of each clean image, by method: quantiles and a box plot.

    python examples/study/kl_per_image.py studies/beta -o studies/figures

Reads the result files of a comparison (see `clipalign compare`); loads no model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from clipalign.comparison.plan import make_plan
from clipalign.comparison.records import read_record
from clipalign.evals.results import read_result, read_rows

QUANTILES = (10, 25, 50, 75, 90, 99)
COLUMN = "kl_to_reference"


def kl_by_method(study: Path) -> dict[str, list[np.ndarray]]:
    """Method → [N] KL of every image in nats, one array a seed, of the first result that has it."""
    plan = make_plan(study, check_options=False)
    found: dict[str, list[np.ndarray]] = {}
    for cell in plan.cells:
        files = [file for each in read_record(plan, cell).results.values() for file in each]
        for path in (plan.folder(cell) / file for file in files):
            values = [row[COLUMN] for row in read_rows(path) if COLUMN in row]
            if read_result(path, check_rows=False).suite == "typographic" and values:
                found.setdefault(cell.method, []).append(np.array(values))
                break
    return found


def table(kl: dict[str, list[np.ndarray]]) -> str:
    """Markdown: quantiles over images, of all seeds together."""
    head = ["method", "seeds", "images", "mean", *(f"{q} %" for q in QUANTILES)]
    lines = ["| " + " | ".join(head) + " |", "|" + "-|" * len(head)]
    for method, seeds in kl.items():
        values = np.concatenate(seeds)
        numbers = [values.mean(), *np.percentile(values, QUANTILES)]
        cells = [method, str(len(seeds)), str(len(seeds[0])), *(f"{x:.4f}" for x in numbers)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(kl: dict[str, list[np.ndarray]], path: Path) -> None:
    """Boxes of the quartiles, whiskers from the 10th to the 90th percentile."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.35 * len(kl) + 1.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    names = list(kl)[::-1]
    values = [np.concatenate(kl[name]) for name in names]
    axes.boxplot(values, orientation="horizontal", whis=(10, 90), showfliers=False)
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.set_xlabel("KL(reference ‖ model) of an image, nats; whiskers 10 % to 90 %")
    axes.spines[["top", "right"]].set_visible(False)
    with matplotlib.rc_context({"svg.hashsalt": "clipalign", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="output directory of clipalign compare")
    parser.add_argument("-o", "--output", type=Path, default=Path("studies/figures"))
    arguments = parser.parse_args()
    kl = kl_by_method(arguments.study)
    if not kl:
        raise SystemExit(f"{arguments.study} has no finished typographic result yet.")
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "kl-per-image.md").write_text(table(kl), encoding="utf-8")
    plot(kl, arguments.output / "kl-per-image.svg")
    print(table(kl), end="")


if __name__ == "__main__":
    main()
