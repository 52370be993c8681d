"""Makes image files that are damaged, enormous, odd, or no images."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from PIL import Image

FORMATS = {
    "jpg": ("JPEG", ("RGB", "L", "CMYK")),
    "png": ("PNG", ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    "webp": ("WEBP", ("RGB", "RGBA")),
    "gif": ("GIF", ("P", "L")),
    "tiff": ("TIFF", ("RGB", "CMYK", "L", "I;16", "F", "1")),
    "bmp": ("BMP", ("RGB", "L", "1")),
    "ppm": ("PPM", ("RGB", "L")),
}
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".bmp", ".ppm", ".avif")


@cache
def picture(ending: str, mode: str, side: int = 24) -> bytes:
    """A sound image file."""
    size = (side, max(1, side * 3 // 4))
    noise = random.Random(side).randbytes(size[0] * size[1] * 3)
    image = Image.frombytes("RGB", size, noise)
    if mode == "I;16":
        image = image.convert("L").convert("I").point(lambda v: v * 257).convert("I;16")
    else:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, FORMATS[ending][0])
    return buffer.getvalue()


def sound(rng: random.Random) -> tuple[bytes, str]:
    """A sound image of any format and mode, and its ending."""
    ending = rng.choice(list(FORMATS))
    return picture(ending, rng.choice(FORMATS[ending][1]), rng.choice((1, 2, 7, 24, 40))), ending


def damaged(rng: random.Random) -> tuple[bytes, str]:
    """A sound image, then something done to its bytes."""
    data, ending = sound(rng)
    return rng.choice(DAMAGES)(rng, data), ending


def cut(rng: random.Random, data: bytes) -> bytes:
    """Ends anywhere."""
    return data[: rng.randrange(len(data))]


def flipped(rng: random.Random, data: bytes) -> bytes:
    """One bit to twenty, mostly near the beginning."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        end = len(data) if rng.random() < 0.5 else min(len(data), 64)
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def numbers(rng: random.Random, data: bytes) -> bytes:
    """An extreme number of two or four bytes somewhere, as sizes and offsets are written."""
    width = rng.choice((2, 4))
    place = rng.randrange(max(1, min(len(data), 80) - width))
    wild = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"))
    return data[:place] + wild[:width] + data[place + width :]


def spliced(rng: random.Random, data: bytes) -> bytes:
    """A part again, gone, or in another place."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    middle = rng.choice((b"", data[a:b] * 2, data[a:b][::-1], sound(rng)[0], bytes(b - a)))
    return data[:a] + middle + data[b:]


DAMAGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    cut, cut, flipped, flipped, numbers, spliced,
)  # fmt: skip


def png(
    width: int, height: int, depth: int = 1, kind: int = 0, *, rows: int | None = None
) -> bytes:
    """A PNG of zeros that says any size; `rows` of it are there."""
    line = 1 + (width * depth * (3 if kind == 2 else 1) + 7) // 8
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(line)) for _ in range(height if rows is None else rows)]
    body = b"".join(parts) + packer.flush()

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def jpeg_claims(width: int, height: int) -> bytes:
    """A small JPEG whose header says another size."""
    data = bytearray(picture("jpg", "RGB"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def turned(orientation: int) -> bytes:
    """A JPEG with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "green").save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def animated(ending: str) -> bytes:
    """Frames of different colours, some of them of no length."""
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "green", "blue")]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, FORMATS.get(ending, (ending,))[0], save_all=True, append_images=frames[1:],
        duration=0,
    )  # fmt: skip
    return buffer.getvalue()


@cache
def bombs() -> dict[str, bytes]:
    """Small files of enormous images, or that say so."""
    gif = bytearray(picture("gif", "P"))
    gif[6:10] = b"\xff\xff\xff\xff"
    return {
        "30000x30000.png": png(30_000, 30_000),
        "30000x30000-rgb.png": png(30_000, 30_000, 8, 2, rows=100),
        "line.png": png(2**31 - 1, 1, rows=0),
        "wide.png": png(200_000, 2, 8, 2),
        "high.png": png(1, 60_000),
        "9000x9000.png": png(9_000, 9_000),
        "nothing.png": png(0, 0, rows=0),
        "claims.jpg": jpeg_claims(65_500, 65_500),
        "claims-some.jpg": jpeg_claims(12_000, 12_000),
        "empty.jpg": jpeg_claims(0, 0),
        "claims.gif": bytes(gif),
        "text.png": _with_text(),
    }


def _with_text() -> bytes:
    """A PNG with a compressed text of 64 MiB."""
    data = picture("png", "RGB")
    body = b"zTXt"[0:4] + b"k\0\0" + zlib.compress(bytes(1 << 26), 9)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


STRANGE: dict[str, bytes] = {
    "drawing.png": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg' "
    b"onload='alert(1)'><image href='file:///etc/passwd'/></svg>",
    "page.jpg": b"<!doctype html><script>alert(1)</script>",
    "empty.png": b"",
    "one.png": b"\x89",
    "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "script.gif": b"GIF89a=1;alert(1)//",
    "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    "zip.png": b"PK\x03\x04" + bytes(26),
    "pickle.png": b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.",
    "list.png": b"\xff" * 5000,
}


def odd_files(folder: Path, canary: Path, rng: random.Random) -> int:
    """Put what is no file, or has an odd name, into a class folder; how many there are."""
    data = picture("png", "RGB")
    names = [
        b"new\nline.png", b"esc\x1b]52;c;cm0=\x07.png", b"csi\x9b31m.png", b"not-utf8-\xff\xfe.png",
        "\u202egnp.evil.png".encode(), b"=cmd|' -C calc'!A0.png",
        b"<img src=x onerror=alert(1)>.png",
        b"a" * 250 + b".png", b" .png", b"-rf.png", b"~.png", b"%s%n.png",
        "zero\u200bwidth.png".encode(),
        b"$(touch pwned).png", b"tab\t.png", b"quote\"'.png", b"back\\slash.png",
    ]  # fmt: skip
    for name in names:
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(data)
    (folder / "folder.png").mkdir()  # empty, so it is no input
    os.mkfifo(folder / "pipe.png")
    (folder / "inside.png").symlink_to(folder / "-rf.png")
    (folder / "nowhere.png").symlink_to(folder / "none")
    (folder / "round.png").symlink_to("round.png")
    (folder / "out.png").symlink_to(canary / "secret.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "text.png").symlink_to(os.path.relpath(canary / "secret.txt", folder))
    forbidden = folder / "unreadable.png"
    forbidden.write_bytes(damaged(rng)[0])
    forbidden.chmod(0)
    return len(names) + 8
