"""Makes every table and small picture of finished studies again, for pages that are kept.

    python examples/study/collect.py studies/ -o examples/study/results

Of each comparison below studies/: its tables with the fronts as SVG, from the result files; of the
one over β also KL per image. Of studies/figures: what the scripts wrote that need a model. Each
table has in its caption the command, n, the seeds, and what is in brackets. No number is typed.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from clipalign.comparison.compare import report
from clipalign.comparison.plan import RECIPE, make_plan
from clipalign.comparison.summary import Panel, Summary
from clipalign.comparison.tables import notes, panel_seeds

HERE = Path(__file__).parent
LARGEST = 200_000  # bytes of a picture that is kept
KEPT = (".md", ".svg", ".txt")
OVER_BETA = "beta"  # the comparison of which KL per image is shown


def collect(studies: Path, output: Path) -> list[Path]:
    """Write the results of all studies; gives the files, an index first."""
    written: list[Path] = []
    lines = ["# Results", "", "| study | cells | tables and figures |", "|-|-|-|"]
    for study in sorted(path.parent for path in studies.glob(f"*/{RECIPE}")):
        folder = _emptied(output / study.name)
        result = report(make_plan(study, check_options=False))
        _warn_of_unfinished(study, result.summary)
        made = _copied([p for p in result.files if p.suffix == ".svg"], folder)
        (text,) = (p.read_text(encoding="utf-8") for p in result.files if p.suffix == ".md")
        page = folder / "README.md"
        page.write_text(captioned(text, result.summary, command_of(study)), encoding="utf-8")
        if study.name == OVER_BETA and _script("kl_per_image").write(study, folder):
            made += [folder / "kl-per-image.md", folder / "kl-per-image.svg"]
        states = [cell.state for cell in result.summary.cells]
        links = ", ".join(f"[{p.name}]({study.name}/{p.name})" for p in (page, *sorted(made)))
        done = f"{states.count('finished')} of {len(states)}"
        lines.append(f"| {result.summary.title} | {done} | {links} |")
        written += [page, *made]
    drawn = sorted(p for p in studies.glob("figures/*") if p.suffix in KEPT)
    if drawn:
        copied = _copied(drawn, _emptied(output / "figures"))
        links = ", ".join(f"[{p.name}](figures/{p.name})" for p in copied)
        lines.append(f"| Trained heads, turned | | {links} |")
        written += copied
    index = output / "README.md"
    index.parent.mkdir(parents=True, exist_ok=True)
    made_by = f"Made by `python examples/study/collect.py {studies} -o {output}`."
    index.write_text("\n".join([*lines, "", made_by]) + "\n", encoding="utf-8")
    return [index, *written]


def command_of(study: Path) -> str:
    """The command that made a study."""
    recipe = HERE / f"{study.name}.yaml"
    known = f"examples/study/{recipe.name}" if recipe.exists() else str(study / RECIPE)
    return f"clipalign compare {known} -o studies/{study.name}"


def captioned(text: str, summary: Summary, command: str) -> str:
    """The Markdown of a comparison, with a caption above each table."""
    panels = iter(summary.panels)

    def lines() -> Iterator[str]:
        for line in text.splitlines():
            yield line
            if line.startswith("## "):
                yield from ("", caption(next(panels), command))

    return "\n".join(lines()) + "\n"


def caption(panel: Panel, command: str) -> str:
    """The command, n, the seeds, and what the brackets hold."""
    said = [note for note in notes(panel) if not note.startswith("Warning")]
    counted = f"n = {panel.n:,} images; {panel_seeds(panel)}."
    return " ".join([f"Made by `{command}`.", counted, *said])


def _warn_of_unfinished(study: Path, summary: Summary) -> None:
    unfinished = [cell.name for cell in summary.cells if cell.state != "finished"]
    if unfinished:
        print(f"{study}: {len(unfinished)} cells are not finished, such as {unfinished[0]}")


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _emptied(folder: Path) -> Path:
    """A folder without what an earlier call wrote there."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.suffix in KEPT:
            path.unlink()
    return folder


def _copied(files: list[Path], folder: Path) -> list[Path]:
    small = [p for p in files if p.stat().st_size <= LARGEST]
    for path in files:
        if path not in small:
            print(f"{path} has {path.stat().st_size:,} bytes and is left out")
    return [Path(shutil.copy(path, folder / path.name)) for path in small]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", type=Path, nargs="?", default=Path("studies"))
    parser.add_argument("-o", "--output", type=Path, default=Path("examples/study/results"))
    arguments = parser.parse_args()
    for path in collect(arguments.studies, arguments.output):
        print(path)


if __name__ == "__main__":
    main()
