"""InstructPix2Pix (CVPR 2023): a latent diffusion model that reads the image and the instruction.

With e(I, T) the noise that the model predicts and empty conditions written 0,

    eps = e(0, 0) + s_I [e(I, 0) - e(0, 0)] + s_T [e(I, T) - e(I, 0)]        (its equation 3)

The computation is that of diffusers, an optional extra (`make editor`). A checkpoint has diffusers'
layout: `unet`, `vae`, `text_encoder`, `tokenizer` and `scheduler` in folders of their own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from models.checkpoints import (
    TOKENIZER,
    IncompleteCheckpoint,
    UnusableCheckpoint,
    checkpoint_folder,
    model_name,
    require_files,
)
from models.devices import pick_device, pick_dtype
from models.editors.engine import NO_EDITOR, EditorEngine
from models.engine_settings import CheckpointSettings
from models.metering import Spent, current_meter, device_time
from models.protocols import EditReply, EditRequest, EngineUnavailable, Fingerprint, Json

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

VERSION: Final = 1
"""Raised when the code makes other pictures from the same checkpoint and settings."""
EXTRA: Final = "the package diffusers is not installed: `make editor` adds it"
_PARTS: Final = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_GRID: Final = 64
"""Sides of a picture are multiples of so many pixels."""
_FAILURES: Final = (RuntimeError, ValueError, TypeError, OSError, MemoryError)
"""Errors that a bad image or a full memory raises inside the pipeline."""


class InstructPix2PixSettings(EditorEngine, CheckpointSettings):
    """InstructPix2Pix in this process."""

    engine: Literal["instruct-pix2pix"] = "instruct-pix2pix"
    model: str = ""
    """Directory or hub id in diffusers' layout (timbrooks/instruct-pix2pix); empty: none."""
    steps: int = Field(100, ge=1)
    """Steps of the sampler, Euler's with ancestral noise."""
    text_guidance: float = Field(7.5, ge=1)
    """s_T; there is no guidance at all at 1."""
    image_guidance: float = Field(1.5, ge=1)
    """s_I."""
    resolution: int = Field(512, ge=_GRID)
    """Pixels of the longer side, roughly: both sides become multiples of 64."""
    seed: int = 0
    """Seed of all pictures, next to the reference image and the text of each."""
    batch_size: int = Field(4, ge=1)
    """Images edited at once; it changes a picture by rounding alone."""

    @property
    def lacking(self) -> str:
        """A checkpoint, or the package that computes."""
        if not self.model:
            return NO_EDITOR
        return "" if importlib.util.find_spec("diffusers") else EXTRA

    @property
    def fingerprint(self) -> Fingerprint:
        """Checkpoint contents, sampler, precision and versions.

        Raises:
            EngineUnavailable: diffusers is not installed.
        """
        files = self.files(lambda: self.load().fetch())
        return {
            "engine": self.engine,
            "engine_version": _version_of_diffusers(),
            "version": VERSION,
            "model": model_name(self.model, files),
            "files": dict(files),
            "dtype": self.dtype_name,
            **self._sampling,
            "resolution": self.resolution,
            "seed": self.seed,
        }

    @property
    def picture_side(self) -> int:
        """The resolution, up to a multiple of 64."""
        return math.ceil(self.resolution / _GRID) * _GRID

    @property
    def making(self) -> dict[str, Json]:
        """The manifest's fields, without the seed of each picture."""
        files = self.files(lambda: None)
        revision = self.revision or model_name(self.model, files)
        return {"editor": self.title, "revision": revision, **self._sampling}

    @property
    def _sampling(self) -> dict[str, Json]:
        return {
            "steps": self.steps,
            "text_guidance": self.text_guidance,
            "image_guidance": self.image_guidance,
        }

    def check(self) -> None:
        """Compare the checkpoint's files and configurations; no weight is read.

        Raises:
            UnusableCheckpoint: Something is missing, or it is another model's.
        """
        self.files(lambda: None)
        folder = checkpoint_folder(self.model, self.revision)
        try:
            unet = json.loads((folder / "unet" / "config.json").read_bytes())
            text = json.loads((folder / "text_encoder" / "config.json").read_bytes())
            channels, width = unet.get("in_channels"), unet.get("cross_attention_dim")
            hidden = text.get("hidden_size")
        except (ValueError, AttributeError, RecursionError) as error:
            raise UnusableCheckpoint(f"{self.model!r}: a config.json cannot be read") from error
        if channels != 8:
            raise UnusableCheckpoint(
                f"the unet of {self.model!r} reads {channels} channels and not 8: it does not see "
                "the image that is edited; name a checkpoint of InstructPix2Pix"
            )
        if width != hidden:
            raise UnusableCheckpoint(
                f"the unet of {self.model!r} reads texts of width {width}, its text_encoder writes "
                f"{hidden}; take all parts from one checkpoint"
            )

    def files(self, fetch: Callable[[], object]) -> Mapping[str, str]:
        """File name -> sha256 of the files that are read.

        Args:
            fetch: Brings the files of a hub id to this machine.

        Raises:
            UnusableCheckpoint: Files are missing.
        """
        if not self.model:
            raise UnusableCheckpoint(NO_EDITOR)
        found = super().files(fetch)
        return {name: digest for name, digest in found.items() if _is_read(name)}

    def require_fit(self, files: Iterable[str]) -> None:
        """Refuse files that lack a part of the pipeline.

        Args:
            files: Their names.

        Raises:
            UnusableCheckpoint: Saying which.
        """
        found = list(filter(_is_read, files))
        for part in _PARTS[:3]:
            require_files(self.model, found, [(f"{part}/config.json",)])
            if not any(n.startswith(f"{part}/") and n.endswith(".safetensors") for n in found):
                raise IncompleteCheckpoint(f"{self.model!r} lacks {part}/*.safetensors")
        tokenizer = [f"tokenizer/{name}" for name in TOKENIZER]
        require_files(self.model, found, [tokenizer, ("scheduler/scheduler_config.json",)])

    def load(self) -> InstructPix2PixEditor:
        """The editor; its checkpoint is read when the first image comes."""
        return InstructPix2PixEditor(self)


