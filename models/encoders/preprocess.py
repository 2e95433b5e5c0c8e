"""From a decoded picture to the pixels a vision tower reads.

Two ways, a value of the scoring protocol because the choice moves published numbers:

- `clip`: what the weights were published with (for CLIP: shortest side to the input size,
  bicubic, centre crop).
- `targetpad`: pad elongated pictures with black until their sides are at most `pad_ratio`
  apart, then as `clip`. It keeps the ends of tall clothing pictures inside the crop and is
  what SEARLE, CIReVL, LDRE and CVSI use (introduced by CLIP4CIR, with ratio 1.25).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import Compose

from models.encoders.backbone_files import preprocess_fingerprint
from models.protocols import PREPROCESS_MODES, PreprocessMode

if TYPE_CHECKING:
    from models.protocols import Json

MAX_ASPECT: Final = 64
"""Beyond this ratio only the middle of a picture is resized: a centre crop sees no more of it."""

MAX_PADDED_PIXELS: Final = 64_000_000
"""A picture whose padded form would be larger is made smaller before it is padded."""


@dataclass(frozen=True)
class ImagePreprocess:
    """Geometry and normalisation of one backbone.

    Attributes:
        mode: `targetpad` or `clip`.
        pad_ratio: Largest ratio of sides that is left unpadded; used by `targetpad` only.
        config: The backbone's own settings: size, mean, std, interpolation, resize mode.
        threads: Worker threads that prepare the next batch while the model runs.
    """

    mode: PreprocessMode
    pad_ratio: float
    config: PreprocessCfg
    threads: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.mode not in PREPROCESS_MODES:
            raise ValueError(f"preprocess is {self.mode!r}; one of {', '.join(PREPROCESS_MODES)}")
        if self.pad_ratio < 1.0:
            raise ValueError(f"pad_ratio is a ratio of sides, at least 1, not {self.pad_ratio}")

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> ImagePreprocess:
        """The preprocessing that a `record` describes.

        Raises:
            KeyError, TypeError, ValueError: It describes none.
        """
        pixels = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in record["config"].items()
        }
        return cls(record["mode"], record["pad_ratio"], PreprocessCfg(**pixels))

    @property
    def record(self) -> dict[str, Any]:
        """JSON values that `of` reads."""
        return {"mode": self.mode, "pad_ratio": self.pad_ratio, "config": asdict(self.config)}

    @property
    def fingerprint(self) -> Mapping[str, Json]:
        """Everything that changes pixels."""
        return preprocess_fingerprint(self.mode, self.pad_ratio, asdict(self.config))

    def batches(self, images: Sequence[Image.Image], size: int) -> Iterator[torch.Tensor]:
        """Prepare images in order, in batches of `size`, one batch ahead of the reader.

        `images` is indexed inside the worker threads, so a sequence that decodes on access is
        decoded there, each image once.

        Yields:
            (b, 3, H, W) float32 tensors, normalised.
        """
        geometry = self.geometry()

        def pixels(index: int) -> np.ndarray:
            return np.asarray(geometry(images[index]))

        with ThreadPoolExecutor(self.threads) as pool:
            starts = range(0, len(images), size)
            ahead: list[Future[np.ndarray]] = []
            for start in starts:
                current = ahead or _submit(pool, pixels, start, size, len(images))
                ahead = _submit(pool, pixels, start + size, size, len(images))
                yield self.normalised(np.stack([future.result() for future in current]))

    def normalised(self, pixels: np.ndarray) -> torch.Tensor:
        """Pixels (b, H, W, 3) uint8 -> normalised (b, 3, H, W) float32."""
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(255)
        mean = torch.tensor(self.config.mean).view(1, 3, 1, 1)
        std = torch.tensor(self.config.std).view(1, 3, 1, 1)
        return batch.sub_(mean).div_(std)

    def geometry(self) -> Compose:
        """Everything before normalisation, as PIL in and PIL out."""
        # open_clip's own steps but the last two, ToTensor and Normalize.
        own = image_transform_v2(self.config, is_train=False).transforms[:-2]
        if self.mode == "targetpad":
            return Compose([_as_rgb, lambda image: target_pad(image, self.pad_ratio), *own])
        if self.config.resize_mode == "shortest":
            return Compose([_as_rgb, crop_extreme, *own])
        return Compose([_as_rgb, *own])


def target_pad(image: Image.Image, ratio: float) -> Image.Image:
    """Pad the short side with black until the sides are at most `ratio` apart.

    Args:
        image: Any size; a huge thin one is made smaller first to keep memory bounded.
        ratio: Sides that are less than this apart are left as they are.
    """
    width, height = image.size
    if max(width, height) < ratio * min(width, height):
        return image
    padded = max(width, height) ** 2 / ratio
    if padded > MAX_PADDED_PIXELS:
        scale = (MAX_PADDED_PIXELS / padded) ** 0.5
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        return target_pad(image.resize(size, Image.Resampling.BICUBIC), ratio)
    side = max(width, height) / ratio
    across = max(int((side - width) / 2), 0)
    down = max(int((side - height) / 2), 0)
    canvas = Image.new("RGB", (width + 2 * across, height + 2 * down))
    canvas.paste(image, (across, down))
    return canvas


def crop_extreme(image: Image.Image) -> Image.Image:
    """Keep the middle of a picture whose sides are more than `MAX_ASPECT` apart.

    Resizing the short side of a 1 x 10,000 picture to 224 would make half a billion pixels of
    which a centre crop looks at 224 x 224.
    """
    width, height = image.size
    longest = MAX_ASPECT * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _submit(
    pool: ThreadPoolExecutor, work: Callable[[int], np.ndarray], start: int, size: int, total: int
) -> list[Future[np.ndarray]]:
    return [pool.submit(work, index) for index in range(start, min(start + size, total))]
