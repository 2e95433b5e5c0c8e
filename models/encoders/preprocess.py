"""From a decoded picture to the pixels a vision tower reads.

Two ways, a value of the scoring protocol because the choice moves published numbers:

- `clip`: what the weights were published with (for CLIP: shortest side to the input size,
  bicubic, centre crop).
- `targetpad`: pad elongated pictures with black until their sides are at most `pad_ratio`
  apart, then as `clip`. It keeps the ends of tall clothing pictures inside the crop and is
  what SEARLE, CIReVL, LDRE and CVSI use (introduced by CLIP4CIR, with ratio 1.25).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import Compose

from models.ahead import in_order, worker_threads
from models.encoders.backbone_files import preprocess_fingerprint
from models.protocols import PREPROCESS_MODES, PreprocessMode

if TYPE_CHECKING:
    from models.protocols import Json

_CPU: Final = torch.device("cpu")

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
    """

    mode: PreprocessMode
    pad_ratio: float
    config: PreprocessCfg

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

    @property
    def side(self) -> int:
        """Pixels of the shorter side from which on a picture is made smaller, never larger."""
        size = self.config.size
        return size if isinstance(size, int) else max(size)

    def batches(
        self,
        images: Sequence[Image.Image],
        size: int,
        device: torch.device = _CPU,
        threads: int = 0,
    ) -> Generator[torch.Tensor, None, None]:
        """Prepare images in order, in batches of `size`, a batch ahead of the reader.

        Bytes go to the device, pinned and without waiting for it, and are normalised there.
        `images` is indexed inside the worker threads, so a sequence that decodes on access is
        decoded there, each image once. Close the iterator where it is not read to its end.

        Args:
            images: B pictures.
            size: Pictures of a batch.
            device: Where the batches are wanted.
            threads: Pictures prepared at a time; 0: one a core.

        Yields:
            (b, 3, H, W) float32 tensors on the device, normalised.
        """
        geometry, normalise, threads = self.geometry(), self._on(device), worker_threads(threads)

        def pixels(index: int) -> np.ndarray:
            return np.asarray(geometry(images[index]))

        order = range(len(images))
        with closing(in_order(pixels, order, threads, ahead=size + threads)) as prepared:
            while batch := list(islice(prepared, size)):
                shape = (len(batch), *batch[0].shape)
                stacked = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
                np.stack(batch, out=stacked.numpy())
                # The allocator keeps a pinned tensor until its copy is done.
                yield normalise(stacked.to(device, non_blocking=True))

    def normalised(self, pixels: np.ndarray) -> torch.Tensor:
        """Pixels (b, H, W, 3) uint8 -> normalised (b, 3, H, W) float32."""
        return self._on(_CPU)(torch.from_numpy(pixels))

    def _on(self, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
        """`normalised` for pixels on a device, where its constants are brought once.

        They are tensors, since CUDA multiplies by the reciprocal of a number: divided by a tensor,
        bytes become the same floats on every device.
        """
        mean, std, white = (
            torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1).to(device)
            for values in (self.config.mean, self.config.std, [255.0])
        )

        def normalise(pixels: torch.Tensor) -> torch.Tensor:
            batch = pixels.permute(0, 3, 1, 2).contiguous().float()
            return batch.div_(white).sub_(mean).div_(std)

        return normalise

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
