"""What the caches and `prepare` bring, as ratios measured side by side.

    CLIPALIGN_PHOTOS=… python -m pytest -m benchmark tests/benchmarks/test_throughput.py -s \
        --basetemp=/dev/shm/clipalign

Processor time is compared where one thread does the work, so that a busy machine changes little;
what several workers bring is measured by the clock, and needs two free cores. The folder of the
files lies in memory where that can be had: to make a file on a disk takes processor time as well,
and on an ext4 from which many were just removed more than all the rest.
"""

from __future__ import annotations

import io
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

BATCH = 8
ROUNDS = 3


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    begun = clock()
    work()
    return clock() - begun


def bare_prepare(root: Path, folder: Path | None = None) -> None:
    """Decode, resize, and encode twice, as an attacked image and its clean partner are.

    What it does not: draw the word, hash, keep a table, and (unless a folder is given) write.
    """
    for number, path in enumerate(root.rglob("*.jpg")):
        with Image.open(path) as image:
            picture = image.convert("RGB")
        picture.thumbnail((256, 256), Image.Resampling.LANCZOS)
        for i in range(2):
            to = io.BytesIO() if folder is None else folder / f"{number}-{i}.jpg"
            picture.save(to, "JPEG", quality=95, subsampling=0)


def enlarged(root: Path, folder: Path, side: int) -> Path:
    """The same photographs, their longer side as many pixels as is wanted."""
    for path in root.rglob("*.jpg"):
        with Image.open(path) as image:
            picture = image.convert("RGB")
        to = folder / path.relative_to(root)
        to.parent.mkdir(parents=True, exist_ok=True)
        ImageOps.contain(picture, (side, side)).save(to, "JPEG", quality=90)
    return folder


@pytest.mark.parametrize("side", [None, 500])
def test_prepare_beside_a_bare_loop(
    all_photographs: Path, tmp_path: Path, side: int | None
) -> None:
    """The photographs as they are, of some 300 pixels, and as large as those of ImageNet are.

    The loop writes its files, as `prepare` must; what one that drops them would have is printed
    beside it. What `prepare` does beyond the loop costs the same for any image that becomes 256
    pixels: so the ratio is lower for a thumbnail, which is decoded and resized in a millisecond,
    than for a photograph. Each round writes other words into an empty folder.
    """
    from clipalign.tasks.prepare import prepare

    photographs = all_photographs
    if side is not None:
        photographs = enlarged(photographs, tmp_path / "enlarged", side)
    to = tmp_path / "to"

    def ours(seed: int) -> None:
        prepare("typographic", photographs, to / "prefs", max_side=256, seed=seed)

    def timed(work: Callable[[], object]) -> float:
        to.mkdir()
        took = seconds(work)
        sizes.append(sum(path.stat().st_size for path in to.rglob("*.jpg")))
        shutil.rmtree(to)
        return took

    photos = sum(1 for _ in photographs.rglob("*.jpg"))
    sizes: list[int] = []
    timed(lambda: ours(0))
    ratios, written = [], []
    for i in range(1, 1 + ROUNDS):
        bare = timed(lambda: bare_prepare(photographs))
        writing = timed(lambda: bare_prepare(photographs, to))
        mine = timed(lambda i=i: ours(i))
        ratios.append(bare / mine)
        written.append(writing / mine)
    ratio = statistics.median(written)
    print(
        f"\nprepare: {ratio:.2f} of the bare loop's rate per core ("
        f"{', '.join(f'{each:.2f}' for each in written)}), {statistics.median(ratios):.2f} of one "
        f"that writes nothing; {photos / mine:.0f} photographs of {side or 300} pixels a second of "
        f"processor time, {sizes[-1] / 2000 / photos:.0f} kB a picture"
    )
    assert ratio >= 0.8


