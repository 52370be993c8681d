"""How sure a number is: intervals, paired comparisons, and the spread over seeds.

An interval tells sampling error: what other images of the same kind would have given. It says
nothing about other seeds (see `seed_spread`) or other data. Images that share a group, for example
several attacks on one drawing, are not independent, so groups are resampled as wholes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from clipalign.errors import DataError

__all__ = [
    "Interval",
    "McNemar",
    "SeedSpread",
    "bootstrap_interval",
    "cluster_error",
    "count_groups",
    "mcnemar",
    "minimal_detectable_effect",
    "resampled_rows",
    "seed_spread",
    "wilson_interval",
]

Floats: TypeAlias = npt.NDArray[np.float64]
Groups: TypeAlias = Sequence[str] | Sequence[int] | npt.NDArray[Any]

EXACT_BELOW = 25
"""McNemar's test is exact below this many discordant pairs, and chi-square from there on."""

_ROUNDING = 1e-12
_DRAWS_AT_ONCE = 4_000_000  # bounds the memory of one block of resamples to about 64 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval.

    Attributes:
        low, high: its ends, in the unit of what was measured.
        level: coverage it aims at, for example 0.95.
        method: how it was made, for example "bootstrap-percentile".
    """

    low: float
    high: float
    level: float
    method: str

    # Read by pydantic where an Interval is a field of a results file.
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "allow_inf_nan": False,
        "revalidate_instances": "always",
    }


@dataclass(frozen=True, slots=True)
class McNemar:
    """Outcome of a test that two models are right equally often.

    Attributes:
        a_only: pairs (or groups) on which only a is right.
        b_only: pairs (or groups) on which only b is right.
        p_value: two-sided.
        test: "mcnemar-exact", "mcnemar-chi2", "sign-exact" or "sign-chi2".
    """

    a_only: int
    b_only: int
    p_value: float
    test: str

    @property
    def n_discordant(self) -> int:
        """Pairs (or groups) on which the models differ: all that the test looks at."""
        return self.a_only + self.b_only


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """One metric over runs that differ in their seed alone.

    Attributes:
        n: number of seeds.
        mean, minimum, maximum: over the seeds.
        sd: sample standard deviation (n − 1); None for a single seed, which has none.
    """

    n: int
    mean: float
    sd: float | None
    minimum: float
    maximum: float


def count_groups(n: int, groups: Groups | None) -> int:
    """How many independent units `n` images are: the number of different groups, else n."""
    return n if groups is None else _group_of(n, groups)[1]


def bootstrap_interval(
    values: npt.ArrayLike,
    groups: Groups | None = None,
    statistic: Callable[[Floats], float] = np.mean,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic of per-image values.

    With groups it is a cluster bootstrap: whole groups are drawn with replacement, so the number of
    images varies from one resample to the next and the statistic is taken over those drawn.

    Where all values are equal the interval has no width, however few there are: for a share of 0
    or 1 `wilson_interval` is the honest one.

    Args:
        values: [N], or [N, …] for a statistic of several columns; finite.
        groups: [N] labels; images of one label stay together. None: each image is its own group.
        statistic: of the resampled values. The mean, the default, is vectorised.
        level: coverage, in (0, 1).
        resamples: number of resamples.
        seed: of the resampling; the same seed gives the same interval.

    Raises:
        DataError: there are fewer than two independent groups, or a value is not finite.
    """
    array = _finite("values", values)
    _check_level(level)
    group_of, n_groups = _group_of(len(array), groups)
    if n_groups < 2:
        raise DataError(
            f"An interval needs at least 2 independent images or groups, not {n_groups}."
        )
    rng = np.random.default_rng(seed)
    if statistic is np.mean and array.ndim == 1:
        sums = _group_sums(array, group_of)
        estimates = _bootstrap_means(sums, np.bincount(group_of), resamples, rng)
    else:
        drawn = resampled_rows(group_of, resamples, rng)
        estimates = np.array([statistic(array[rows]) for rows in drawn], dtype=np.float64)
    tail = (1 - level) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail])
    method = "bootstrap-percentile" if groups is None else "cluster-bootstrap-percentile"
    return Interval(float(low), float(high), level, method)


