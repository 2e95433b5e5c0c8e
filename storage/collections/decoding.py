"""Untrusted image bytes -> one RGB image, or one typed problem."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

Alpha: TypeAlias = Literal["white", "dropped"]
Orientation: TypeAlias = Literal["upright", "stored"]

MAX_PIXELS = 80_000_000
"""Default limit on width x height, from the header. Below Pillow's own limits (89 and 179 million),
which stay as they are."""
MAX_SCANS = 50
"""Limit on the scans of a JPEG file as large as the limit on pixels; smaller ones may have more in
proportion. A scan of ten bytes goes over all pixels; programs that write files make 25 or fewer."""
MAX_READS = 10_000
"""Limit on the pieces in which Pillow reads a header; 32 MiB of JPEG comments are 2,048. It joins
some of them one by one (EXIF of JPEG, comments of GIF), which takes the square of their number."""

# By content, never by file name. Formats that Pillow hands to other programs (EPS) are left out.
_FORMATS = (
    "JPEG", "MPO", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "JPEG2000", "ICO", "PPM",
)  # fmt: skip

# The errors that Pillow's many old plugins are known to raise on damaged files.
_DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = frozenset({5, 6, 7, 8})
"""The turns that make height of width."""
_ORIENTATION = 0x0112

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers that begin a frame; the three between them begin tables (ITU-T T.81, table B.1)."""
_DCT_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""Frames that libjpeg reads and that are coded in blocks of frequencies; 0xC3 is lossless."""
_BARE_MARKERS = frozenset({*range(0xC0), *range(0xD0, 0xDA)})
"""Markers without a length: stuffed bytes, reserved ones (which libjpeg passes over at a restart),
the restarts, and those at the beginning and the end of a stream. A stream of tables may go before
that of the frame."""
_END, _SCAN = 0xD9, 0xDA

Image.init()  # registers the codecs that this build of Pillow has


class ImageProblem(Exception):
    """These bytes give no image: a short `status` for the row, and a `reason` for people."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


@dataclass(frozen=True)
class ImageFacts:
    """Width and height in pixels after EXIF turning, and the format of the content."""

    width: int
    height: int
    format: str


def decode_image(
    data: bytes,
    max_pixels: int = MAX_PIXELS,
    *,
    alpha: Alpha = "white",
    orientation: Orientation = "upright",
    shortest: int | None = None,
) -> Image.Image:
    """Decode an image file to RGB.

    ===========================================  =============================================
    content                                      outcome
    ===========================================  =============================================
    no bytes                                     ImageProblem ``empty_file``
    no known image format, a header cut short,   ImageProblem ``not_an_image``
    formats that need other programs (EPS, SVG)
    header of more than `max_pixels`             ImageProblem ``too_many_pixels``, undecoded
    JPEG with scans beyond `MAX_SCANS`           ImageProblem ``too_many_scans``, undecoded
    truncated or damaged after the header, or    ImageProblem ``decode_error``
    with a header of more than `MAX_READS` parts
    float or 32-bit samples                      ImageProblem ``unsupported_mode``
    wrongly named file                           decoded: the content decides
    CMYK, YCbCr, LAB, gray, 1-bit                converted to RGB
    palette                                      RGB of its colours
    16 bits a sample                             the upper 8 bits, rounded (65535 -> 255)
    transparency (alpha, colour key, palette)    composited on white, or `alpha="dropped"`
    animated or of several pages                 the first frame
    JPEG and MPO with `shortest`                 at 1/2, 1/4 or 1/8 of its size: the smallest
                                                 whose shorter side is at least `shortest`;
                                                 lossless ones at their own size
    EXIF orientation                             turned upright (damaged EXIF is ignored), or
                                                 `orientation="stored"`
    1 x 1                                        a 1 x 1 image
    ===========================================  =============================================

    Args:
        data: the content of a file.
        max_pixels: limit on width x height; values above 179 million are capped by Pillow's own.
        alpha: `dropped` keeps the colours below transparent pixels, as Pillow's `convert("RGB")`,
            which the published programs call.
        orientation: `stored` leaves the picture as its pixels are stored, as those programs do.
        shortest: pixels that the shorter side of a JPEG keeps where it is decoded at a reduced
            size, from the low frequencies of its blocks (DCT scaling); None: its own size.

    Raises:
        ImageProblem: the bytes give no image, for one of the reasons above.
    """
    with _loaded(data, max_pixels, shortest) as (image, _):
        turn = _TURNS.get(_orientation(image)) if orientation == "upright" else None
        rgb = _to_rgb(image, alpha)
        return rgb if turn is None else rgb.transpose(turn)


