"""Whatever a file holds, it becomes upright RGB or one reason in words."""

from __future__ import annotations

import errno
import io
import pickle
import struct
import zlib

import pytest
from PIL import Image

from clipalign.datasets.images import UnreadableImage, read_image
from clipalign.errors import DataError

ORANGE = (250, 120, 10)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def near(pixel, expected, by=4):
    return all(abs(a - b) <= by for a, b in zip(pixel, expected, strict=True))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_usual_formats_read_as_rgb(form):
    image = read_image(encoded(Image.new("RGB", (9, 7), ORANGE), form))
    assert (image.mode, image.size) == ("RGB", (9, 7))
    assert near(image.getpixel((4, 3)), ORANGE)


def test_the_content_counts_and_not_the_ending(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(Image.new("RGB", (5, 5), ORANGE), "PNG"))
    assert read_image(tmp_path / "a.jpg").getpixel((0, 0)) == ORANGE


@pytest.mark.parametrize(
    ("orientation", "corner"),
    # where the picture's top left corner, the red one, was stored
    [(1, (0, 0)), (2, (3, 0)), (3, (3, 1)), (4, (0, 1)), (5, (0, 0)), (6, (0, 1)), (7, (3, 1)),
     (8, (3, 0))],
)  # fmt: skip
def test_exif_rotation_is_applied(orientation, corner):
    stored = Image.new("RGB", (4, 2), "white")
    stored.putpixel(corner, (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(encoded(stored, exif=exif))
    assert image.size == ((4, 2) if orientation < 5 else (2, 4))
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_damaged_exif_turns_nothing():
    image = Image.new("RGB", (4, 2), ORANGE)
    assert read_image(encoded(image, "JPEG", exif=b"Exif\0\0II*\0rubbish")).size == (4, 2)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    data = encoded(image, "GIF") if mode == "P" else encoded(image.convert(mode))
    read = read_image(data)
    assert read.getpixel((1, 1)) == (0, 0, 0)
    assert read.getpixel((6, 6)) == (255, 255, 255)


def test_half_transparency_is_half_white():
    assert near(read_image(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128)))).getpixel((0, 0)),
                (127, 127, 127), 1)  # fmt: skip


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for form in ("JPEG", "TIFF"):
        assert near(read_image(encoded(image, form)).getpixel((3, 3)), (255, 0, 0), 8)


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (257, 1), (32896, 128), (65535, 255)])
def test_16_bit_grey_keeps_its_range(value, grey):
    image = Image.new("I;16", (3, 3), value)
    for form in ("PNG", "TIFF"):
        assert read_image(encoded(image, form)).getpixel((1, 1)) == (grey, grey, grey)


def test_float_pixels_are_read_where_their_range_is_known():
    half = Image.new("F", (2, 2), 0.5)
    assert read_image(encoded(half, "TIFF")).getpixel((0, 0)) == (128, 128, 128)
    wide = Image.new("F", (2, 2), 70_000.0)
    with pytest.raises(DataError, match=r"pixel values from 70000\.0 to 70000\.0"):
        read_image(encoded(wide, "TIFF"))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_bilevel_grey_and_palette(mode):
    image = Image.new("RGB", (6, 6), "black")
    image.paste((255, 255, 255), (0, 0, 3, 6))
    read = read_image(encoded(image.convert(mode)))
    assert (read.getpixel((0, 0)), read.getpixel((5, 5))) == ((255, 255, 255), (0, 0, 0))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (ORANGE, (0, 0, 255))]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=50)
    assert near(read_image(data).getpixel((4, 4)), ORANGE, 12)


def test_one_pixel_is_an_image():
    assert read_image(encoded(Image.new("L", (1, 1), 7))).getpixel((0, 0)) == (7, 7, 7)


# --- What cannot be read ------------------------------------------------------------------------

NOISE = Image.effect_noise((64, 64), 90).convert("RGB")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"some text", "not an image, or of a format that Pillow does not read"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "an SVG drawing: convert it to PNG"),
        (b"<!DOCTYPE html><p>404</p>", "a web page and not an image"),
        (b"%PDF-1.7", "a PDF document"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (encoded(NOISE)[:2000], "damaged or truncated"),
        (encoded(NOISE, "JPEG")[:1000], "damaged or truncated"),
        (encoded(NOISE, "GIF")[:900], "damaged or truncated"),
    ],
    ids=["empty", "text", "svg", "html", "pdf", "lfs", "png", "jpeg", "gif"],
)
def test_each_failure_names_the_file_and_the_reason(tmp_path, data, reason):
    path = tmp_path / "cat.png"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("extra", [0, 1])
def test_a_file_that_is_too_large_is_refused(tmp_path, monkeypatch, extra):
    data = encoded(Image.new("RGB", (5, 5), ORANGE))
    (tmp_path / "a.png").write_bytes(data)
    monkeypatch.setattr("clipalign.datasets.images.MAX_BYTES", len(data) - extra)
    if extra:
        with pytest.raises(UnreadableImage, match="the file is larger than"):
            read_image(tmp_path / "a.png")
    else:
        assert read_image(tmp_path / "a.png").getpixel((0, 0)) == ORANGE


def test_what_has_no_end_is_not_read_to_the_limit():
    with pytest.raises(UnreadableImage, match="not an image"):
        read_image("/dev/zero")


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.png: no such file"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match="is a directory"):
        read_image(tmp_path)


def png_that_claims(width, height):
    """A few bytes that unfold into width × height pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 10_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


@pytest.mark.parametrize("size", [(30_000, 30_000), (9_500, 9_500), (2**31 - 1, 2**31 - 1)])
def test_bombs_and_absurd_dimensions_are_refused_unread(size, recwarn):
    with pytest.raises(DataError, match="pixels"):
        read_image(png_that_claims(*size))
    assert not recwarn.list


def test_a_jpeg_somewhat_too_large_is_read_at_half_its_size():
    data = encoded(Image.new("RGB", (300, 200), ORANGE), "JPEG")
    image = read_image(data, max_pixels=40_000)
    assert image.size == (150, 100)
    assert near(image.getpixel((75, 50)), ORANGE)
    with pytest.raises(DataError, match="300 × 200 pixels: more than 10,000"):
        read_image(data, max_pixels=10_000)
    with pytest.raises(DataError, match="300 × 200 pixels"):
        read_image(encoded(Image.new("RGB", (300, 200)), "PNG"), max_pixels=40_000)


def test_running_out_of_file_descriptors_is_not_the_files_fault(tmp_path, monkeypatch):
    def exhausted(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("builtins.open", exhausted)
    with pytest.raises(OSError, match="Too many open files") as caught:
        read_image(tmp_path / "a.png")
    assert not isinstance(caught.value, DataError)


def test_the_error_survives_the_way_back_from_a_worker():
    error = pickle.loads(pickle.dumps(UnreadableImage("a.png", "the file is empty")))
    assert (str(error), error.reason) == ("a.png: the file is empty.", "the file is empty")
