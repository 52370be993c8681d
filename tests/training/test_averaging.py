"""Weight averages, against the formulas written out."""

from __future__ import annotations

import pytest
import torch

from clipalign.errors import ConfigError
from clipalign.training.averaging import build_average


def trajectory(steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, dtype=torch.float64, generator=generator) for _ in range(steps + 1)]


@pytest.mark.parametrize("alpha", [0.5, 0.7, 1.0, 2.0])
def test_bma_is_the_beta_weighted_mean_of_the_whole_trajectory(alpha: float) -> None:
    thetas = trajectory(12)
    average = build_average("bma", {"alpha": alpha}, {"w": thetas[0]}, horizon=12)
    for theta in thetas[1:]:
        average.update({"w": theta})
    density = torch.distributions.Beta(
        torch.tensor(alpha, dtype=torch.float64), torch.tensor(alpha, dtype=torch.float64)
    )
    k = torch.arange(13, dtype=torch.float64)
    weights = density.log_prob((k + 0.5) / 13).exp()
    expected = (weights[:, None] * torch.stack(thetas)).sum(0) / weights.sum()
    torch.testing.assert_close(average.average()["w"], expected, rtol=1e-12, atol=1e-12)


def test_bma_with_alpha_one_is_the_plain_mean() -> None:
    thetas = trajectory(7)
    average = build_average("bma", {"alpha": 1.0}, {"w": thetas[0]}, horizon=7)
    for theta in thetas[1:]:
        average.update({"w": theta})
    torch.testing.assert_close(average.average()["w"], torch.stack(thetas).mean(0))


def test_bma_gives_both_ends_more_weight_than_the_middle() -> None:
    ends = []
    for place in (0, 5, 10):
        thetas = [torch.zeros(1, dtype=torch.float64) for _ in range(11)]
        thetas[place] = torch.ones(1, dtype=torch.float64)
        average = build_average("bma", {}, {"w": thetas[0]}, horizon=10)
        for theta in thetas[1:]:
            average.update({"w": theta})
        ends.append(float(average.average()["w"]))
    assert ends[0] == pytest.approx(ends[2])
    assert ends[1] < ends[0] / 1.5


def test_ema_follows_its_recursion() -> None:
    thetas = trajectory(5)
    average = build_average("ema", {"decay": 0.9}, {"w": thetas[0]}, horizon=5)
    mean = thetas[0]
    for theta in thetas[1:]:
        average.update({"w": theta})
        mean = 0.9 * mean + 0.1 * theta
    torch.testing.assert_close(average.average()["w"], mean)


def test_none_is_the_last_weights_and_copies_nothing_in_place() -> None:
    start = torch.zeros(2)
    average = build_average("none", {}, {"w": start}, horizon=3)
    average.update({"w": torch.ones(2)})
    assert torch.equal(average.average()["w"], torch.ones(2))
    assert torch.equal(start, torch.zeros(2))


@pytest.mark.parametrize("name", ["bma", "ema", "none"])
def test_a_restored_average_goes_on_bit_for_bit(name: str) -> None:
    thetas = trajectory(8)
    whole = build_average(name, {}, {"w": thetas[0]}, horizon=8)
    first = build_average(name, {}, {"w": thetas[0]}, horizon=8)
    for theta in thetas[1:5]:
        whole.update({"w": theta})
        first.update({"w": theta})
    tensors, plain = first.state()
    second = build_average(name, {}, {"w": thetas[0]}, horizon=8)
    second.restore({k: v.clone() for k, v in tensors.items()}, plain)
    for theta in thetas[5:]:
        whole.update({"w": theta})
        second.update({"w": theta})
    assert torch.equal(whole.average()["w"], second.average()["w"])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("bmw", {}, "Did you mean 'bma'"),
        ("bma", {"alfa": 1}, "alfa: unknown key. Did you mean 'alpha'"),
        ("ema", {"decay": 1.5}, "decay"),
        ("none", {"decay": 0.5}, "decay"),
    ],
)
def test_wrong_names_and_options_say_what_is_wrong(name: str, options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match="averaging") as caught:
        build_average(name, options, {"w": torch.zeros(1)}, horizon=3)
    assert words in str(caught.value)