def test_two_workers_prepare_faster(photographs: Path, tmp_path: Path) -> None:
    """By the clock, on images enough that starting the workers does not count."""
    from clipalign.tasks.prepare import prepare

    def wall(name: str, workers: int) -> float:
        return seconds(
            lambda: prepare(
                "typographic", photographs, tmp_path / name, workers=workers,
                task_options={"attacks_per_image": 20},
            ),
            time.perf_counter,
        )  # fmt: skip

    ratio = wall("one", 1) / wall("two", 2)
    print(f"\nprepare with 2 workers: {ratio:.2f} times the rate of 1")
    assert ratio >= 1.7


def test_last_4_from_cached_activations(tmp_path: Path) -> None:
    """ViT-B-32 with random weights at 224, against full fine-tuning and against last:4 without."""
    from clipalign.build import objective, regulariser
    from clipalign.config import TrainConfig
    from clipalign.models.load import load_model
    from clipalign.models.trainable import apply_trainable
    from clipalign.models.trunk import find_trunk
    from clipalign.training.averaging import build_average
    from clipalign.training.engine import Trainer
    from clipalign.training.losses import Data, Problem
    from clipalign.training.streams import Stream

    class Quiet:
        def logged(self, step: int, metrics: dict[str, float]) -> None: ...
        def checkpoint(self, checkpoint: object) -> None: ...
        def advanced(self, step: int, loss: float) -> None: ...
        def warn(self, message: str) -> None: ...
        def stop_requested(self) -> bool:
            return False

    model = load_model("random:ViT-B-32")
    texts = model.encode_text([f"a photo of a thing {i}." for i in range(50)])
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2 * BATCH, 3, 224, 224), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        reference = model.encode_image(pixels)
    index = torch.arange(BATCH)
    stream = Stream((), index, index, index + 1, index + BATCH, index[:0])

    def trainer(trainable: str, cached: bool) -> Trainer:
        fresh = model.rebuilt(model.clip.state_dict())
        part = apply_trainable(fresh, trainable)
        inputs = pixels
        if cached:
            part.trunk = find_trunk(fresh)
            assert part.trunk is not None
            assert part.trunk.blocks == 8
            inputs = part.trunk.frozen(pixels)
        problem = Problem(
            part, objective("kto"), regulariser("forward-kl"), 1.0, 0.01, texts, texts
        )
        config = TrainConfig(batch_size=BATCH, averaging="bma")
        average = build_average("bma", {}, part.named_parameters(), 1000)
        data = Data(stream, reference, inputs)
        return Trainer(problem, data, None, config, 1e-5, 1000, 0, average, Quiet())  # type: ignore[arg-type]

    def step(t: Trainer) -> float:
        def once() -> None:
            t._step()
            t.step += 1
            t.average.update(t.parameters)

        return seconds(once)

    full, plain, cached = (
        trainer(*how) for how in (("image-encoder", False), ("last:4", False), ("last:4", True))
    )
    times = [(step(full), step(plain), step(cached)) for _ in range(3)][1:]  # the first warms up
    ratio, saved = (min(t[i] / t[2] for t in times) for i in (0, 1))
    worst = max(
        float((plain.parameters[k] - cached.parameters[k]).detach().abs().max())
        for k in cached.parameters
    )
    print(
        f"\nlast:4 from the cache: {ratio:.2f} times the pairs/s of full fine-tuning, {saved:.2f} "
        f"of last:4 without it; weights differ by at most {worst:.1e}"
    )
    assert worst <= 1e-4
    assert ratio >= 2.5


def test_a_second_evaluation_reads_the_cache(photographs: Path) -> None:
    from clipalign.evals.evaluate import evaluate
    from clipalign.models.load import load_model

    model = load_model("random:ViT-B-32")

    def once() -> object:
        return evaluate(model, dataset=photographs, splits=["test"])

    first = seconds(once, time.perf_counter)
    second = min(seconds(once, time.perf_counter) for _ in range(2))
    print(
        f"\nsecond evaluation: {first / second:.0f} times as fast ({first:.1f} s, {second:.2f} s)"
    )
    assert first / second >= 50
