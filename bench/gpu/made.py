"""Everything that is read, made on the spot: pictures, captions, tokenizers, random weights."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import open_clip
import safetensors.torch
import torch
from PIL import Image

from models.encoders.spec import CONFIG_FILE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Made = TypeVar("Made")

PHOTOGRAPH: Final = (640, 480)
"""Size of a picture of the web collections that the benchmarks were drawn from."""

_NOUNS: Final = ("dog", "shirt", "bench", "river", "kite", "bowl", "train", "tree", "cat", "boat")
_MARKS: Final = ("red", "small", "old", "striped", "shiny", "wooden", "blue", "large", "wet", "two")
_PLACES: Final = ("on", "beside", "under", "behind", "near", "above")


def jpegs(count: int, size: tuple[int, int] = PHOTOGRAPH, seed: int = 0) -> list[bytes]:
    """JPEG files of pictures that are as smooth as photographs are."""
    random = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        sink = io.BytesIO()
        coarse.resize(size, Image.Resampling.BICUBIC).save(sink, "JPEG", quality=90)
        files.append(sink.getvalue())
    return files


class Photographs(Sequence[Image.Image]):
    """So many pictures, decoded on access as a stage decodes them; files repeat."""

    def __init__(self, files: Sequence[bytes], count: int) -> None:
        """Pictures `0..count`, the files in turn."""
        self._files = files
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return Image.open(io.BytesIO(self._files[index % len(self._files)])).convert("RGB")


def captions(count: int, seed: int = 0) -> list[str]:
    """Distinct captions of 11 or 12 words, the length of those that BLIP-2 writes."""
    random = np.random.default_rng(seed)

    def phrase() -> str:
        return f"a {random.choice(_MARKS)} {random.choice(_MARKS)} {random.choice(_NOUNS)}"

    return [
        f"{phrase()} {random.choice(_PLACES)} {phrase()} in {2 + number % 97} {number}"
        for number in range(count)
    ]


def on_device(device: torch.device, dtype: torch.dtype, make: Callable[[], Made]) -> Made:
    """What `make` returns, with its random weights drawn on the device and in a precision.

    Drawing billions of numbers on the host would take a part's whole time.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(0)
        with torch.device(device):
            return make()
    finally:
        torch.set_default_dtype(usual)


SMALL_CLIP: Final[dict[str, Any]] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "width": 32, "heads": 2, "layers": 2},
}


@contextmanager
def backbone(name: str, small: bool) -> Iterator[tuple[str, str]]:
    """Name and `pretrained` of a backbone with random weights; a small one if asked for.

    The small one lies in a folder that is gone afterwards.
    """
    if not small:
        yield name, "random:0"
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        weights = open_clip.CLIP(**SMALL_CLIP).state_dict()
        safetensors.torch.save_file(weights, Path(folder, "open_clip_model.safetensors"))
        Path(folder, CONFIG_FILE).write_text(json.dumps({"model_cfg": SMALL_CLIP}))
        yield folder, ""


def word_tokenizer(words: int) -> PreTrainedTokenizerFast:
    """A tokenizer of so many made-up words, `w4` and on behind four special tokens."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = [*special, *(f"w{number}" for number in range(len(special), words))]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def prompts(count: int, lengths: tuple[int, int], words: int, seed: int = 0) -> list[str]:
    """Prompts for `word_tokenizer`, their lengths uniform between two numbers of words."""
    random = np.random.default_rng(seed)
    return [
        " ".join(f"w{word}" for word in random.integers(4, words, random.integers(*lengths)))
        for _ in range(count)
    ]
