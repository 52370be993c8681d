"""KL(reference ‖ model) of each clean image, by method: quantiles, and boxes with the mean.

    python examples/study/kl_per_image.py studies/beta -o studies/figures

Reads the result files of a comparison (see `clipalign compare`); loads no model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipalign.comparison.plan import make_plan
from clipalign.comparison.records import measured, read_record
from clipalign.comparison.tables import seeds_in_words
from clipalign.evals.results import read_result, read_rows
from clipalign.evals.statistics import Interval, bootstrap_interval

QUANTILES = (10, 25, 50, 75, 90, 99)
COLUMN = "kl_to_reference"


def kl_by_method(study: Path) -> tuple[dict[str, list[np.ndarray]], list[str], str]:
    """KL of the first result of each cell that has it, and what belongs together.

    Returns:
        Method → [N] KL of every clean image in nats, one array a seed; the group of each image, of
        which whole ones are drawn for an interval; and the seeds, in words.
    """
    plan = make_plan(study, check_options=False)
    found: dict[str, list[np.ndarray]] = {}
    groups: list[str] = []
    seeds: list[int | None] = []
    for cell in plan.cells:
        results = measured(plan, read_record(plan, cell))
        files = [file for each in results.values() for file in each]
        for path in (plan.folder(cell) / file for file in files):
            rows = [row for row in read_rows(path) if COLUMN in row]
            if read_result(path, check_rows=False).suite == "typographic" and rows:
                groups = groups or [row["group"] for row in rows]
                found.setdefault(cell.method, []).append(np.array([row[COLUMN] for row in rows]))
                seeds.append(cell.seed)
                break
    return found, groups, seeds_in_words(seeds)


def table(kl: dict[str, list[np.ndarray]], groups: Sequence[str], seeds: str, study: Path) -> str:
    """Markdown: the mean with its interval, and quantiles over images of all seeds together."""
    images = len(groups)
    caption = (
        f"KL(reference ‖ model) of each of {images:,} clean images, in nats; {seeds}. Made by "
        f"`python examples/study/kl_per_image.py {study}`. In brackets: 95 % bootstrap interval "
        f"of the mean over {len(set(groups)):,} drawings, of each image's mean over the seeds. "
        "Quantiles are of all images and seeds together."
    )
    head = ["method", "seeds", "mean", *(f"{q} %" for q in QUANTILES)]
    lines = [caption, "", "| " + " | ".join(head) + " |", "|" + "-|" * len(head)]
    for method, each in kl.items():
        values = np.concatenate(each)
        mean = f"{values.mean():.4f}"
        sure = mean_interval(each, groups)
        if sure is not None:
            mean += f" [{sure.low:.4f}, {sure.high:.4f}]"
        quantiles = [f"{x:.4f}" for x in np.percentile(values, QUANTILES)]
        lines.append("| " + " | ".join([method, str(len(each)), mean, *quantiles]) + " |")
    return "\n".join(lines) + "\n"


def mean_interval(seeds: Sequence[np.ndarray], groups: Sequence[str]) -> Interval | None:
    """Of the mean over images of each image's mean over the seeds; None where it has none."""
    if any(len(each) != len(groups) for each in seeds) or len(set(groups)) < 2:
        return None
    return bootstrap_interval(np.mean(seeds, axis=0), groups)


def plot(kl: dict[str, list[np.ndarray]], groups: Sequence[str], seeds: str, path: Path) -> None:
    """Boxes of the quartiles, whiskers from the 10th to the 90th percentile, the mean as a dot."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.35 * len(kl) + 1.6), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    names = list(kl)[::-1]
    values = [np.concatenate(kl[name]) for name in names]
    axes.boxplot(values, orientation="horizontal", whis=(10, 90), showfliers=False)
    axes.set_yticks(range(1, len(names) + 1), names)
    for place, name in enumerate(names, 1):
        mean, sure = float(np.concatenate(kl[name]).mean()), mean_interval(kl[name], groups)
        # of a very skewed sample the mean can lie outside of its own percentiles
        ends = sure and [[max(0.0, mean - sure.low)], [max(0.0, sure.high - mean)]]
        axes.errorbar(mean, place, xerr=ends, color="#d55e00", marker="o", markersize=4)
    axes.set_xlabel("KL(reference ‖ model) of an image, nats")
    axes.set_title(
        f"{len(groups):,} clean images; {seeds}; boxes: quartiles of the images, whiskers: 10 % to "
        "90 %\ndot: their mean, with its 95 % interval over drawings",
        fontsize="small",
    )
    axes.spines[["top", "right"]].set_visible(False)
    with matplotlib.rc_context({"svg.hashsalt": "clipalign", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def write(study: Path, output: Path) -> str:
    """Write kl-per-image.md and .svg; gives the table, empty where nothing is finished yet."""
    kl, groups, seeds = kl_by_method(study)
    if not kl:
        return ""
    output.mkdir(parents=True, exist_ok=True)
    text = table(kl, groups, seeds, study)
    (output / "kl-per-image.md").write_text(text, encoding="utf-8")
    plot(kl, groups, seeds, output / "kl-per-image.svg")
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
