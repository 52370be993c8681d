"""Pixels of the images of a split: in memory, in a temporary file, or decoded when needed."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from clipalign.training import streams
from clipalign.training.streams import StreamedPixels, decode_pixels

Decode = Callable[..., Any]


@pytest.fixture
def decode(tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decode:
    """Decodes eight pictures; temporary files lie in `tmp_path`."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    paths = [Path(str(shade)) for shade in range(0, 256, 32)]

    def read(path: Path) -> Image.Image:
        return Image.new("RGB", (32, 32), (int(path.name), 0, 0))

    preferences: Any = SimpleNamespace(read_image=read)
    size = tiny_model.image_size
    return lambda **more: decode_pixels(preferences, paths, tiny_model.preprocess, size, **more)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 4 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_does_not_fit_into_memory_lies_in_a_file_without_a_name(
    decode: Decode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = decode()
    assert expected[:, 0, 0, 0].tolist() == list(range(0, 256, 32))
    monkeypatch.setattr(streams, "MEMORY_LIMIT", 0)
    assert torch.equal(decode(), expected)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("full_disk")
def test_what_does_not_fit_on_the_disk_is_decoded_when_needed_and_that_is_said(
    decode: Decode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, said = decode(), list[str]()
    monkeypatch.setattr(streams, "MEMORY_LIMIT", 0)
    pixels = decode(note=said.append)
    assert isinstance(pixels, StreamedPixels)
    rows = torch.tensor([3, 0, 7])
    assert torch.equal(pixels[rows], expected[rows])
    assert len(said) == 1
    assert f"24 KiB, and {tmp_path} has no room" in said[0]
    assert not list(tmp_path.iterdir())


def test_every_image_of_a_step_is_decoded_once_in_however_many_pieces() -> None:
    decoded: list[int] = []

    def decode(i: int) -> torch.Tensor:
        decoded.append(i)
        return torch.full((3, 2, 2), i, dtype=torch.uint8)

    pixels = StreamedPixels(decode, (100, 3, 2, 2), threads=2)
    pieces = torch.arange(64).tensor_split(70)  # some of them are empty
    for piece in pieces:
        pixels.expect(piece)
    found = torch.cat([pixels[piece] for piece in pieces])
    assert torch.equal(found[:, 0, 0, 0], torch.arange(64, dtype=torch.uint8))
    assert len(decoded) == 64
