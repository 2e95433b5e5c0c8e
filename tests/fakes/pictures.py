"""Small image files of every odd kind, made by Pillow and by hand."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image


def pixels(seed: int = 0, width: int = 30, height: int = 20) -> Image.Image:
    """A smooth picture: survives JPEG almost unchanged, and differs from seed to seed."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [(x * 8 + seed * 7) % 200, (y * 9 + seed * 13) % 200, (x + y + seed * 29) % 200]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed: int = 0) -> bytes:
    """A plain JPEG photograph."""
    return encoded(pixels(seed), "JPEG", quality=95)


def lossless_jpeg(samples: np.ndarray) -> bytes:
    """A gray JPEG file of the lossless process (ITU-T T.81, annex H), which Pillow cannot write.

    A sample is predicted by the one on its left, the first of a row by the one above it. The nine
    sizes of differences have codes of four bits.
    """
    rows = samples.astype(int)
    before = np.hstack([np.vstack([[128], rows[:-1, :1]]), rows[:, :-1]])
    bits = []
    for off in (rows - before).ravel().tolist():
        size = abs(off).bit_length()
        low = off if off > 0 else off + (1 << size) - 1
        bits.append(f"{size:04b}" + (f"{low:0{size}b}" if size else ""))
    line = "".join(bits)
    line += "1" * (-len(line) % 8)
    scan = int(line, 2).to_bytes(len(line) // 8, "big").replace(b"\xff", b"\xff\x00")
    height, width = samples.shape
    frame = struct.pack(">HBHHBBBB", 11, 8, height, width, 1, 1, 0x11, 0)
    table = struct.pack(">HB", 28, 0) + bytes([0, 0, 0, 9, *[0] * 12]) + bytes(range(9))
    header = struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0)
    return (
        b"\xff\xd8\xff\xc3" + frame + b"\xff\xc4" + table + b"\xff\xda" + header + scan
        + b"\xff\xd9"
    )  # fmt: skip


def png(seed: int = 0) -> bytes:
    """A plain PNG picture."""
    return encoded(pixels(seed), "PNG")


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing: a decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def _flipped(data: bytes, start: int, length: int) -> bytes:
    return (
        data[:start]
        + bytes(255 - byte for byte in data[start : start + length])
        + (data[start + length :])
    )


def broken_files() -> dict[str, tuple[bytes, str]]:
    """Thirty files that are no good image: name -> (content, the status they should get)."""
    floats = Image.fromarray(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4))
    deep = Image.fromarray(np.full((4, 4), 2**20, np.int32))
    cut: dict[str, Callable[[], bytes]] = {
        "jpg": jpeg,
        "png": png,
        "gif": lambda: encoded(pixels(), "GIF"),
        "bmp": lambda: encoded(pixels(), "BMP"),
        "tif": lambda: encoded(pixels(), "TIFF"),
        "webp": lambda: encoded(pixels(), "WEBP", lossless=True),
        "ppm": lambda: encoded(pixels(), "PPM"),
        "jp2": lambda: encoded(pixels(), "JPEG2000"),
    }
    files = {
        f"half.{ending}": (make()[: len(make()) * 2 // 3], "decode_error")
        for ending, make in cut.items()
    }
    return files | {
        "empty.jpg": (b"", "empty_file"),
        "empty.png": (b"", "empty_file"),
        "one-byte.jpg": (b"\xff", "not_an_image"),
        "header-cut.jpg": (jpeg()[:3], "not_an_image"),
        "header-cut.png": (png()[:7], "not_an_image"),
        "text.jpg": (b"this is a text\n" * 100, "not_an_image"),
        "page.png": (b"<!DOCTYPE html><html><body>404</body></html>", "not_an_image"),
        "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not_an_image"),
        "document.pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "not_an_image"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
        "archive.jpg": (b"PK\x03\x04" + bytes(60), "not_an_image"),
        "zeros.jpg": (bytes(5000), "not_an_image"),
        "noise.png": (np.random.default_rng(0).bytes(3000), "not_an_image"),
        "notes.txt": (b"notes", "not_an_image"),
        "table.csv": (b"a,b\n1,2\n", "not_an_image"),
        "bomb.png": (png_header(60_000, 60_000), "too_many_pixels"),
        "wide-bomb.png": (png_header(2**31 - 1, 1), "too_many_pixels"),
        "small-bomb.png": (png_header(9_000, 9_000), "too_many_pixels"),
        "damaged.png": (_flipped(png(), 60, 20), "decode_error"),
        "no-data.png": (png_header(30, 20)[:45], "decode_error"),
        "floats.tif": (encoded(floats, "TIFF"), "unsupported_mode"),
        "deep.tif": (encoded(deep, "TIFF"), "unsupported_mode"),
    }
