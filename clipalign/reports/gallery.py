"""Whom a search brings up, at every t: rankings computed before the page is opened.

For a run that trained a head, W_t is turned over a range of t on the reference's cached features of
the images that the suite scored; t* is found on validation images, as `transform --t auto` does.
For any other model there are two stops: the reference, and the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipalign.datasets.base import Dataset, rgb_image
from clipalign.errors import ClipAlignError, DataError
from clipalign.evals.examples import image_set, readable
from clipalign.evals.fairness import ranking
from clipalign.evals.features import encode_images
from clipalign.evals.gender import GenderSuite
from clipalign.evals.grouped import Grouped, Prompts
from clipalign.models.feature_cache import text_features
from clipalign.options import component
from clipalign.progress import Reporter
from clipalign.reports.pictures import Images, thumbnail
from clipalign.reports.sources import Measured, Source
from clipalign.transforms.maps import MapOfRun, check_fits, check_head_run, read_map
from clipalign.transforms.neutral import Neutral, find_neutral
from clipalign.transforms.power import powers_of
from clipalign.transforms.probe import ConceptProbe, ProbeFeatures
from clipalign.transforms.scan import Scan, scan_powers
from clipalign.transforms.spectrum import Powers
from clipalign.transforms.transform import open_context

__all__ = ["Gallery", "Query", "build_gallery"]

_SIDE = 72
_SHOWN = 20  # places of a ranking on the page
_MAX_PICTURES = 2_500
"""Different images on one page; beyond it fewer places are shown."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Query:
    """One search.

    Attributes:
        name: the activity searched for.
        published: share of the first value in labour statistics; None where there is none.
    """

    name: str
    published: float | None


@dataclass(frozen=True)
class Gallery:
    """What is retrieved for every query at every stop.

    Attributes:
        title: the source's name.
        concept, values: such as "gender" and ("woman", "man").
        k: places shown.
        stops: labels of the S stops, such as "t = 0.40".
        ts: their t; empty without a scan.
        start: the stop that is shown first.
        queries: Q.
        top: [S][Q][k] index of a picture.
        value: value of each picture, an index into `values`.
        pictures: data URIs; empty ones where the images are not found.
        n: images searched.
        scan: the curves over t; None without one.
        neutral: t*; None where it is not known.
        problems: what is missing, in words.
    """

    title: str
    concept: str
    values: tuple[str, ...]
    k: int
    stops: tuple[str, ...]
    ts: tuple[float, ...]
    start: int
    queries: tuple[Query, ...]
    top: Sequence[Sequence[Sequence[int]]]
    value: Sequence[int]
    pictures: Sequence[str]
    n: int
    scan: Scan | None = None
    neutral: Neutral | None = None
    problems: tuple[str, ...] = ()

    def share(self, stop: int, query: int) -> list[int]:
        """Images of each value among the places shown."""
        shown = [self.value[i] for i in self.top[stop][query]]
        return [shown.count(v) for v in range(len(self.values))]

    def document(self) -> dict[str, Any]:
        """What the page's script reads."""
        readings = []
        for row in self.scan.rows if self.scan else ():
            readings.append(
                {
                    f"{self.concept} accuracy": row.concept_accuracy,
                    "activity accuracy": row.activity_accuracy,
                    f"mean |bias| in the top {self.scan.k if self.scan else 0}": row.top_k_bias,
                }
            )
        return {
            "values": list(self.values),
            "stops": list(self.stops),
            "ts": list(self.ts),
            "queries": [query.name for query in self.queries],
            "top": self.top,
            "value": list(self.value),
            "pictures": list(self.pictures),
            "readings": readings,
        }


@dataclass(frozen=True)
class _Ranked:
    """Rankings before pictures: [S, Q, N] as a list over stops, and what goes with them."""

    stops: tuple[str, ...]
    ts: tuple[float, ...]
    orders: list[Ints]
    start: int
    scan: Scan | None
    neutral: Neutral | None


def build_gallery(
    source: Source, images: Images, ts: Sequence[float], device: str | None, reporter: Reporter
) -> list[Gallery]:
    """A gallery for each result of the suite `gender` that has searches.

    Args:
        source: with results.
        images: where they may be.
        ts: to which a head's map is turned; 0, 1 and t* are added.
        device: that features are computed on where the cache lacks them.
        reporter: hears the progress.
    """
    found = []
    for measured in source.results:
        result = measured.result
        if result.suite == GenderSuite.name and result.options.get("queries") and measured.rows:
            found.append(_build(source, measured, images, ts, device, reporter))
    return found


