import io
import random
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from storage.collections.decoding import (
    MAX_PIXELS,
    MAX_READS,
    MAX_SCANS,
    ImageFacts,
    ImageProblem,
    decode_image,
    inspect_image,
)
from tests.fakes.pictures import (
    broken_files,
    encoded,
    jpeg,
    lossless_jpeg,
    pixels,
    png,
    png_header,
)

RED_GREEN = np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)


def decoded(data: bytes) -> np.ndarray:
    image = decode_image(data)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_pixels_back(kind: str) -> None:
    np.testing.assert_array_equal(decoded(encoded(pixels(), kind)), np.asarray(pixels()))
    facts = inspect_image(encoded(pixels(), kind))
    assert (facts.width, facts.height, facts.format) == (30, 20, kind)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000", "AVIF"])
def test_lossy_formats_give_nearly_the_pixels_back(kind: str) -> None:
    smooth = np.tile(np.arange(0, 192, 3, dtype=np.uint8), (64, 1))
    data = encoded(Image.fromarray(np.stack([smooth, smooth.T, smooth], axis=-1)), kind)
    error = decoded(data).astype(int) - np.stack([smooth, smooth.T, smooth], axis=-1)
    assert np.abs(error).mean() < 3


def test_cmyk_is_converted() -> None:
    # By hand: full cyan and no black is (0, 255, 255); no ink at all is white.
    inks = np.array([[[255, 0, 0, 0]] * 16 + [[0, 0, 0, 0]] * 16] * 16, np.uint8)
    picture = decoded(encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100))
    np.testing.assert_allclose(picture[8, 4], [0, 255, 255], atol=4)
    np.testing.assert_allclose(picture[8, 28], [255, 255, 255], atol=4)


def test_palettes_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(decoded(encoded(image, "PNG")), [[[10, 20, 30], [200, 100, 50]]])
    np.testing.assert_array_equal(
        decoded(encoded(image, "GIF", transparency=1)), [[[10, 20, 30], [255, 255, 255]]]
    )


def test_gray_and_one_bit() -> None:
    gray = Image.fromarray(np.array([[0, 77, 255]], np.uint8))
    np.testing.assert_array_equal(decoded(encoded(gray, "PNG"))[..., 1], [[0, 77, 255]])
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    np.testing.assert_array_equal(decoded(encoded(bits, "PNG"))[..., 2], [[0, 255]])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_cut(kind: str) -> None:
    deep = Image.fromarray(np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16))
    by_hand = [0, 0, 1, 1, 128, 255]  # round(value / 257)
    np.testing.assert_array_equal(decoded(encoded(deep, kind))[0, :, 0], by_hand)


def test_transparency_is_composited_on_white() -> None:
    picture = np.array([[[0, 0, 0, 0], [255, 0, 0, 255], [0, 0, 0, 51]]], np.uint8)
    expected = [[[255, 255, 255], [255, 0, 0], [204, 204, 204]]]  # 255 * (1 - 51 / 255) = 204
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        data = encoded(Image.fromarray(picture, "RGBA"), kind, **options)
        np.testing.assert_array_equal(decoded(data), expected)
    gray = Image.fromarray(np.array([[[0, 0], [9, 255]]], np.uint8), "LA")
    np.testing.assert_array_equal(decoded(encoded(gray, "PNG"))[0, :, 0], [255, 9])


def test_transparency_can_be_dropped_as_pillow_does() -> None:
    """`convert("RGB")`, which published programs call: the colours below stay."""
    colours = np.array([[[9, 8, 7, 0], [255, 0, 0, 255], [40, 50, 60, 51]]], np.uint8)
    data = encoded(Image.fromarray(colours, "RGBA"), "PNG")
    np.testing.assert_array_equal(decode_image(data, alpha="dropped"), colours[..., :3])
    key = encoded(Image.fromarray(RED_GREEN), "PNG", transparency=(255, 0, 0))
    np.testing.assert_array_equal(decode_image(key, alpha="dropped"), RED_GREEN)


