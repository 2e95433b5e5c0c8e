"""Image embedding: against the bare forward pass, against whole decoding, and from files.

python -m bench.image_embedding

1. `encode_images` of decoded pictures, preprocessing included, against the bare forward pass on
   ready tensors.
2. JPEG files of 12 megapixels to pixels, by the threads of a stage, with `pictures.draft=1`
   against whole decoding.
3. JPEG files to features on disk, against the loop of clip-retrieval (its reader, mapper and
   writer of version 2.45 written down: open_clip's transform in a DataLoader with workers, a batch,
   features to float16 in a .npy file), worker processes included.
"""

from __future__ import annotations

import io
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from open_clip.transform import image_transform_v2
from PIL import Image

from bench.command_line import command_line
from bench.interleaved import interleaved
from bench.verdict import Verdict, exit_status, judge, report
from models.encoders.loading import load_encoder
from models.encoders.open_clip import OpenClipEncoder
from models.encoders.spec import EncoderSpec
from tasks.settings import PictureSettings
from tasks.stages.decoded import Decoding

IMAGES: Final = 64
SIZE: Final = (500, 375)
LARGE: Final = (4000, 3000)
LARGE_IMAGES: Final = 8
BATCH: Final = 16
WORKERS: Final = 2
DEMANDED_RATIO: Final = 0.95
DEMANDED_DRAFTS: Final = 8.0
DEMANDED_FILES: Final = 1.0
LARGEST_DIFFERENCE: Final = 1e-5


def make_images(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> list[Image.Image]:
    """Pictures smooth enough to be resized like a photograph, with the grain of a camera."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    made = []
    for each in small:
        smooth = Image.fromarray(each).resize(size, Image.Resampling.BICUBIC)
        grain = random.normal(0, 4, (size[1], size[0], 3))
        made.append(Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)))
    return made


def jpeg(image: Image.Image) -> bytes:
    """A file of quality 85."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def nobody(count: int) -> None:
    """Nobody watches."""


def against_the_forward_pass(encoder: OpenClipEncoder) -> Verdict:
    """The share of the bare forward pass's speed."""
    images = make_images(IMAGES)
    tensors = list(encoder.preprocess.batches(images, BATCH))

    def bare() -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([encoder.model.encode_image(batch) for batch in tensors]).numpy()

    bare()
    timing = interleaved(bare, lambda: encoder.encode_images(images))
    difference = float(np.abs(timing.expected - timing.got).max())
    return judged(
        "image_embedding",
        "image embedding: {:.2f} of the bare forward pass (demanded {})",
        timing.ratios,
        DEMANDED_RATIO,
        right=difference <= LARGEST_DIFFERENCE,
        difference=difference,
        images=IMAGES,
    )


def against_whole_decoding(encoder: OpenClipEncoder) -> Verdict:
    """How many times faster drafts of large files become pixels, in the threads of a stage."""
    files = [jpeg(image) for image in make_images(LARGE_IMAGES, LARGE)]

    def pixels(draft: int) -> Callable[[], np.ndarray]:
        settings, prepared = PictureSettings(draft=draft), encoder.preprocess

        def prepare() -> np.ndarray:
            images = Decoding(files, nobody, settings, prepared.side)
            return torch.cat(list(prepared.batches(images, LARGE_IMAGES))).numpy()

        return prepare

    timing = interleaved(pixels(0), pixels(1))
    deviations = torch.tensor(encoder.preprocess.config.std).view(3, 1, 1).numpy()
    difference = float((np.abs(timing.expected - timing.got) * deviations).mean() * 255)
    return judged(
        "draft_decoding",
        "drafts of 12 megapixels: {:.1f}x the rate of whole decoding (demanded {})",
        timing.ratios,
        DEMANDED_DRAFTS,
        right=difference < 2,
        mean_difference_of_bytes=difference,
        megabytes=[len(file) / 1e6 for file in files],
    )


def against_clip_retrieval(encoder: OpenClipEncoder) -> Verdict:
    """How many times faster files become features on disk, in processor time."""
    transform = image_transform_v2(encoder.preprocess.config, is_train=False)
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(make_images(IMAGES)):
            Path(folder, f"{number:04}.jpg").write_bytes(jpeg(image))
        files = sorted(Path(folder).glob("*.jpg"))

        def theirs() -> np.ndarray:
            return save(their_features(encoder, transform, files), Path(folder, "theirs.npy"))

        def ours() -> np.ndarray:
            data = [file.read_bytes() for file in files]
            images = Decoding(data, nobody, PictureSettings(), encoder.preprocess.side)
            return save(encoder.encode_images(images), Path(folder, "ours.npy"))

        ratios = []
        for _ in range(5):
            start = cpu_seconds()
            expected = theirs()
            middle = cpu_seconds()
            got = ours()
            ratios.append((middle - start) / (cpu_seconds() - middle))
    difference = float(np.abs(expected - got).max())
    return judged(
        "files_to_features",
        "files to features: {:.2f}x the loop of clip-retrieval (demanded {})",
        ratios,
        DEMANDED_FILES,
        right=difference <= LARGEST_DIFFERENCE,
        difference=difference,
        images=IMAGES,
        workers=WORKERS,
    )


class _Files(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, files: Sequence[Path], transform: Callable[[Any], torch.Tensor]) -> None:
        self._files = files
        self._transform = transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file = self._files[index]
        return {"name": str(file), "pixels": self._transform(Image.open(file))}


def their_features(
    encoder: OpenClipEncoder, transform: Callable[[Any], torch.Tensor], files: Sequence[Path]
) -> np.ndarray:
    """The loop of clip-retrieval."""
    loader = torch.utils.data.DataLoader(
        _Files(files, transform), BATCH, num_workers=WORKERS, pin_memory=True, prefetch_factor=2
    )
    rows = []
    for batch in loader:
        with torch.no_grad():
            rows.append(encoder.model.encode_image(batch["pixels"]).cpu().numpy())
    return np.concatenate(rows)


def save(features: np.ndarray, path: Path) -> np.ndarray:
    """Write unit vectors in float16; returns the features."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.save(path, unit.astype(np.float16))
    return features


def cpu_seconds() -> float:
    """Processor time of this process and of the workers that it has ended."""
    return sum(os.times()[:4])


def judged(
    name: str, sentence: str, ratios: list[float], demanded: float, *, right: bool, **facts: Any
) -> Verdict:
    """Print and return a verdict."""
    ratio = statistics.median(ratios)
    return report(
        name,
        sentence.format(ratio, demanded),
        judge(ratios, at_least=demanded) if right else "MISSED",
        {"ratio": ratio, "demanded": demanded, "ratios": ratios, **facts},
    )


def main() -> list[Verdict]:
    """Measure on one thread of torch's, and print the verdicts."""
    torch.set_num_threads(1)
    padded, clip = (
        load_encoder(
            EncoderSpec(
                name="ViT-B-32",
                pretrained="random:0",
                preprocess=mode,
                device="cpu",
                image_batch=BATCH,
            )
        )
        for mode in ("targetpad", "clip")
    )
    return [
        against_the_forward_pass(padded),
        against_whole_decoding(padded),
        against_clip_retrieval(clip),
    ]


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    sys.exit(exit_status(main()))
