"""A search: what it brings up is what the features say, and the picture shows all of it."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from clipalign.cli.app import run
from clipalign.errors import DataError, UsageError
from clipalign.evals.retrieve import retrieve
from clipalign.models.load import load_model
from clipalign.reports.retrieval_picture import retrieval_picture, write_retrieval_picture

QUERY = "a photo of something."
HUES = {"cherry": (200, 20, 20), "leaf": (20, 180, 20), "ocean": (20, 20, 200)}


@pytest.fixture
def gallery(tmp_path):
    """A table of nine plain images, some of a woman and some of a man, as its column says."""
    folder = tmp_path / "photos"
    folder.mkdir()
    with open(folder / "index.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "label", "gender", "split"])
        for name, (r, g, b) in HUES.items():
            for shade in range(3):
                Image.new("RGB", (40, 40), (r, g, b + 18 * shade)).save(
                    folder / f"{name}{shade}.png"
                )
                rows.writerow([f"{name}{shade}.png", name, ("woman", "man", "")[shade], "test"])
    return folder / "index.csv"


@pytest.fixture
def models(small_models):
    return [f"local-dir:{path}" for path in small_models]


def test_what_is_brought_up_is_what_is_most_similar(gallery, models):
    found = retrieve(QUERY, models, dataset=gallery, k=4)
    assert (found.gallery, found.split, found.column) == (9, "test", "gender")
    assert found.values == {"man": 3, "unknown": 3, "woman": 3}
    for spec, row in zip(models, found.found, strict=True):
        model = load_model(spec)
        examples = found.dataset.examples("test")
        pixels = [model.preprocess.resize_to_uint8(found.dataset.image(e)) for e in examples]
        images = np.stack([model.encode_image(p[None])[0].detach().numpy() for p in pixels])
        expected = images @ model.encode_text([QUERY])[0].detach().numpy()
        order = np.argsort(-expected, kind="stable")[:4]
        assert [e.key for e in row.examples] == [examples[i].key for i in order]
        assert row.similarity == pytest.approx(expected[order], abs=1e-5)
        assert sum(row.counts.values()) == 4
        assert row.values == [examples[i].attributes.get("gender") or "unknown" for i in order]
    assert found.found[0].similarity != found.found[1].similarity


def test_any_column_is_counted_and_k_is_at_most_the_gallery(gallery, models):
    found = retrieve(QUERY, models[:1], dataset=gallery, k=50, column="label")
    assert len(found.found[0].examples) == 9
    assert found.found[0].counts == {"cherry": 3, "leaf": 3, "ocean": 3}
    document = json.loads(json.dumps(found.document()))
    assert document["found"][0]["counts"] == {"cherry": 3, "leaf": 3, "ocean": 3}
    assert len(document["found"][0]["images"]) == 9


def test_an_image_that_cannot_be_read_is_left_out(gallery, models):
    (gallery.parent / "leaf0.png").write_bytes(b"not an image")
    assert retrieve(QUERY, models[:1], dataset=gallery, k=50).gallery == 8
    for path in gallery.parent.glob("*.png"):
        path.write_bytes(b"not an image")
    with pytest.raises(DataError, match="None of the 9 images can be used"):
        retrieve(QUERY, models[:1], dataset=gallery)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": "  "}, "The query is empty"),
        ({"models": []}, "No model"),
        ({"split": "tset"}, "no split 'tset'. Did you mean 'test'"),
        ({"column": "gendre"}, "no column 'gendre'. Did you mean 'gender'"),
    ],
)
def test_what_cannot_be_searched_is_said(gallery, models, change, message):
    with pytest.raises(UsageError, match=message):
        retrieve(**{"query": QUERY, "models": models, "dataset": gallery} | change)


def test_the_picture_frames_every_image_and_divides_the_bar(gallery, models, tmp_path):
    found = retrieve(QUERY, models, dataset=gallery, k=5)
    picture = np.asarray(retrieval_picture(found, ["before", "after"]))
    colours = {"man": (0xD5, 0x5E, 0x00), "unknown": (0x00, 0x72, 0xB2), "woman": (0, 0x9E, 0x73)}
    for i, row in enumerate(found.found):
        top = 104 + i * (34 + 112 + 12 + 10 + 34) + 34
        for j, value in enumerate(row.values):
            assert tuple(picture[top + 1, 28 + j * 124 + 50]) == colours[value]
        bar = picture[top + 112 + 12 + 5, 28 : 28 + 5 * 124 - 12]
        for value, n in row.counts.items():
            share = (bar == colours[value]).all(axis=1).mean()
            assert share == pytest.approx(n / 5, abs=0.01)
    write_retrieval_picture(found, tmp_path / "search.png")
    with Image.open(tmp_path / "search.png") as image:
        assert image.size == (picture.shape[1], picture.shape[0])


def test_the_command_prints_counts_and_makes_the_picture(gallery, models, command, tmp_path):
    done = command(
        "retrieve", QUERY, *models, "--dataset", str(gallery), "--top", "3",
        env={"CLIPALIGN_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Top 3 of 9 images for 'a photo of something.', by gender:")
    assert "MODEL" in done.stdout
    assert "Picture: retrieve-a-photo-of-something.png" in done.stdout
    assert (tmp_path / "retrieve-a-photo-of-something.png").read_bytes().startswith(b"\x89PNG")


def test_counts_of_many_values_are_told_from_the_values(gallery, models, capsys, monkeypatch):
    monkeypatch.chdir(gallery.parent)
    header, *rows = gallery.read_text().splitlines()
    rows = [f"{row},{20 + i}" for i, row in enumerate(rows)]
    gallery.write_text("\n".join([f"{header},age", *rows]) + "\n")
    search = ["retrieve", QUERY, models[0], "--dataset", str(gallery), "--column", "age"]
    assert run([*search, "--top", "2"]) == 0
    assert re.search(r" 1 × 2\d, 1 × 2\d$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize("flags", [["--dataset-set", "root={}"], ["--set", "dataset.root={}"]])
def test_the_command_takes_options_of_its_dataset(flags, gallery, models, capsys, monkeypatch):
    table = gallery.rename(gallery.parent.parent / "index.csv")
    monkeypatch.chdir(table.parent)
    search = ["retrieve", QUERY, models[0], "--dataset", "index.csv", "--json"]
    assert run(search) == 5
    assert (
        f"`{flags[0]} {flags[1]}`".format("FOLDER")
        in json.loads(capsys.readouterr().out)["error"]["message"]
    )
    assert run([*search, *(flag.format("photos") for flag in flags)]) == 0
    assert json.loads(capsys.readouterr().out)["split"] == "test"
    assert run([*search, "--set", "root=photos"]) == 2
    assert "must be dataset.KEY=VALUE" in capsys.readouterr().out
