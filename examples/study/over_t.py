"""What turning a trained head does: reading against seeing, gender against activity, a retrieval.

    clipalign train --task typographic --trainable head -o runs/head-0 --seed 0
    clipalign train --task gender -o runs/gender-0 --seed 0
    python examples/study/over_t.py reading runs/head-0 -o studies/figures
    python examples/study/over_t.py gender runs/gender-0 -o studies/figures
    python examples/study/over_t.py retrieval runs/gender-0 --query police -o studies/figures

Several runs (of several seeds) give mean ± standard deviation. Writes Markdown, and SVG of curves.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipalign.config import load_config
from clipalign.datasets.locate import load_dataset
from clipalign.evals.attacked import Attacked
from clipalign.evals.attacks import drawn_plan
from clipalign.evals.base import EvalContext
from clipalign.evals.examples import readable
from clipalign.evals.metrics import attacked_rows
from clipalign.evals.reading import reading_curve
from clipalign.models.linear_map import LinearMap
from clipalign.models.load import load_model
from clipalign.tasks.rendering import STYLES
from clipalign.training.rundir import RunDirectory
from clipalign.transforms.context import FitContext
from clipalign.transforms.power import powers_of
from clipalign.transforms.scan import parse_scan, scan_powers
from clipalign.transforms.transform import transform

Curves = dict[str, list[list[float]]]
"""Name → one curve a run, one value a t."""


def reading(runs: Sequence[Path], ts: Sequence[float], split: str) -> tuple[Curves, str]:
    """OCR and OD on attacked images of a split (the paper's Fig. 2)."""
    curves: Curves = {"OD": [], "OCR": [], "OD, two-way": [], "OCR, two-way": []}
    n = 0
    for path in runs:
        run, config = RunDirectory.open(path)
        dataset = load_dataset(config.dataset, config.dataset_options)
        context = EvalContext(load_model(config.model), None, dataset, split)
        plan = drawn_plan(dataset, split, styles=STYLES, attacks_per_image=1, seed=0, fonts=None)
        encoded = context.encode_images(plan.images())
        rows, _ = readable(plan.examples, encoded)
        images = Attacked.of(plan, rows)
        wrong = attacked_rows(images.written, images.true)
        texts = context.encode_texts([dataset.templates[0].format(c) for c in plan.classnames])
        points = reading_curve(
            encoded.features[0][rows].flatten(0, 1)[wrong],
            texts[0],
            LinearMap.load(run.linear_map)[0],
            ts,
            true=images.true[wrong],
            written=images.written[wrong],
        )
        n = int(wrong.sum())
        curves["OD"].append([p.od for p in points])
        curves["OCR"].append([p.ocr for p in points])
        curves["OD, two-way"].append([p.od_two_way for p in points])
        curves["OCR, two-way"].append([p.ocr_two_way for p in points])
    return curves, f"{n:,} attacked images, split {split}"


def gender(runs: Sequence[Path], ts: Sequence[float], k: int) -> tuple[Curves, str]:
    """Concept and activity accuracy, flips, and the composition of the top k."""
    curves: Curves = {}
    about = ""
    for path in runs:
        found = scan_powers(powers_of(FitContext.open(path)), ts, k=k)
        share = f"{found.values[0]} in the top {found.k}"
        about = f"{found.images:,} images, validation split"
        for name, values in (
            (f"{found.concept} accuracy", [r.concept_accuracy for r in found.rows]),
            ("activity accuracy", [r.activity_accuracy for r in found.rows]),
            ("flip rate", [r.flip_rate for r in found.rows]),
            (share, [r.top_k_share for r in found.rows]),
        ):
            if None not in values:
                curves.setdefault(name, []).append([float(v) for v in values if v is not None])
    return curves, about


def retrieval(runs: Sequence[Path], query: str, k: int, output: Path) -> str:
    """Markdown: whom a search brings up reversed (t = 1), pretrained (t = 0), neutral (t*)."""
    lines = [f"| run | query | t | top {k} |", "|-|-|-|-|"]
    for path in runs:
        context = FitContext.open(path)
        powers, probe = powers_of(context), context.probe
        rows = [i for i, prompt in enumerate(probe.neutral_prompts) if query in prompt]
        if not rows:
            raise SystemExit(f"No neutral caption has {query!r}: {list(probe.neutral_prompts)}")
        fitted = transform(context, t="auto", output=output / f"neutral-{path.name}").transform
        neutral = float(fitted.describe()["neutral"]["t"])
        for word, t in (("reversed", 1.0), ("pretrained", 0.0), ("neutral", neutral)):
            shares = powers.at(t).composition(k)[rows[0]]
            counts = [
                f"{round(float(s) * k)} {v}" for s, v in zip(shares, probe.values, strict=True)
            ]
            prompt = probe.neutral_prompts[rows[0]]
            lines.append(f"| {path.name} | {prompt} | {t:.3g} ({word}) | {', '.join(counts)} |")
    return "\n".join(lines) + "\n"


def table(curves: Curves, ts: Sequence[float], about: str) -> str:
    """Markdown: percent, mean over runs ± standard deviation."""
    runs = len(next(iter(curves.values())))
    lines = [f"{about}; {runs} run(s), mean ± standard deviation, percent.", ""]
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
    parser.add_argument("what", choices=("reading", "gender", "retrieval"))
    parser.add_argument("runs", type=Path, nargs="+", help="runs that trained a head")
    parser.add_argument("--scan", default="-2:1.2:0.2", help="A:B:STEP of t")
    parser.add_argument("--split", default="test", help="reading: of the dataset")
    parser.add_argument("--query", default="police", help="retrieval: a word of the caption")
    parser.add_argument("-k", type=int, default=10, help="places of a search")
    parser.add_argument("-o", "--output", type=Path, default=Path("studies/figures"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for run in arguments.runs:
        load_config(run / "config.yaml")  # words, where it is no run
    stem = arguments.output / f"{arguments.what}-over-t"
    if arguments.what == "retrieval":
        stem, text = (
            arguments.output / "retrieval",
            retrieval(arguments.runs, arguments.query, arguments.k, arguments.output),
        )
    else:
        ts = parse_scan(arguments.scan)
        curves, about = (
            reading(arguments.runs, ts, arguments.split)
            if arguments.what == "reading"
            else gender(arguments.runs, ts, arguments.k)
        )
        text = table(curves, ts, about)
        plot(curves, ts, about, stem.with_suffix(".svg"))
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