def wilson_interval(k: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share k/n of independent images (Wilson 1927).

    (p̂ + z²/2n ± z √(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n). It keeps its width at k = 0 and k = n,
    where the bootstrap has none. A share of groups may count parts of one.

    Raises:
        DataError: n is 0, or k is not in 0…n.
    """
    _check_level(level)
    if n < 1 or not 0 <= k <= n:
        raise DataError(f"A share of {k} in {n} images has no interval.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = k / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At k = 0 and k = n an end is exactly 0 or 1, but for rounding.
    low = 0.0 if k == 0 else (centre - half) / scale
    high = 1.0 if k == n else (centre + half) / scale
    return Interval(low, high, level, "wilson")


def mcnemar(
    correct_a: npt.ArrayLike, correct_b: npt.ArrayLike, groups: Groups | None = None
) -> McNemar:
    """McNemar's two-sided test that two models are right equally often on the same images.

    Only the pairs on which they differ count. Below 25 of them p is exact, twice the smaller
    binomial(½) tail; from there on it is chi-square with continuity correction,
    (|a_only − b_only| − 1)²/(a_only + b_only) on one degree of freedom.

    McNemar's test takes images as independent. With groups each group votes once, for the model
    that is right on more of its images, and the test becomes a sign test over groups.

    Args:
        correct_a: [N] bool, whether the one model is right.
        correct_b: [N] bool, whether the other is, on the same images in the same order.
        groups: [N] labels, or None for independent images.
    """
    net = _paired(correct_a, correct_b)
    if not np.isin(net, (-1, 0, 1)).all():
        raise DataError("McNemar's test needs right or wrong (bool or 0/1) for each image.")
    if groups is not None:
        net = _group_sums(net, _group_of(len(net), groups)[0])
    a_only, b_only = int((net > 0).sum()), int((net < 0).sum())
    n = a_only + b_only
    if n < EXACT_BELOW:
        tail = sum(math.comb(n, i) for i in range(min(a_only, b_only) + 1))
        p, kind = min(1.0, 2 * tail / 2**n), "exact"
    else:
        chi2 = max(abs(a_only - b_only) - 1, 0) ** 2 / n
        p, kind = math.erfc(math.sqrt(chi2 / 2)), "chi2"
    return McNemar(a_only, b_only, p, f"{'mcnemar' if groups is None else 'sign'}-{kind}")


def minimal_detectable_effect(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups: Groups | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
) -> float | None:
    """The smallest mean difference a − b that so many paired images would show.

    (z_{1−α/2} + z_power) · SE, with the cluster-robust standard error of the mean difference. A
    difference that is smaller and "not significant" was never within reach.

    Args:
        a: [N] values of the one model.
        b: [N] values of the other on the same images in the same order.
        groups: [N] labels, or None for independent images.
        alpha: two-sided level of the test.
        power: chance to find a difference of this size.

    Returns:
        In the unit of a and b. None where the two differ by the same amount in all groups: there
        is no spread to tell an effect from.

    Raises:
        DataError: there are fewer than two independent groups.
    """
    error = cluster_error(_paired(a, b), groups)
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * error or None


def cluster_error(values: npt.ArrayLike, groups: Groups | None = None) -> float:
    """Cluster-robust standard error of a mean.

    SE² = G/(G−1) · Σ_g (Σ_{i∈g} (x_i − x̄))² / N²; without groups each image is a cluster.

    Args:
        values: [N] per image.
        groups: [N] labels, or None for independent images.

    Returns:
        In the unit of the values; exactly 0 where all groups have the same mean.

    Raises:
        DataError: there are fewer than two independent groups.
    """
    array = _finite("values", values)
    group_of, n_groups = _group_of(len(array), groups)
    if n_groups < 2:
        raise DataError("A standard error needs at least 2 independent images or groups.")
    sums = _group_sums(array - array.mean(), group_of)
    error = math.sqrt(n_groups / (n_groups - 1) * float((sums**2).sum())) / len(array)
    # What rounding leaves of equal groups is no spread.
    return error if error > _ROUNDING * float(np.abs(array).max()) else 0.0


def seed_spread(values: Sequence[float]) -> SeedSpread:
    """Mean, standard deviation, minimum and maximum of one metric over seeds [S].

    Raises:
        DataError: there is no value, or one is not finite.
    """
    array = _finite("values", values)
    if not array.size:
        raise DataError("No seed was given to take the spread of.")
    sd = float(array.std(ddof=1)) if len(array) > 1 else None
    return SeedSpread(len(array), float(array.mean()), sd, float(array.min()), float(array.max()))


def resampled_rows(
    group_of: npt.NDArray[np.intp], resamples: int, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.intp]]:
    """Indices of the images of each resample, whole groups drawn with replacement.

    Args:
        group_of: [N] number of each image's group, 0…G−1, none of them empty.
        resamples: number of resamples.
        rng: draws G numbers of groups for each.

    Yields:
        Indices into the images; as many as the groups drawn have, which is N where each image is
        its own group.
    """
    order = np.argsort(group_of, kind="stable")  # images group by group
    sizes = np.bincount(group_of)
    first = sizes.cumsum() - sizes
    for _ in range(resamples):
        drawn = rng.integers(0, len(sizes), len(sizes))
        if len(sizes) == len(order):
            yield order[drawn]
            continue
        many = sizes[drawn]
        ends = many.cumsum()
        yield order[np.repeat(first[drawn] - (ends - many), many) + np.arange(ends[-1])]


def _bootstrap_means(
    sums: Floats, sizes: npt.NDArray[np.intp], resamples: int, rng: np.random.Generator
) -> Floats:
    """[R] means of resamples: Σ of the drawn groups' sums [G] over Σ of their sizes [G]."""
    estimates = np.empty(resamples)
    block = max(1, _DRAWS_AT_ONCE // len(sums))
    for start in range(0, resamples, block):
        shape = (min(block, resamples - start), len(sums))
        drawn = rng.integers(0, len(sums), shape)
        estimates[start : start + shape[0]] = sums[drawn].sum(1) / sizes[drawn].sum(1)
    return estimates


def _group_of(n: int, groups: Groups | None) -> tuple[npt.NDArray[np.intp], int]:
    """The number of each image's group [N], and how many groups there are."""
    if groups is None:
        return np.arange(n), n
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise DataError(f"groups must name one group for each of the {n} images.")
    names, group_of = np.unique(labels, return_inverse=True)
    return group_of, len(names)


def _group_sums(values: Floats, group_of: npt.NDArray[np.intp]) -> Floats:
    """Sum [G] of the values [N] in each group."""
    return np.asarray(np.bincount(group_of, values), dtype=np.float64)


def _paired(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    first, second = _finite("a", a), _finite("b", b)
    if first.shape != second.shape or first.ndim != 1:
        raise DataError(
            "A paired comparison needs one value an image from both models, not shapes "
            f"{first.shape} and {second.shape}."
        )
    if not first.size:
        raise DataError("A paired comparison needs at least one image.")
    return np.asarray(first - second, dtype=np.float64)


def _finite(name: str, values: npt.ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < 1:
        raise DataError(f"{name} must hold one value an image, not a single number.")
    if not np.isfinite(array).all():
        raise DataError(
            f"{name} holds {int((~np.isfinite(array)).sum())} values that aren't finite."
        )
    return array


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise DataError(f"An interval's level lies between 0 and 1, for example 0.95; not {level}.")
