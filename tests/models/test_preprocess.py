"""From picture to pixels: against open_clip's transform and hand-worked padding."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from open_clip.transform import PreprocessCfg


def config_of(**changes: Any) -> PreprocessCfg:
    """A small one, with unequal means and deviations."""
    from open_clip.transform import PreprocessCfg

    small = PreprocessCfg(size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    return replace(small, **changes)


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    random = np.random.default_rng(width * 1000 + height)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    "changes",
    [{}, {"interpolation": "bilinear"}, {"resize_mode": "squash"}, {"size": (32, 32)}],
)
def test_clip_equals_open_clips_transform(changes: dict[str, Any]) -> None:
    import torch
    from open_clip.transform import image_transform_v2

    from models.encoders.preprocess import ImagePreprocess

    config = config_of(**changes)
    pictures = [picture(40, 90), picture(33, 33), picture(1, 1), picture(60, 20, "L")]
    expected = torch.stack([image_transform_v2(config, is_train=False)(p) for p in pictures])
    batches = list(ImagePreprocess("clip", 1.25, config).batches(pictures, 3))
    assert [len(batch) for batch in batches] == [3, 1]
    np.testing.assert_array_equal(torch.cat(batches).numpy(), expected.numpy())


@pytest.mark.parametrize(
    ("size", "padded"),
    [
        ((100, 100), (100, 100)),  # square: untouched
        ((120, 100), (120, 100)),  # 1.2 < 1.25: untouched
        ((100, 50), (100, 80)),  # 100 / 1.25 = 80, so 15 above and 15 below
        ((50, 100), (80, 100)),
        ((101, 50), (101, 80)),  # (80.8 - 50) / 2 = 15.4 -> 15
        ((100, 1), (100, 79)),  # (80 - 1) / 2 = 39.5 -> 39 on each side
    ],
)
def test_target_pad_by_hand(size: tuple[int, int], padded: tuple[int, int]) -> None:
    from models.encoders.preprocess import target_pad

    image = picture(*size)
    result = target_pad(image, 1.25)
    assert result.size == padded
    left, top = (padded[0] - size[0]) // 2, (padded[1] - size[1]) // 2
    inside = result.crop((left, top, left + size[0], top + size[1]))
    np.testing.assert_array_equal(np.asarray(inside), np.asarray(image))
    border = np.asarray(result).astype(int).sum() - np.asarray(image).astype(int).sum()
    assert border == 0  # what was added is black


def test_target_pad_then_clip() -> None:
    from open_clip.transform import image_transform_v2

    from models.encoders.preprocess import ImagePreprocess

    image = picture(100, 50)
    canvas = Image.new("RGB", (100, 80))
    canvas.paste(image, (0, 15))
    expected = image_transform_v2(config_of(), is_train=False)(canvas)
    (batch,) = ImagePreprocess("targetpad", 1.25, config_of()).batches([image], 8)
    np.testing.assert_array_equal(batch[0].numpy(), expected.numpy())


def test_extreme_pictures_stay_small_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.encoders import preprocess
    from models.encoders.preprocess import ImagePreprocess, target_pad

    largest = 0
    resize = Image.Image.resize

    def watched(self: Image.Image, size: tuple[int, int], *rest: object, **more: object):
        nonlocal largest
        largest = max(largest, size[0] * size[1])
        return resize(self, size, *rest, **more)

    monkeypatch.setattr(Image.Image, "resize", watched)
    monkeypatch.setattr(preprocess, "MAX_PADDED_PIXELS", 1_000_000)
    thin = Image.new("RGB", (1, 20_000), (255, 255, 255))
    for mode in ("clip", "targetpad"):
        (batch,) = ImagePreprocess(mode, 1.25, config_of()).batches([thin], 1)
        assert batch.shape == (1, 3, 32, 32)
    assert largest <= 32 * 32 * preprocess.MAX_ASPECT
    assert np.prod(target_pad(thin, 1.25).size) <= 1_000_000


def test_crop_of_extremes_shows_the_same_centre() -> None:
    from open_clip.transform import image_transform_v2

    from models.encoders.preprocess import crop_extreme

    tall = picture(4, 4 * 200)
    cropped = crop_extreme(tall)
    assert cropped.size == (4, 256)
    transform = image_transform_v2(config_of(), is_train=False)
    np.testing.assert_allclose(transform(tall).numpy(), transform(cropped).numpy(), atol=0.03)


def test_each_picture_is_taken_from_the_sequence_once() -> None:
    from models.encoders.preprocess import ImagePreprocess

    class Lazy(list):
        taken: list[int] = []  # noqa: RUF012

        def __getitem__(self, index: int) -> Image.Image:
            self.taken.append(index)
            return super().__getitem__(index)

    images = Lazy(picture(30 + i, 40) for i in range(7))
    batches = list(ImagePreprocess("clip", 1.25, config_of()).batches(images, 2))
    assert sorted(images.taken) == list(range(7))
    assert sum(len(batch) for batch in batches) == 7


def test_a_failing_picture_is_an_error_and_not_a_gap() -> None:
    from models.encoders.preprocess import ImagePreprocess

    class Broken(list):
        def __getitem__(self, index: int) -> Image.Image:
            if index == 3:
                raise OSError("picture 3 is truncated")
            return super().__getitem__(index)

    images = Broken(picture(30, 40) for _ in range(5))
    with pytest.raises(OSError, match="picture 3"):
        list(ImagePreprocess("clip", 1.25, config_of()).batches(images, 2))


@pytest.mark.parametrize(("mode", "ratio"), [("pad", 1.25), ("targetpad", 0.5)])
def test_impossible_settings_are_refused(mode: str, ratio: float) -> None:
    from models.encoders.preprocess import ImagePreprocess

    with pytest.raises(ValueError, match=r"targetpad, clip|at least 1"):
        ImagePreprocess(mode, ratio, config_of())


def test_pixels_are_normalised_on_the_device_from_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from models.encoders.preprocess import ImagePreprocess

    asked: list[tuple[torch.dtype, bool]] = []
    moved = torch.Tensor.to

    def watched(tensor: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        if args and args[0] == torch.device("meta"):
            asked.append((tensor.dtype, bool(more.get("non_blocking"))))
        return moved(tensor, *args, **more)

    monkeypatch.setattr(torch.Tensor, "to", watched)
    pictures = [picture(40, 90), picture(33, 33), picture(50, 70)]
    preprocess = ImagePreprocess("clip", 1.25, config_of())
    batches = list(preprocess.batches(pictures, 2, torch.device("meta")))
    assert [(each.device.type, each.dtype, tuple(each.shape)) for each in batches] == [
        ("meta", torch.float32, (2, 3, 32, 32)),
        ("meta", torch.float32, (1, 3, 32, 32)),
    ]
    # Three constants once, then bytes alone, and nobody waits for them.
    constants, bytes_ = asked[:3], asked[3:]
    assert [dtype for dtype, _ in constants] == [torch.float32] * 3
    assert bytes_ == [(torch.uint8, True)] * 2


def test_every_byte_is_normalised_as_by_torchvision() -> None:
    import torch
    from torchvision.transforms.functional import normalize, to_tensor

    from models.encoders.preprocess import ImagePreprocess

    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    config = config_of()
    got = ImagePreprocess("clip", 1.25, config).normalised(pixels)
    expected = normalize(to_tensor(pixels[0]), list(config.mean), list(config.std))
    assert torch.equal(got[0], expected)


def test_pictures_are_decoded_by_as_many_threads_as_are_asked_for() -> None:
    import threading
    from collections.abc import Sequence

    from models.encoders.preprocess import ImagePreprocess

    meeting = threading.Barrier(4, timeout=20)

    class Meeting(Sequence[Image.Image]):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: Any) -> Any:
            meeting.wait()  # passes only where four are decoded at once
            return picture(40, 40 + index)

    preprocess = ImagePreprocess("clip", 1.25, config_of())
    batches = list(preprocess.batches(Meeting(), 3, threads=4))
    assert [len(each) for each in batches] == [3, 3, 2]


def test_a_model_that_fails_leaves_no_thread() -> None:
    import threading

    import torch

    from models.encoders.feeding import encoded
    from models.encoders.preprocess import ImagePreprocess

    def fails(pixels: torch.Tensor, start: int) -> torch.Tensor:
        raise RuntimeError("out of memory")

    preprocess = ImagePreprocess("clip", 1.25, config_of())
    with pytest.raises(RuntimeError, match="out of memory") as held:
        encoded(
            [picture(40, 40)] * 9, fails, preprocess=preprocess, batch=2, device=torch.device("cpu")
        )
    assert held  # the traceback is alive, the threads are not
    assert not [each for each in threading.enumerate() if "ahead" in each.name]
