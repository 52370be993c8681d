"""A weighted sum of objectives: the sum of its terms, with the needs of all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clipalign.build import objective
from clipalign.errors import ClipAlignError, ConfigError, UsageError
from clipalign.objectives import Objective, PolicyBatch
from clipalign.objectives.weighted_sum import WeightedSum
from clipalign.testing import judged_batch
from clipalign.training.losses import needs_whole


def test_it_is_the_sum_of_its_terms() -> None:
    batch = judged_batch("pair")
    both = objective([{"dpo": {"weight": 0.7, "beta": 0.5}}, {"kto": {"weight": 0.3}}])
    expected = 0.7 * objective("dpo", beta=0.5)(batch) + 0.3 * objective("kto")(batch)
    torch.testing.assert_close(both(batch), expected)


def test_a_name_alone_weighs_1() -> None:
    batch = judged_batch("pair")
    torch.testing.assert_close(objective(["ipo"])(batch), objective("ipo")(batch))
    torch.testing.assert_close(objective([{"ipo": None}])(batch), objective("ipo")(batch))


@pytest.mark.parametrize(
    ("terms", "requires", "needs_reference"),
    [
        (["kto", "rlhf"], "any", True),
        (["kto", "cross-entropy"], "chosen", True),
        (["cross-entropy", "dpo"], "pair", True),
        (["cross-entropy"], "chosen", False),
    ],
)
def test_it_needs_what_any_term_needs(
    terms: list[str], requires: str, needs_reference: bool
) -> None:
    both = objective(terms)
    assert (both.requires, both.needs_reference) == (requires, needs_reference)
    assert both.per_image


class Counting(Objective):
    """Counts its steps: an objective with a state, whose images are not its own alone."""

    per_image = False

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, batch: PolicyBatch) -> torch.Tensor:
        if self.training:
            self.steps = self.steps + 1
        return batch.policy[:, 0]

    def initial_value(self, batch: PolicyBatch) -> None:
        return None


def test_its_state_is_that_of_its_terms() -> None:
    both = WeightedSum([(0.5, objective("dpo")), (2.0, Counting())])
    batch = judged_batch("pair")
    both(batch)
    both.eval()(batch)
    (value,) = both.state_dict().values()
    assert value == 1
    assert not both.per_image
    assert both.initial_value(batch) is None


class Remembering(Counting):
    """Has a state, though it sees an image at a time."""

    per_image = True


class Comparing(Objective):
    """Compares the images of a batch, and keeps nothing."""

    per_image = False


@pytest.mark.parametrize("term", [Remembering, Comparing])
def test_a_term_that_needs_the_whole_batch_makes_the_sum_need_it(term: type[Objective]) -> None:
    assert not needs_whole(WeightedSum([(1.0, objective("dpo")), (1.0, objective("kto"))]))
    assert needs_whole(WeightedSum([(1.0, objective("dpo")), (0.1, term())]))
    nested = WeightedSum([(1.0, WeightedSum([(1.0, term())]))])
    assert needs_whole(WeightedSum([(1.0, objective("dpo")), (1.0, nested)]))


@pytest.mark.parametrize(
    ("terms", "error", "words"),
    [
        (["dpo", {"ktoo": {}}], UsageError, r"objective\.1: There is no objective 'ktoo'.*'kto'"),
        ([{"dpo": {"betta": 1}}], ConfigError, r"objective\.0: .*'dpo'[^#]*betta: unknown key"),
        ([{"dpo": {"weight": 0}}], ConfigError, r"objective\.0: the weight of 'dpo' must be a pos"),
        ([{"dpo": {"weight": True}}], ConfigError, "must be a positive number"),
        ([{"dpo": {}, "kto": {}}], ConfigError, r"objective\.0: must be a name, or one name with"),
        ([{"dpo": 0.7}], ConfigError, r"objective\.0: the options of 'dpo' must be keys"),
        ([], UsageError, "list `objective` is empty"),
    ],
)
def test_an_error_names_its_entry(terms: Any, error: type[ClipAlignError], words: str) -> None:
    with pytest.raises(error, match=words):
        objective(terms)


def test_options_beside_a_list_are_refused() -> None:
    with pytest.raises(UsageError, match="holds its own options"):
        objective(["dpo"], beta=1.0)
