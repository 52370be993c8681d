"""The suite `reading`: does a model read the word or see the object, and how a map turns it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clipalign.errors import DataError
from clipalign.evals.base import EvalContext
from clipalign.evals.reading import ReadingSuite, reading_outcomes
from clipalign.models.linear_map import LinearMap


def context_of(model, dataset, reference=None) -> EvalContext:
    return EvalContext(model, reference, dataset, "test", use_cache=False)


class TestTheSuite:
    def test_who_reads_and_who_looks(self, shapes, eyes, painted_words):
        result, rows = ReadingSuite(resamples=100, styles=["note"]).run(
            context_of(eyes("left"), shapes(), eyes("right"))
        )
        numbers = {name: metric.value for name, metric in result.metrics.items()}
        assert numbers == {"od": 0, "ocr": 1, "od_two_way": 0, "ocr_two_way": 1}
        differences = {c.metric: c.difference for c in result.comparisons}
        assert differences == {"od": -1, "ocr": 1, "od_two_way": -1, "ocr_two_way": 1}
        # one attacked picture of each of 24; the clean ones are no part of it
        assert result.dataset.n == result.metrics["od"].n == 24
        assert [row["style"] for row in rows] == ["note"] * 24

    def test_photographs_are_taken_as_they_are(self, shapes, eyes):
        data = shapes(words={"leaf-0-0": "ocean", "leaf-0-1": "leaf"})
        result, rows = ReadingSuite(resamples=100).run(context_of(eyes("right"), data))
        # what says what it shows misleads nobody
        assert [row["key"] for row in rows] == ["leaf-0-0"]
        assert result.metrics["od"].value == 1

    def test_nothing_wrong_is_written(self, shapes, eyes):
        with pytest.raises(DataError, match="has a wrong word on it"):
            ReadingSuite().run(context_of(eyes("right"), shapes(words={"leaf-0-0": "leaf"})))


class TestTheCurve:
    """The plane of seeing × reading, by two objects: d = 4.

    Every image shows one object a little more dimly than it says the other. A map that stretches
    what is seen and shrinks what is read by e^{±1} turns reading into seeing as t grows.
    """

    see, read = 0.8, 1.0
    turn = LinearMap(torch.diag(torch.tensor([1.0, 1.0, -1.0, -1.0]).exp()))
    texts = F.normalize(torch.tensor([[1.0, 0, 1, 0], [0, 1.0, 0, 1]]), dim=1)

    @property
    def images(self):
        # image 0 shows object 0 and says 1; image 1 the other way round
        rows = [[self.see, 0, 0, self.read], [0, self.see, self.read, 0]]
        return F.normalize(torch.tensor(rows), dim=1)

    def curve(self, ts, linear=None, written=(1, 0)):
        found = reading_outcomes(
            self.images, self.texts, linear or self.turn, ts, true=[0, 1], written=written
        )
        return [{name: each.mean() for name, each in at.items()} for at in found]

    def test_seeing_wins_where_the_map_makes_it_stronger(self):
        # the object's text scores see·e^{2t} and the written one's read·e^{−2t}: even at
        # t = ln(read/see)/4
        even = math.log(self.read / self.see) / 4
        before, after = self.curve([even - 0.01, even + 0.01])
        assert before == {"od": 0, "ocr": 1, "od_two_way": 0, "ocr_two_way": 1}
        assert after == {"od": 1, "ocr": 0, "od_two_way": 1, "ocr_two_way": 0}

    def test_t_0_is_the_model_without_the_map_and_t_1_with_it(self):
        torch.manual_seed(0)
        images, texts = (F.normalize(torch.randn(n, 6), dim=1) for n in (40, 5))
        linear = LinearMap(torch.eye(6) + 0.5 * torch.randn(6, 6))
        true, written = np.arange(40) % 5, (np.arange(40) + 1) % 5
        at_0, at_1 = reading_outcomes(images, texts, linear, [0, 1], true=true, written=written)
        for point, (i, t) in (
            (at_0, (images, texts)),
            (at_1, (linear(images), linear(texts))),
        ):
            predicted = (i @ t.T).argmax(dim=1).numpy()
            assert (point["od"] == (predicted == true)).all()
            assert (point["ocr"] == (predicted == written)).all()

    def test_a_hundred_powers_use_one_decomposition(self, monkeypatch):
        calls = []
        svd = torch.linalg.svd
        monkeypatch.setattr(torch.linalg, "svd", lambda x: calls.append(1) or svd(x))
        linear = LinearMap(torch.diag(torch.tensor([2.0, 2.0, 0.5, 0.5])))
        assert len(self.curve(np.linspace(-1, 1, 100), linear)) == 100
        assert len(calls) == 1

    def test_images_without_a_wrong_word_are_refused(self):
        with pytest.raises(DataError, match="wrong word"):
            self.curve([0], written=[-1, 0])