def encode_png(image: Image.Image) -> bytes:
    """A picture's file, without loss."""
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def inspect_image(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Decode an image completely and return its facts.

    A JPEG file is decoded at the smallest size: all of its codes are read, which finds all damage,
    and few pixels are made, which takes half the time or less.

    Raises:
        ImageProblem: exactly where `decode_image` raises it.
    """
    with _loaded(data, max_pixels, shortest=1) as (image, (width, height)):
        if image.mode != "RGB" or image.has_transparency_data:
            _to_rgb(image, "white")  # which may raise; of other pictures it is a copy
        lies = _orientation(image) in _LYING
        return ImageFacts(*((height, width) if lies else (width, height)), image.format or "")


@contextlib.contextmanager
def _loaded(
    data: bytes, max_pixels: int, shortest: int | None = None
) -> Iterator[tuple[Image.Image, tuple[int, int]]]:
    """A file's first frame with its pixels, and its width and height in the file.

    What goes wrong until it is left is an ImageProblem.
    """
    if not data:
        raise ImageProblem("empty_file", "the file has no bytes")
    try:
        with _opened(data) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageProblem(
                    "too_many_pixels", f"{width} x {height} pixels; the limit is {max_pixels}"
                )
            if image.format in ("JPEG", "MPO"):
                most = max_pixels * MAX_SCANS
                if (scans := _scans(data, width * height, most)) * width * height > most:
                    raise ImageProblem(
                        "too_many_scans",
                        f"{scans} scans of {width} x {height} pixels; a picture of {max_pixels} "
                        f"may have {MAX_SCANS}, smaller ones more in proportion",
                    )
                if shortest and _is_of_frequencies(data):
                    image.draft(None, (shortest, shortest))
            image.load()
            yield image, (width, height)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageProblem("too_many_pixels", str(error)) from error
    except _DAMAGE as error:
        raise ImageProblem("decode_error", str(error) or type(error).__name__) from error


def _is_of_frequencies(data: bytes) -> bool:
    """Whether the frame of a JPEG file is coded in frequencies, so that it can be reduced.

    libjpeg ignores a reduced size for lossless frames, and Pillow 12.3 would let it write beyond
    the memory of the reduced picture.
    """
    return next((each for each in _markers(data) if each in _FRAMES), None) in _DCT_FRAMES


def _scans(data: bytes, pixels: int, most: int) -> int:
    """The scans of a JPEG file, which are counted one by one only where they could be too many."""
    scans = data.count(bytes([0xFF, _SCAN]))  # pictures within the file have some of their own
    if scans * pixels > most:
        scans = 0
        for marker in _markers(data):
            scans += marker == _SCAN
            if marker == _END and scans:
                break
    return scans


def _markers(data: bytes) -> Iterator[int]:
    """The markers of a JPEG file in their order, as libjpeg finds them."""
    at = data.find(0xFF, 2)
    while 0 <= at < len(data):
        marker = data[at]
        if marker == 0xFF:
            at += 1
            continue
        yield marker
        length = 0 if marker in _BARE_MARKERS else int.from_bytes(data[at + 1 : at + 3], "big")
        at = data.find(0xFF, at + 1 + length)


def _opened(data: bytes) -> Image.Image:
    file = _File(data)
    try:
        image = Image.open(file, formats=[f for f in _FORMATS if f in Image.OPEN])
    except UnidentifiedImageError as error:
        raise ImageProblem(
            "not_an_image", f"the content is none of {', '.join(_FORMATS)}"
        ) from error
    file.left = math.inf
    return image


class _File(io.BytesIO):
    """A file of which so many pieces may yet be read."""

    left: float = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise ImageProblem("decode_error", f"a header of more than {MAX_READS} pieces")
        return super().read(size)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _DAMAGE:
        return 1


def _to_rgb(image: Image.Image, alpha: Alpha) -> Image.Image:
    if image.mode == "F":
        raise ImageProblem("unsupported_mode", "float samples have no defined white")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_16_bits(image)
    if alpha == "white" and image.has_transparency_data:
        colours = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, colours).convert("RGB")
    # convert() of an RGB image is a copy: the result must not depend on the open file
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    samples = np.asarray(image).astype(np.int64)
    if samples.min() < 0 or samples.max() > 65535:
        raise ImageProblem("unsupported_mode", "32-bit samples beyond 16 bits")
    return Image.fromarray(((samples + 128) // 257).astype(np.uint8))