def _build(
    source: Source,
    measured: Measured,
    images: Images,
    ts: Sequence[float],
    device: str | None,
    reporter: Reporter,
) -> Gallery:
    result, problems = measured.result, []
    rows = [row for row in measured.rows if "unreadable" not in row]
    options = result.options
    queries, values = _strings(options["queries"]), _strings(options["values"])
    dataset: Dataset | None = None
    ranked = None
    try:
        dataset = images.of(source, result)
        if source.config.get("trainable") == "head" and len(values) == 2:
            ranked = _turned(source, measured, dataset, ts, device, reporter)
    except ClipAlignError as error:
        problems.append(str(error))
    ranked = ranked or _as_scored(rows, queries)
    k = min(int(str(options["k"])), _SHOWN, len(rows))
    top = [order[:, :k] for order in ranked.orders]
    shown = np.unique(np.concatenate([t.ravel() for t in top]))
    while len(shown) > _MAX_PICTURES and k > 1:
        k -= 1
        top = [t[:, :k] for t in top]
        shown = np.unique(np.concatenate([t.ravel() for t in top]))
    place = {int(row): i for i, row in enumerate(shown)}
    pictures = [""] * len(shown)
    if dataset is not None:
        known = {e.key: e for e in dataset.examples(result.dataset.split)}
        with reporter.progress("Drawing images", len(shown)) as bar:
            for i, row in enumerate(shown):
                bar.advance()
                try:
                    picture = rgb_image(dataset, known[rows[row]["key"]])
                except (DataError, KeyError) as error:
                    problems.append(f"{rows[row]['key']}: {error}")
                    continue
                pictures[i] = thumbnail(picture, _SIDE)
    published = [result.per_class.get(q, {}).get(f"published_share_{values[0]}") for q in queries]
    concept = ranked.scan.concept if ranked.scan else str(options.get("concept", "gender"))
    return Gallery(
        title=source.name,
        concept=concept,
        values=tuple(values),
        k=k,
        stops=ranked.stops,
        ts=ranked.ts,
        start=ranked.start,
        queries=tuple(Query(q, p) for q, p in zip(queries, published, strict=True)),
        top=[[[place[int(i)] for i in line] for line in t] for t in top],
        value=[values.index(rows[row]["value"]) for row in shown],
        pictures=pictures,
        n=len(rows),
        scan=ranked.scan,
        neutral=ranked.neutral,
        problems=tuple(dict.fromkeys(problems)),
    )


def _as_scored(rows: Sequence[Mapping[str, Any]], queries: Sequence[str]) -> _Ranked:
    """The rankings that the result was made of: of the reference where there is one, the model."""
    stops = {"the reference": "reference_similarity", "the model": "similarity"}
    kept = {name: key for name, key in stops.items() if key in rows[0]}
    orders = [ranking([[row[key][q] for row in rows] for q in queries]) for key in kept.values()]
    return _Ranked(tuple(kept), (), orders, len(orders) - 1, None, None)


def _turned(
    source: Source,
    measured: Measured,
    dataset: Dataset,
    ts: Sequence[float],
    device: str | None,
    reporter: Reporter,
) -> _Ranked:
    """W_t of a head run at every t, on the images that the suite scored.

    Raises:
        ClipAlignError: the run's model, map or validation images cannot be used.
    """
    result = measured.result
    assert source.run is not None
    context = open_context(source.run.path, device=device, reporter=reporter)
    run = check_head_run(context)
    linear, sha256 = read_map(run)
    check_fits(linear, [MapOfRun(str(run.path), 1.0, sha256)], context.reference)
    neutral = find_neutral(powers_of(context))
    known = GenderSuite.Options.model_fields
    suite: GenderSuite = component(
        "suites", GenderSuite.name, **{k: v for k, v in result.options.items() if k in known}
    )
    everyone, _ = Grouped.of(dataset, result.dataset.split, suite.concept)
    queries = _strings(result.options["queries"])
    prompts = Prompts.of(everyone, queries)
    encoded = encode_images(
        [context.reference],
        image_set(dataset, result.dataset.split, everyone.examples),
        reporter,
    )
    readable_rows, _ = readable(everyone.examples, encoded)
    grouped = everyone.only(readable_rows)
    scored = [row["key"] for row in measured.rows if "unreadable" not in row]
    if [example.key for example in grouped.examples] != scored:
        raise DataError("Other images can be read now than when they were scored. Evaluate again.")
    probe = ConceptProbe(
        name=suite.concept.name,
        values=(grouped.values[0], grouped.values[1]),
        value_prompts=tuple((c[0], c[1]) for c in prompts.captions),
        neutral_prompts=prompts.neutral,
        spurious_prompts=prompts.alone,
        value=tuple(map(int, grouped.value)),
        activity=tuple(map(int, grouped.activity)),
        groups=tuple(map(str, grouped.group)),
    )
    texts = text_features(context.reference, prompts.texts).cpu().double().numpy()
    at = {text: i for i, text in enumerate(prompts.texts)}
    pairs = [[at[text] for text in pair] for pair in probe.value_prompts]
    pictures = encoded.features[0][readable_rows, 0].double().numpy()
    scale = float(context.reference.logit_scale)
    powers = Powers(
        ProbeFeatures(
            probe, pictures, texts[pairs], texts[[at[t] for t in prompts.neutral]], scale
        ),
        linear,
    )
    stops = sorted({*(round(t, 6) for t in ts), 0.0, 1.0, round(neutral.t, 6)})
    k = int(str(result.options["k"]))
    # over the searches of the suite, as its result has them, and not over every caption
    searched = [prompts.neutral.index(text) for text in prompts.searched]
    scan = scan_powers(powers, stops, k=k, searches=searched, reporter=reporter)
    orders = []
    for t in stops:
        features = powers.at(t).features
        orders.append(ranking(features.neutral_texts[searched] @ features.images.T))
    return _Ranked(
        tuple(_stop(t, neutral.t) for t in stops),
        tuple(stops),
        orders,
        stops.index(0.0),
        scan,
        neutral,
    )


def _stop(t: float, neutral: float) -> str:
    if t == round(neutral, 6):
        return f"t* = {t:.2f}, neutral"
    known = {0.0: ", as it was", 1.0: ", as trained"}
    return f"t = {t:.2f}{known.get(t, '')}".replace("-", "−")


def _strings(values: Any) -> list[str]:
    return [str(value) for value in values]