def test_a_colour_key_is_transparency() -> None:
    data = encoded(Image.fromarray(RED_GREEN), "PNG", transparency=(255, 0, 0))
    np.testing.assert_array_equal(decoded(data), [[[255, 255, 255], [0, 255, 0]]])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_many_frames_the_first(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    np.testing.assert_array_equal(decoded(data), np.full((4, 4, 3), [255, 0, 0]))


# Where the pixels of [[1 2 3], [4 5 6]] are once turned upright, by the EXIF standard.
UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
    0: [[1, 2, 3], [4, 5, 6]],
    99: [[1, 2, 3], [4, 5, 6]],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_turns_the_picture_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    data = encoded(stored, "PNG", exif=exif)
    np.testing.assert_array_equal(decoded(data)[..., 0], UPRIGHT[orientation])
    facts = inspect_image(data)
    assert (facts.height, facts.width) == np.shape(UPRIGHT[orientation])
    as_stored = np.asarray(decode_image(data, orientation="stored"))
    np.testing.assert_array_equal(as_stored[..., 0], UPRIGHT[1])


def test_damaged_exif_is_ignored() -> None:
    data = encoded(pixels(), "PNG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xffnonsense")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(decoded(data), np.asarray(pixels()))


def test_one_pixel_is_an_image() -> None:
    np.testing.assert_array_equal(
        decoded(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")), [[[1, 2, 3]]]
    )


@pytest.mark.parametrize("name", broken_files())
def test_broken_files_have_their_status(name: str) -> None:
    data, status = broken_files()[name]
    for use in (decode_image, inspect_image):
        with pytest.raises(ImageProblem) as problem:
            use(data)
        assert problem.value.status == status
        assert problem.value.reason


def test_there_are_thirty_broken_files() -> None:
    assert len(broken_files()) == 30


def test_a_bomb_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(self: ImageFile.ImageFile) -> None:
        raise AssertionError("the pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    for width, height in ((9_000, 9_000), (60_000, 60_000)):
        with pytest.raises(ImageProblem, match="too_many_pixels"):
            decode_image(png_header(width, height))


def test_the_limit_on_pixels_is_exact_and_the_callers() -> None:
    assert decode_image(png(), max_pixels=600).size == (30, 20)
    with pytest.raises(ImageProblem, match="30 x 20 pixels; the limit is 599"):
        decode_image(png(), max_pixels=599)


def test_pillow_is_left_as_it_was() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    for data, _ in broken_files().values():
        with pytest.raises(ImageProblem):
            decode_image(data)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    assert before[0] is not None
    assert before[0] > MAX_PIXELS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "ICO", "PPM", "AVIF"]
)
def test_random_damage_gives_an_image_or_a_typed_problem(kind: str) -> None:
    chance = random.Random(kind)
    good = encoded(pixels(), kind)
    outcomes = set()
    for _ in range(150):
        data = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(min(len(data), chance.choice([40, len(data)])))] ^= (
                chance.randrange(1, 256)
            )
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        try:
            outcomes.add(decode_image(bytes(data)).mode)
        except ImageProblem as problem:
            outcomes.add(problem.status)
    assert len(outcomes) > 1


def test_decoding_is_repeatable_across_threads() -> None:
    files = [jpeg(seed) for seed in range(8)] * 4
    with ThreadPoolExecutor(4) as pool:
        threaded = [image.tobytes() for image in pool.map(decode_image, files)]
    assert threaded == [decode_image(data).tobytes() for data in files]


@pytest.mark.parametrize(
    ("shortest", "size"),
    [
        (None, (800, 640)),
        (641, (800, 640)),  # never larger than the file
        (321, (800, 640)),  # a half would be 320
        (320, (400, 320)),
        (161, (400, 320)),
        (160, (200, 160)),
        (81, (200, 160)),
        (80, (100, 80)),
        (1, (100, 80)),  # an eighth is the least
    ],
)
def test_a_jpeg_is_decoded_no_smaller_than_asked(
    shortest: int | None, size: tuple[int, int]
) -> None:
    data = encoded(pixels(1, 800, 640), "JPEG", quality=95)
    assert decode_image(data, shortest=shortest).size == size


