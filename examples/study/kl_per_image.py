"""KL(reference ‖ model) of each clean image, by method: quantiles and a box plot.

    python examples/study/kl_per_image.py studies/beta -o studies/figures

Reads the result files of a comparison (see `clipalign compare`); loads no model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipalign.comparison.plan import make_plan
from clipalign.comparison.records import read_record
from clipalign.evals.results import read_result, read_rows
from clipalign.evals.statistics import bootstrap_interval

QUANTILES = (10, 25, 50, 75, 90, 99)
COLUMN = "kl_to_reference"


def kl_by_method(study: Path) -> tuple[dict[str, list[np.ndarray]], list[str]]:
    """KL of the first result of each cell that has it, and what belongs together.

    Returns:
        Method → [N] KL of every clean image in nats, one array a seed; and the group of each image,
        of which whole ones are drawn for an interval.
    """
    plan = make_plan(study, check_options=False)
    found: dict[str, list[np.ndarray]] = {}
    groups: list[str] = []
    for cell in plan.cells:
        files = [file for each in read_record(plan, cell).results.values() for file in each]
        for path in (plan.folder(cell) / file for file in files):
            rows = [row for row in read_rows(path) if COLUMN in row]
            if read_result(path, check_rows=False).suite == "typographic" and rows:
                groups = groups or [row["group"] for row in rows]
                found.setdefault(cell.method, []).append(np.array([row[COLUMN] for row in rows]))
                break
    return found, groups


def table(kl: dict[str, list[np.ndarray]], groups: Sequence[str], study: Path) -> str:
    """Markdown: the mean with its interval, and quantiles over images of all seeds together."""
    images = len(groups)
    caption = (
        f"KL(reference ‖ model) of each of {images:,} clean images, in nats. Made by "
        f"`python examples/study/kl_per_image.py {study}`. In brackets: 95 % bootstrap interval "
        f"of the mean over {len(set(groups)):,} drawings, of each image's mean over the seeds. "
        "Quantiles are of all images and seeds together."
    )
    head = ["method", "seeds", "mean", *(f"{q} %" for q in QUANTILES)]
    lines = [caption, "", "| " + " | ".join(head) + " |", "|" + "-|" * len(head)]
    for method, seeds in kl.items():
        values = np.concatenate(seeds)
        mean = f"{values.mean():.4f}"
        if all(len(each) == images for each in seeds) and len(set(groups)) > 1:
            sure = bootstrap_interval(np.mean(seeds, axis=0), groups)
            mean += f" [{sure.low:.4f}, {sure.high:.4f}]"
        quantiles = [f"{x:.4f}" for x in np.percentile(values, QUANTILES)]
        lines.append("| " + " | ".join([method, str(len(seeds)), mean, *quantiles]) + " |")
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


def write(study: Path, output: Path) -> str:
    """Write kl-per-image.md and .svg; gives the table, empty where nothing is finished yet."""
    kl, groups = kl_by_method(study)
    if not kl:
        return ""
    output.mkdir(parents=True, exist_ok=True)
    text = table(kl, groups, study)
    (output / "kl-per-image.md").write_text(text, encoding="utf-8")
    plot(kl, output / "kl-per-image.svg")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="output directory of clipalign compare")
    parser.add_argument("-o", "--output", type=Path, default=Path("studies/figures"))
    arguments = parser.parse_args()
    text = write(arguments.study, arguments.output)
    if not text:
        raise SystemExit(f"{arguments.study} has no finished typographic result yet.")
    print(text, end="")


if __name__ == "__main__":
    main()
