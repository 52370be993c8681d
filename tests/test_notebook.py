"""What a notebook has in its memory goes in: functions, classes, images, models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import clipalign
from clipalign import plugins
from clipalign.errors import ConfigError, DataError, ModelError, PluginError, UsageError

TEXTS = ("an apple", "a pear")


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr(plugins, "_registered", {})


@pytest.fixture
def batch():
    policy = torch.randn(4, 3, dtype=torch.float64).log_softmax(1).requires_grad_()
    reference = torch.randn(4, 3, dtype=torch.float64).log_softmax(1)
    return clipalign.PolicyBatch(
        policy, reference, torch.tensor([0, 1, 2, 0]), torch.tensor([1] * 4)
    )


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(8)]


def margin(batch, beta: float = 1.0):
    """Raises the margin without end."""
    return -beta * (batch.log_ratio(batch.chosen) - batch.log_ratio(batch.rejected))


class Hinge(clipalign.Objective):
    requires = "pair"

    def forward(self, batch):
        return (1 + margin(batch)).clamp(min=0)


def judged(images):
    one, other = list(TEXTS) * 4, list(reversed(TEXTS)) * 4
    return clipalign.ImageList(images, columns={"chosen": one, "rejected": other})


def test_a_function_is_an_objective_whose_options_are_its_keywords(batch):
    clipalign.register("objective", "margin", margin)
    loss = clipalign.objective("margin", beta=0.5)
    assert torch.equal(loss(batch), margin(batch, 0.5))
    assert clipalign.objective([{"margin": {"weight": 2.0}}, "dpo"])(batch).shape == (4,)
    with pytest.raises(ConfigError, match=r"betta: unknown key\. Did you mean 'beta'"):
        clipalign.objective("margin", betta=1)
    with pytest.raises(ConfigError, match="beta: must be a number"):
        clipalign.objective("margin", beta="much")


def test_a_name_of_one_s_own_may_be_given_again_and_a_package_s_may_not(batch):
    clipalign.register("objectives", "mine", margin)
    clipalign.register("objectives", "mine", Hinge)
    assert type(clipalign.objective("mine")) is Hinge
    with pytest.raises(UsageError, match="'kto' belongs to clipalign"):
        clipalign.register("objective", "kto", Hinge)


@pytest.mark.parametrize(
    ("kind", "name", "target", "error"),
    [
        ("objetive", "mine", Hinge, UsageError),
        ("objective", "My Loss", Hinge, PluginError),
        ("objective", "mine", Hinge(), PluginError),
        ("objective", "mine", lambda batch, beta: batch, PluginError),
        ("objective", "mine", lambda: None, PluginError),
        ("dataset", "mine", [1, 2], PluginError),
        ("command", "mine", print, PluginError),
    ],
)
def test_what_cannot_be_registered_is_refused(kind, name, target, error):
    if isinstance(target, Hinge):
        target = target.options
    with pytest.raises(error):
        clipalign.register(kind, name, target)


def test_images_in_memory_are_a_dataset(images):
    white = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    data = clipalign.ImageList(
        [*images[:3], white], ["a", "b", "a", "b"], split=["train"] * 3 + ["test"]
    )
    assert (data.splits(), data.classnames) == (("train", "test"), ("a", "b"))
    (last,) = data.examples("test")
    assert data.image(last).mode == "RGB"
    assert data.image(last).getpixel((0, 0)) == (255, 255, 255)
    assert (
        data.fingerprint
        != clipalign.ImageList([*images[:3], white], ["a", "b", "a", "a"]).fingerprint
    )
    with pytest.raises(DataError, match=r"labels has 1 values for 8 images"):
        clipalign.ImageList(images, ["a"])
    with pytest.raises(DataError, match="no images"):
        clipalign.ImageList([])
    with pytest.raises(DataError, match=r"no split 'tset'\. Did you mean 'test'"):
        data.examples("tset")


def test_a_notebook_trains_on_its_images_with_its_loss(images, tmp_path, own_cache):
    clipalign.register("objective", "hinge-of-mine", Hinge)
    prefs = clipalign.prepare("preferences", judged(images), tmp_path / "prefs", splits="train")
    model = clipalign.load_model("emoji-tiny")
    start = clipalign.export(model, tmp_path / "start").model
    steps = {"steps": 2, "batch_size": 4}
    result = clipalign.train(
        method="hinge-of-mine", task="preferences", data=prefs, model=start, trainable="head",
        overrides="regulariser_weight=0.5", train=steps, output=tmp_path / "run",
    )  # fmt: skip
    assert result.steps == 2
    assert clipalign.load_model(start).sha256 == model.sha256
    photos = clipalign.ImageList(images, list(TEXTS) * 4)
    (measured,) = clipalign.evaluate(
        clipalign.load_model(result.run), suites="retention", splits="train", dataset=photos,
        against=model,
    )  # fmt: skip
    assert measured.metrics["accuracy"].n == 8
    search = clipalign.retrieve("an apple", model, dataset=photos, k=3)
    assert [len(found.examples) for found in search.found] == [3]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"method": Hinge}, r"method: must be a name: clipalign\.register"),
        ({"objective": Hinge()}, r"objective: must be a name: clipalign\.register"),
        ({"model": torch.nn.Identity()}, r"model: must be a model spec: .* clipalign\.export"),
        ({"dataset": object()}, r"dataset: must be a name or a path: .* data=clipalign\.prepare"),
    ],
)
def test_a_thing_in_place_of_a_name_is_told_how_it_gets_one(keys, words):
    with pytest.raises(ConfigError, match=words):
        clipalign.train(**keys)


@pytest.mark.parametrize("call", ["load_model", "evaluate", "export", "transform"])
def test_a_module_in_place_of_a_model_is_told_how_it_becomes_one(call):
    options = {"t": 0.5} if call == "transform" else {}
    with pytest.raises(ModelError, match=r"of type Identity.*\.rebuilt\("):
        getattr(clipalign, call)(torch.nn.Identity(), **options)


def test_a_model_that_was_changed_in_memory_is_measured_as_it_is(images, own_cache):
    model, photos = clipalign.load_model("emoji-tiny"), clipalign.ImageList(images, list(TEXTS) * 4)

    def distance():
        (measured,) = clipalign.evaluate(
            model, suites="retention", dataset=photos, against="emoji-tiny"
        )
        return measured.metrics["kl_to_reference"].value

    assert distance() == 0
    for parameter in model.clip.visual.parameters():
        parameter.data.mul_(1.05)
    assert distance() > 0.001