def test_a_reduced_jpeg_shows_the_means_of_its_blocks() -> None:
    y, x = np.mgrid[0:256, 0:320]
    smooth = np.stack([x * 200 // 320, y * 200 // 256, (x + y) * 200 // 576], -1).astype(np.uint8)
    data = encoded(Image.fromarray(smooth), "JPEG", quality=98, subsampling=0)
    means = smooth.reshape(32, 8, 40, 8, 3).mean(axis=(1, 3))
    reduced = np.asarray(decode_image(data, shortest=32)).astype(float)
    assert np.abs(reduced - means).max() <= 2


def test_a_reduced_jpeg_is_turned_and_converted_as_a_whole_one() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(pixels(2, 640, 320), "JPEG", exif=exif)
    assert decode_image(turned, shortest=100).size == (160, 320)  # a third is not offered
    inks = Image.fromarray(np.full((64, 64, 4), (255, 0, 0, 0), np.uint8), "CMYK")
    data = encoded(inks, "JPEG", quality=100)
    np.testing.assert_allclose(decode_image(data, shortest=8).getpixel((4, 4)), [0, 255, 255], 4)


def test_other_formats_are_whole_and_damage_is_found_at_any_size() -> None:
    for kind in ("PNG", "WEBP", "TIFF", "JPEG2000"):
        assert decode_image(encoded(pixels(1, 80, 64), kind), shortest=8).size == (80, 64)
    whole = encoded(pixels(1, 800, 640), "JPEG")
    for data in (whole[: len(whole) // 2], b"", b"no image", whole[:100]):
        problems = []
        for shortest in (None, 8):
            with pytest.raises(ImageProblem) as problem:
                decode_image(data, shortest=shortest)
            problems.append(problem.value.status)
        assert problems[0] == problems[1]
    with pytest.raises(ImageProblem, match="too_many_pixels"):
        decode_image(whole, max_pixels=800 * 640 - 1, shortest=8)


@pytest.mark.parametrize("size", [(16, 16), (11, 37), (75, 100)])
def test_a_lossless_jpeg_is_never_reduced(size: tuple[int, int]) -> None:
    gray = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    data = lossless_jpeg(gray)
    commented = data[:2] + b"\xff\xe0\x00\x06\xff\xc0ab" + data[2:]  # a mark in a comment
    tables_before = b"\xff\xd8\xff\xd9" + data + bytes(2**16) + b"\xff\xc0"  # and after the end
    for file in (data, commented, tables_before):
        for shortest in (None, 1, 8):
            whole = np.asarray(decode_image(file, shortest=shortest))
            np.testing.assert_array_equal(whole, np.stack([gray] * 3, axis=-1))
        assert (inspect_image(file).height, inspect_image(file).width) == size


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 0},
        {"subsampling": 2, "restart_marker_rows": 1},
        {"progressive": True, "quality": 60},
        {"progressive": True, "restart_marker_blocks": 3},
    ],
    ids=str,
)
def test_an_inspection_finds_the_damage_that_decoding_finds(
    mode: str, options: dict[str, Any]
) -> None:
    # Pictures of noise: much of a file is codes of pixels, where damage is hard to find.
    chance, noise = random.Random(f"{mode}{options}"), np.random.default_rng(0)
    channels = len(mode)
    samples = noise.integers(0, 256, (41, 67, channels), dtype=np.uint8).squeeze()
    good = encoded(Image.fromarray(samples, mode), "JPEG", **options)
    outcomes = Counter[str]()
    for _ in range(250):
        data = bytearray(good)
        at = chance.randrange(len(data))
        change = chance.randrange(4)
        if change == 0:
            del data[at:]
        elif change == 1:
            del data[at : at + chance.randint(1, 40)]
        elif change == 2:
            data[at : at + 2] = bytes([0xFF, chance.choice([0xC0, 0xC3, 0xD0, 0xD9, 0xDA])])
        else:
            data[at] ^= 1 << chance.randrange(8)
        said = [outcome(look, bytes(data)) for look in (decode_image, inspect_image)]
        assert said[0] == said[1]
        outcomes[said[0].partition(":")[0]] += 1
    assert min(outcomes["decoded"], outcomes["decode_error"]) > 25


@pytest.mark.parametrize("look", [decode_image, inspect_image])
def test_a_jpeg_of_many_scans_is_refused_undecoded(
    look: Callable[[bytes, int], Image.Image | ImageFacts],
) -> None:
    good = encoded(pixels(0).convert("L"), "JPEG", progressive=True)
    has, scan = good.count(b"\xff\xda"), good[good.rindex(b"\xff\xda") :][:10]
    area = inspect_image(good).width * inspect_image(good).height

    def of_scans(count: int, before: bytes = b"") -> bytes:
        return good[:-2] + before + scan * (count - has) + good[-2:]

    assert look(of_scans(MAX_SCANS), area)
    assert look(of_scans(2 * MAX_SCANS), 2 * area)  # half as large, twice the scans
    for before in (b"", b"\xff\x02\xff\xff"):  # a reserved marker hides none
        with pytest.raises(ImageProblem, match=f"too_many_scans: {MAX_SCANS + 1} scans"):
            look(of_scans(MAX_SCANS + 1, before), area)
    others = scan * MAX_SCANS
    comment = b"\xff\xfe" + (len(others) + 2).to_bytes(2, "big") + others
    assert look(good[:2] + comment + good[2:] + others, area)  # scans of pictures beside this one


@pytest.mark.parametrize("look", [decode_image, inspect_image])
def test_a_header_of_endless_pieces_is_refused(
    look: Callable[[bytes], Image.Image | ImageFacts],
) -> None:
    jpeg_file, gif_file = jpeg(), encoded(pixels(0).convert("P"), "GIF")
    at = gif_file.index(b"\x2c")  # where its frame begins

    def commented_gif(pieces: int) -> bytes:
        return gif_file[:at] + b"\x21\xfe" + b"\x01a" * pieces + b"\x00" + gif_file[at:]

    for endless in (
        jpeg_file[:2] + b"\xff\xe1\x00\x09Exif\x00\x00a" * MAX_READS + jpeg_file[2:],
        jpeg_file[:2] + b"\xff" * 2 * MAX_READS + jpeg_file[2:],
        commented_gif(MAX_READS),
    ):
        with pytest.raises(ImageProblem, match=f"a header of more than {MAX_READS} pieces"):
            look(endless)
    large = b"\xff\xe1\xff\xffExif\x00\x00" + bytes(2**16 - 9)
    for long in (jpeg_file[:2] + large * 100 + jpeg_file[2:], commented_gif(MAX_READS // 10)):
        assert look(long)


def outcome(look: Callable[[bytes], Image.Image | ImageFacts], data: bytes) -> str:
    try:
        seen = look(data)
    except ImageProblem as problem:
        return str(problem)
    return f"decoded: {seen.width} x {seen.height}"