class InstructPix2PixEditor:
    """Edits images with an InstructPix2Pix checkpoint; fulfils `models.protocols.ImageEditor`."""

    def __init__(self, settings: InstructPix2PixSettings) -> None:
        """Remember the settings.

        Raises:
            ValueError: A GPU is asked for and there is none.
        """
        self._settings = settings
        self._device = pick_device(settings.device)
        self._dtype = pick_dtype(settings.dtype, settings.device)

    def fetch(self) -> None:
        """Bring all files of a hub's checkpoint to this machine."""
        _ = self._pipeline

    @cached_property
    def _pipeline(self) -> Any:
        _version_of_diffusers()
        from diffusers import (
            AutoencoderKL,
            EulerAncestralDiscreteScheduler,
            StableDiffusionInstructPix2PixPipeline,
            UNet2DConditionModel,
        )
        from transformers import CLIPTextModel, CLIPTokenizer

        from models.checkpoints import loading_arguments
        from models.loaded_weights import load_model

        own = self._settings
        place = loading_arguments(own.model, own.revision or None)
        weights = {"use_safetensors": True}

        def load(kind: Any, part: str, **options: Any) -> Any:
            return load_model(kind, own.model, own.revision, subfolder=part, **weights, **options)

        pipeline: Any = StableDiffusionInstructPix2PixPipeline(
            vae=load(AutoencoderKL, "vae", torch_dtype=self._dtype),
            text_encoder=load(CLIPTextModel, "text_encoder", dtype=self._dtype),
            tokenizer=CLIPTokenizer.from_pretrained(own.model, subfolder="tokenizer", **place),
            unet=load(UNet2DConditionModel, "unet", torch_dtype=self._dtype),
            scheduler=EulerAncestralDiscreteScheduler.from_pretrained(
                own.model, subfolder="scheduler", **place
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self._device)

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[EditReply]:
        """Edit every image exactly once.

        Raises:
            ValueError: Before the first image, when the checkpoint cannot be used.
        """
        self.fetch()  # what is wrong with the checkpoint is not the first image's fault
        self._settings.check()
        stream = iter(requests)
        while batch := list(itertools.islice(stream, self._settings.batch_size)):
            for alike in _of_one_size(batch, self._settings.resolution):
                yield from self._edited(alike)

    def _edited(self, batch: Sequence[tuple[EditRequest, Image.Image]]) -> Iterator[EditReply]:
        """The replies of images of one size; where a batch fails, each image is tried alone."""
        try:
            with device_time():
                pictures = self._pixels(batch)
        except _FAILURES as failure:
            reason = f"{type(failure).__name__}: {str(failure).strip()[:300]}"
        else:
            current_meter().add(Spent(questions=len(batch), calls=len(batch)))
            replies = zip(batch, pictures, strict=True)
            yield from (_reply(request, pixels) for (request, _), pixels in replies)
            return
        if len(batch) == 1:
            yield EditReply(batch[0][0].key, None, "engine_error", reason)
            return
        for one in batch:
            yield from self._edited([one])

    def _pixels(self, batch: Sequence[tuple[EditRequest, Image.Image]]) -> np.ndarray:
        """Pictures (B, H, W, 3) within [0, 1]."""
        import torch

        own = self._settings
        # Noise is drawn on the CPU, one stream a picture: the same on every device, in any batch.
        noise = [torch.Generator("cpu").manual_seed(request.seed) for request, _ in batch]
        with torch.inference_mode():
            made = self._pipeline(
                prompt=[request.text for request, _ in batch],
                image=[image for _, image in batch],
                num_inference_steps=own.steps,
                guidance_scale=own.text_guidance,
                image_guidance_scale=own.image_guidance,
                generator=noise,
                output_type="np",
            )
        return made.images


def fitted(image: Image.Image, resolution: int) -> Image.Image:
    """An image as the original program prepares it: both sides multiples of 64.

    The longer side becomes `resolution`, then both grow until the shorter one is a multiple of 64;
    what the longer one has beyond a multiple is cropped away. Of a very long image only the middle
    is edited.
    """
    from PIL import Image, ImageOps

    from models.encoders.preprocess import crop_extreme

    image = crop_extreme(image)
    width, height = image.size
    factor = resolution / max(width, height)
    factor = math.ceil(min(width, height) * factor / _GRID) * _GRID / min(width, height)
    size = (int(width * factor // _GRID) * _GRID, int(height * factor // _GRID) * _GRID)
    return ImageOps.fit(image, size, method=Image.Resampling.LANCZOS)


def _of_one_size(
    batch: Sequence[EditRequest], resolution: int
) -> list[list[tuple[EditRequest, Image.Image]]]:
    alike: dict[tuple[int, int], list[tuple[EditRequest, Image.Image]]] = {}
    for request in batch:
        image = fitted(request.image, resolution)
        alike.setdefault(image.size, []).append((request, image))
    return list(alike.values())


def _reply(request: EditRequest, pixels: np.ndarray) -> EditReply:
    """A picture; refused where the numbers overflowed, which shows as one colour."""
    import numpy as np
    from PIL import Image

    if not np.isfinite(pixels).all() or np.ptp(pixels) == 0:
        return EditReply(request.key, None, "rejected", "the picture is of one colour")
    return EditReply(request.key, Image.fromarray((pixels * 255).round().astype(np.uint8)))


def _is_read(name: str) -> bool:
    """Whether a file is read: one of a part, and no copy of weights in another form."""
    if name.split("/")[0] not in _PARTS:
        return False
    if name.endswith(".safetensors"):
        return not name.endswith((".fp16.safetensors", ".non_ema.safetensors"))
    return not name.endswith(".bin")


def _version_of_diffusers() -> str:
    try:
        return importlib.metadata.version("diffusers")
    except importlib.metadata.PackageNotFoundError:
        raise EngineUnavailable(EXTRA) from None
