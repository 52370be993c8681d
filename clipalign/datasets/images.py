"""Read any image file as upright 8-bit RGB, or say in words why it cannot be read.

Whatever a file holds becomes what a model sees: EXIF rotation is applied, transparency is laid on
white, CMYK, palette, grey and 16-bit pixels are converted, and of an animation the first frame is
taken. Nothing is ever half-read: a truncated file is refused, not padded with grey.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import threading
import warnings
from collections.abc import Callable

from PIL import Image, UnidentifiedImageError

from clipalign.errors import DataError

__all__ = ["MAX_BYTES", "MAX_PIXELS", "UnreadableImage", "as_rgb", "read_image", "upright_rgb"]

MAX_PIXELS = 89_478_485
"""Largest image that is decoded whole: Pillow's own limit, 256 MiB of RGB."""
MAX_BYTES = 1 << 29

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # the machine's trouble, not the file's
_LOOKS_LIKE = (
    (b"version https://git-lfs", "a Git LFS pointer and not the image: run `git lfs pull`"),
    (b"<svg", "an SVG drawing: convert it to PNG"),
    (b"<!doctype html", "a web page and not an image"),
    (b"<html", "a web page and not an image"),
    (b"%pdf-", "a PDF document and not an image"),
)
_warnings_lock = threading.Lock()


class UnreadableImage(DataError):
    """An image that cannot be read.

    Attributes:
        name: the file.
        reason: what is wrong with it, without the file's name.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}.")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str, str]]:
        return type(self), (self.name, self.reason)


def read_image(
    source: str | os.PathLike[str] | bytes,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Read an image as upright 8-bit RGB.

    Args:
        source: a file, or its bytes.
        name: what errors call it; the path when left out.
        max_pixels: larger images are refused; a JPEG of up to twice as many is read at half its
            size.

    Raises:
        UnreadableImage: a DataError that names the file and the reason.
        OSError: the system is out of file descriptors or memory.
    """
    if isinstance(source, bytes):
        name, data = name or "image", source
    else:
        name = name or os.fspath(source)
        data = _read_bytes(os.fspath(source), name)
    if not data:
        raise UnreadableImage(name, "the file is empty")
    try:
        return _upright_rgb(_open(data, max_pixels))
    except MemoryError:
        raise
    except _Refused as error:
        raise UnreadableImage(name, str(error)) from None
    except Image.DecompressionBombError:
        raise UnreadableImage(name, f"more than {2 * MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise UnreadableImage(name, _looks_like(data)) from None
    except Exception as error:  # decoders of damaged files raise whatever they come across
        words = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(name, f"damaged or truncated ({words})") from None


def upright_rgb(image: Image.Image, *, name: str) -> Image.Image:
    """An image that is open already, as `read_image` gives those of files.

    Args:
        image: it is left as it is.
        name: what errors call it.

    Raises:
        UnreadableImage: it cannot be decoded.
    """
    return _made(_upright_rgb, image, name)


def as_rgb(image: Image.Image, *, name: str) -> Image.Image:
    """An image that is open and upright already, as 8-bit RGB: nothing is turned.

    Args:
        image: it is left as it is, and given back where it is RGB.
        name: what errors call it.

    Raises:
        UnreadableImage: it cannot be decoded.
    """
    return _made(_rgb, image, name)


def _made(make: Callable[[Image.Image], Image.Image], image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
        return make(image)
    except MemoryError:
        raise
    except Exception as error:  # a file that is damaged is decoded now
        words = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(name, words) from None


class _Refused(Exception):
    """A reason, in words."""


def _read_bytes(path: str, name: str) -> bytes:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(min(size, MAX_BYTES) + 1)  # a buffer of what is read, not of MAX_BYTES
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        raise UnreadableImage(name, (error.strerror or str(error)).lower()) from None
    if len(data) > MAX_BYTES:
        raise UnreadableImage(name, f"the file is larger than {MAX_BYTES >> 20} MiB")
    return data


def _open(data: bytes, max_pixels: int) -> Image.Image:
    # Pillow warns of what is refused below; its warning would come beside our message.
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data))
    width, height = image.size
    if width * height > max_pixels and image.format == "JPEG":
        image.draft("RGB", ((width + 1) // 2, (height + 1) // 2))
    if image.width * image.height > max_pixels:
        raise _Refused(f"{width} × {height} pixels: more than {max_pixels:,}")
    image.load()
    return image


def _upright_rgb(image: Image.Image) -> Image.Image:
    orientation = None
    with contextlib.suppress(Exception):  # damaged EXIF turns nothing
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    rgb = _rgb(image)
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        return _scaled(image.convert("I"), 65535)
    if image.mode == "F":
        return _scaled(image, 1.0 if image.getextrema()[1] <= 1 else 255.0)  # type: ignore[operator]
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled(image: Image.Image, white: float) -> Image.Image:
    """Grey of a wide range, 0 to `white`, as RGB."""
    low, high = image.getextrema()
    if not 0 <= low <= high <= white:  # type: ignore[operator]  # not so with NaN either
        raise _Refused(f"pixel values from {low} to {high}, which is no 8- or 16-bit range")
    return image.point(lambda value: value * (255 / white) + 0.5).convert("L").convert("RGB")


def _looks_like(data: bytes) -> str:
    head = data[:2048].lower()
    for mark, words in _LOOKS_LIKE:
        if mark in head:
            return words
    return "not an image, or of a format that Pillow does not read"
