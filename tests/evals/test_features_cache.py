"""Images are decoded once and encoded once, and what the cache holds is never believed blindly."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from clipalign.cache import cache_dir
from clipalign.errors import DataError, ModelError
from clipalign.evals.features import ImageSet, encode_images
from clipalign.models.feature_cache import (
    feature_path,
    read_features,
    text_features,
    write_features,
)
from clipalign.models.load import load_model
from clipalign.progress import Silent

SIDE = 48


class Album(ImageSet):
    """Ten images of one colour each, two views of every one, and a count of what was read."""

    def __init__(self, broken=(), shade=0, **identity):
        self.reads = []

        def read(item):
            self.reads.append(item)
            if item in broken:
                raise DataError(f"image {item} is truncated")
            colour = (20 * item, 0, shade)
            return [Image.new("RGB", (SIDE, SIDE), colour), Image.new("RGB", (SIDE, SIDE), "blue")]

        super().__init__({"data": "album", **identity}, [f"i{i}" for i in range(10)], 2, read)


def encode(models, album, **options):
    return encode_images(models, album, Silent(), **options)


def entries(root: Path) -> list[Path]:
    return sorted((root / "features").glob("*.safetensors"))


def test_the_cache_lies_where_the_environment_says(cache_root, monkeypatch):
    assert cache_dir("features") == cache_root / "features"
    monkeypatch.delenv("CLIPALIGN_CACHE")
    assert "clipalign" in cache_dir("features").parts
    assert not cache_root.exists()


def test_a_second_evaluation_encodes_nothing_and_reads_one_image(eyes):
    model, first, second = eyes("right"), Album(), Album()
    before = encode([model], first)
    assert model.encoded == 20
    assert sorted(first.reads) == [0, *range(10)]
    after = encode([model], second)
    assert model.encoded == 20
    assert second.reads == [0]
    assert torch.equal(before.features[0], after.features[0])
    assert before.features[0].shape == (10, 2, 4)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_the_batch_size_changes_no_feature(eyes, batch_size):
    features = encode([eyes("right")], Album(), batch_size=batch_size, use_cache=False).features
    assert torch.equal(features[0], encode([eyes("right")], Album()).features[0])


def test_two_models_that_resize_alike_share_each_decoded_image(eyes):
    models, album = [eyes("right"), eyes("left")], Album()
    encoded = encode(models, album)
    assert sorted(album.reads) == [0, *range(10)]
    assert [model.encoded for model in models] == [20, 20]
    assert len(encoded.features) == 2


def test_a_model_that_stands_against_itself_encodes_once(eyes):
    model = eyes("right")
    first, second = encode([model, model], Album()).features
    assert model.encoded == 20
    assert torch.equal(first, second)


def test_other_weights_pixels_or_data_are_other_entries(eyes, cache_root):
    for model, album in [
        (eyes("right"), Album()),
        (eyes("left"), Album()),
        (eyes("right"), Album(shade=1)),
        (eyes("right"), Album(seed=1)),
    ]:
        encode([model], album)
        assert model.encoded == 20
    assert len(entries(cache_root)) == 4


def test_other_architecture_preprocessing_precision_or_device_are_other_entries(eyes):
    model, paths = eyes("right"), set()
    paths.add(feature_path(model, "images", ["x"]))
    model.precision = "bf16"
    paths.add(feature_path(model, "images", ["x"]))
    model.config = {"model_cfg": {}, "preprocess_cfg": {"size": 32}}
    paths.add(feature_path(model, "images", ["x"]))
    model.config = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {"size": 32}}
    paths.add(feature_path(model, "images", ["x"]))
    model.device = torch.device("cuda")
    paths.add(feature_path(model, "images", ["x"]))
    assert len(paths) == 5


def test_another_activation_with_the_same_weights_is_encoded_anew(small_models, tmp_path):
    place = shutil.copytree(small_models[0], tmp_path / "model")
    given, expected = [], []
    for quick in (False, True):
        config = json.loads((place / "open_clip_config.json").read_text())
        config["model_cfg"]["quick_gelu"] = quick
        (place / "open_clip_config.json").write_text(json.dumps(config))
        model = load_model(f"local-dir:{place}")
        given.append((encode([model], Album()).features[0], text_features(model, ["a cat"])))
        expected.append(
            (
                encode([model], Album(), use_cache=False).features[0],
                text_features(model, ["a cat"], use_cache=False),
            )
        )
    assert not torch.equal(expected[0][0], expected[1][0])
    for kept, fresh in zip(given, expected, strict=True):
        assert torch.equal(kept[0], fresh[0])
        assert torch.equal(kept[1], fresh[1])


def test_another_tokeniser_of_the_same_model_is_noticed(eyes):
    model = eyes("right")
    text_features(model, ["a leaf"])
    model.tokenize = lambda texts, truncate: torch.tensor([[7]])
    model.encode_text = lambda texts: torch.ones(1, model.embed_dim)
    assert torch.equal(text_features(model, ["a leaf"]), torch.ones(1, model.embed_dim))


def test_texts_are_encoded_once_and_other_prompts_anew(eyes, cache_root):
    model = eyes("right")
    features = text_features(model, ["a leaf", "a stone"])
    model.encode_text = None
    assert torch.equal(text_features(model, ["a leaf", "a stone"]), features)
    with pytest.raises(TypeError):
        text_features(model, ["a stone", "a leaf"])
    assert len(entries(cache_root)) == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "foreign"])
def test_a_damaged_entry_is_noticed_and_made_again(eyes, cache_root, damage):
    model = eyes("right")
    good = encode([model], Album()).features[0].clone()
    (path,) = entries(cache_root)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    path.write_bytes(
        {"flip": bytes(flipped), "truncate": whole[:-9], "empty": b"", "foreign": b"{}"}[damage]
    )
    again = encode([model], Album()).features[0]
    assert model.encoded == 40
    assert torch.equal(good, again)
    assert path.read_bytes() == whole


def test_an_entry_of_another_shape_is_not_taken(tmp_path):
    path = tmp_path / "x.safetensors"
    write_features(path, torch.ones(3, 4))
    assert read_features(path, 3, 4) is not None
    assert read_features(path, 4, 3) is None
    assert read_features(tmp_path / "absent", 3, 4) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_entries_are_memory_mapped_and_the_file_keeps_its_bytes(tmp_path):
    path = tmp_path / "x.safetensors"
    write_features(path, torch.ones(3, 4))
    features = read_features(path, 3, 4)
    assert str(path) in Path("/proc/self/maps").read_text()
    features[0] = 7
    assert read_features(path, 3, 4)[0, 0] == 1


def test_an_image_that_cannot_be_read_is_told_apart_and_tried_again(eyes):
    model = eyes("right")
    encoded = encode([model], Album(broken={3, 4}))
    assert encoded.unreadable == {3: "image 3 is truncated", 4: "image 4 is truncated"}
    assert encoded.features[0][3:5].isnan().all()
    assert encoded.features[0][[0, 1, 2, 5, 6, 7, 8, 9]].isfinite().all()
    mended = Album(broken={4})
    encoded = encode([model], mended)
    assert sorted(mended.reads) == [0, 3, 4]
    assert encoded.unreadable == {4: "image 4 is truncated"}
    assert model.encoded == 18


def test_what_was_encoded_before_an_interruption_is_kept(eyes):
    model = eyes("right")
    whole = model.encode_image

    def stops(pixels):
        if model.encoded >= 8:
            raise KeyboardInterrupt
        return whole(pixels)

    model.encode_image = stops
    with pytest.raises(KeyboardInterrupt):
        encode([model], Album(), batch_size=4)
    model.encode_image = whole
    album = Album()
    encoded = encode([model], album, batch_size=4)
    assert model.encoded == 20
    assert sorted(album.reads) == [0, *range(4, 10)]
    assert encoded.features[0].isfinite().all()


def test_without_the_cache_nothing_is_written(eyes, cache_root):
    model = eyes("right")
    encode([model], Album(), use_cache=False)
    text_features(model, ["a leaf"], use_cache=False)
    assert not cache_root.exists()


def test_a_cache_that_cannot_be_written_costs_a_warning_and_no_number(eyes, cache_root, notes):
    cache_root.write_text("a file where the folder should be")
    encoded = encode_images([eyes("right")], Album(), notes)
    assert encoded.features[0].isfinite().all()
    assert "not kept" in notes.lines[-1]
    assert text_features(eyes("right"), ["a leaf"]).isfinite().all()


def test_a_model_that_gives_nan_is_refused_by_name(eyes):
    model = eyes("right")
    model.encode_image = lambda pixels: torch.full((len(pixels), 4), torch.nan)
    with pytest.raises(ModelError, match="right-100 gives features that are not finite"):
        encode([model], Album())
