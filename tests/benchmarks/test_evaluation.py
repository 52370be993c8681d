"""`eval` of a folder of JPEGs beside a bare loop and beside clip_benchmark.

    python -m pip install clip-benchmark
    CLIPALIGN_PHOTOS=… python -m pytest -m benchmark tests/benchmarks/test_evaluation.py -s

ViT-B-32 with random weights from a checkpoint, at 224, fp32. All three read the same files with two
workers, encode the prompts of all classes and every image, and say the class of each; the model is
loaded before. Rounds of all contenders alternate, and the median over rounds of the ratio within a
round is what counts. Without clip_benchmark, which no extra of clipalign installs, the bare loop is
measured alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clipalign.datasets.folder import Folder
from clipalign.evals.evaluate import evaluate, result_path
from clipalign.evals.features import _DECODERS as WORKERS
from clipalign.evals.results import read_rows
from clipalign.models.export import export_model
from clipalign.models.load import load_model

Classes = tuple[int, ...]
"""Number of the class that was chosen, of every image in the order of their names."""

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

ARCHITECTURE, ROUNDS, BATCH = "ViT-B-32", 1, 256


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Weights that tell classes apart as chance has it, for open_clip to load."""
    return export_model(load_model(f"random:{ARCHITECTURE}"), tmp_path / "checkpoint")


def ours(checkpoint: Path, photographs: Path, results: Path) -> Callable[[], Classes]:
    """`clipalign eval --suite retention`: zero-shot accuracy on clean images."""
    numbers = {name: i for i, name in enumerate(Folder(root=photographs).classnames)}

    def once() -> Classes:
        model = load_model(checkpoint)  # anew, since a loaded model remembers its hash
        (found,) = timed(
            evaluate, model, suites=["retention"], dataset=photographs, use_cache=False,
            output=results,
        )  # fmt: skip
        return tuple(numbers[row["predicted"]] for row in read_rows(result_path(results, found)))

    return once


def bare(checkpoint: Path, photographs: Path) -> Callable[[], Classes]:
    """Decode in threads, a batch ahead, and encode."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{checkpoint}")
    tokenizer = open_clip.get_tokenizer(ARCHITECTURE)
    folder = Folder(root=photographs)
    names, examples = list(folder.classnames), folder.examples("test")

    def decode(name: str) -> Tensor:
        with Image.open(photographs / name) as image:
            return preprocess(image)

    def batches(pool: ThreadPoolExecutor) -> Iterator[Tensor]:
        starts = [*range(0, len(examples), BATCH), len(examples)]
        futures = [
            [pool.submit(decode, e.source) for e in examples[a:b]] for a, b in pairwise(starts)
        ]
        for batch in futures:
            yield torch.stack([future.result() for future in batch])

    @torch.no_grad()
    def loop() -> Classes:
        texts = tokenizer([folder.templates[0].format(name) for name in names])
        classes = F.normalize(model.encode_text(texts), dim=-1)
        with ThreadPoolExecutor(WORKERS) as pool:
            found = [
                (F.normalize(model.encode_image(pixels), dim=-1) @ classes.T).argmax(1)
                for pixels in batches(pool)
            ]
        return tuple(torch.cat(found).tolist())

    model.eval()
    return lambda: timed(loop)


def theirs(checkpoint: Path, photographs: Path) -> Callable[[], Classes]:
    """clip_benchmark as its command calls it: batches of 64, processes that decode.

    Its logits are read here, for its own count (`accuracy` of 1.6) fails with NumPy from 2.4 on.
    """
    from clip_benchmark.metrics.zeroshot_classification import (
        run_classification,
        zero_shot_classifier,
    )
    from clip_benchmark.models.open_clip import load_open_clip
    from torchvision.datasets import ImageFolder

    weights = str(next(checkpoint.glob("*.safetensors")))
    model, transform, tokenizer = load_open_clip(ARCHITECTURE, weights)
    images = ImageFolder(str(photographs / "test"), transform)
    names = [name.replace("_", " ") for name in images.classes]
    template = Folder(root=photographs).templates[0].replace("{}", "{c}")
    model.eval()

    def loop() -> Classes:
        loader = torch.utils.data.DataLoader(images, batch_size=64, num_workers=WORKERS)
        classes = zero_shot_classifier(model, tokenizer, names, [template], "cpu", amp=False)
        logits, _ = run_classification(model, classes, loader, "cpu", amp=False)
        return tuple(logits.argmax(1).tolist())

    return lambda: timed(loop)


_seconds: list[float] = []


def timed(work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What the work gives; how long it took goes to the end of `_seconds`."""
    begun = time.perf_counter()
    found = work(*arguments, **options)
    _seconds.append(time.perf_counter() - begun)
    return found


def side_by_side(
    contenders: dict[str, Callable[[], Classes]],
) -> tuple[dict[str, float], set[Classes]]:
    """How many times as fast we are as each, and all the answers that there were."""
    took: dict[str, list[float]] = {name: [] for name in contenders}
    answers = set()
    for _ in range(ROUNDS):
        for name, once in contenders.items():
            answers.add(once())
            took[name].append(_seconds.pop())
    rates = {
        name: statistics.median(a / b for a, b in zip(them, took["ours"], strict=True))
        for name, them in took.items()
    }
    return rates, answers


def test_beside_a_bare_loop(checkpoint: Path, all_photographs: Path, tmp_path: Path) -> None:
    contenders = {
        "bare": bare(checkpoint, all_photographs),
        "ours": ours(checkpoint, all_photographs, tmp_path / "results"),
    }
    rates, answers = side_by_side(contenders)
    print(f"\neval: {rates['bare']:.3f} of the images/s of a bare loop")
    assert len(answers) == 1, "every image has the same class in both"
    assert rates["bare"] >= 0.95


def test_beside_clip_benchmark(checkpoint: Path, all_photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip(
        "clip_benchmark.metrics.zeroshot_classification",
        reason="clip_benchmark is not installed: pip install clip-benchmark",
    )
    contenders = {
        "theirs": theirs(checkpoint, all_photographs),
        "ours": ours(checkpoint, all_photographs, tmp_path / "results"),
    }
    rates, answers = side_by_side(contenders)
    print(f"\neval: {rates['theirs']:.3f} times the images/s of clip_benchmark")
    assert len(answers) == 1, "every image has the same class in both"
    assert rates["theirs"] >= 1
