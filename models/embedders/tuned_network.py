"""A Qwen-VL model as a composed network: its last position is the vector, and all of it is trained.

Shape legend: B batch, L tokens, S side of a picture in pixels, p side of a patch, d width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Self

import torch
import transformers
from open_clip.transform import PreprocessCfg

from models.composed.network import ComposedNetwork, Texts
from models.embedders.forms import PRESETS, Form
from models.embedders.prompts import prompt_of
from models.embedders.tunable import require_tunable
from models.encoders.preprocess import ImagePreprocess
from models.loaded_checkpoint import require_chat_template
from models.loaded_weights import load_model, load_processor
from models.training.trainable import ParameterGroup, parameter_groups

if TYPE_CHECKING:
    from models.composed.tuned_embedding import TunedEmbeddingSettings

LARGEST_SIDE: Final = 448
_PROCESSOR_FILES: Final = (
    "chat_template.jinja",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
"""What a processor is read from; a checkpoint has some of them."""


@dataclass(frozen=True)
class Prompts:
    """What the model is asked.

    Attributes:
        form: Name of the form.
        instruction: Of queries; empty: the form's.
        target_instruction: Of gallery pictures; empty: the form's.
    """

    form: str
    instruction: str
    target_instruction: str

    @property
    def full(self) -> Form:
        """The form."""
        return PRESETS[self.form]  # type: ignore[index]

    @property
    def asked(self) -> str:
        """The instruction of queries in full."""
        return self.instruction or self.full.query_instruction

    @property
    def shown(self) -> str:
        """The instruction of gallery pictures in full."""
        return self.target_instruction or self.full.target_instruction


class EmbeddingNetwork(ComposedNetwork):
    """Queries and gallery pictures through one vision-language model.

    Attributes:
        model: A model class of transformers; its head for words is not used and not trained.
    """

    def __init__(
        self, model: Any, processor: Any, files: Mapping[str, bytes], prompts: Prompts, side: int
    ) -> None:
        """Take over a model and its processor.

        Args:
            model: Of Qwen2-VL, Qwen2.5-VL or Qwen3-VL.
            processor: Its processor.
            files: The files that the processor was read from.
            prompts: What the model is asked.
            side: S; a multiple of the pixels of a picture token.
        """
        super().__init__()
        self.model = model
        if not model.config.tie_word_embeddings:
            model.lm_head.requires_grad_(False)
        self._processor = processor
        self._files = dict(files)
        self._prompts = prompts
        reader = processor.image_processor
        self._patch, self._merged = int(reader.patch_size), int(reader.merge_size)
        self._frames = int(reader.temporal_patch_size)
        self._side = side
        pixels = PreprocessCfg(
            size=(side, side),
            mean=tuple(reader.image_mean),
            std=tuple(reader.image_std),
            interpolation="bicubic",
            resize_mode="squash",
        )
        self.preprocess = ImagePreprocess("clip", 1.0, pixels)

    @classmethod
    def continuing(cls, start: Self, settings: TunedEmbeddingSettings) -> Self:
        """Training on another one, whose weights are taken over, with prompts of its own."""
        side = settings.side or start._side
        _require_side(start._processor, side)
        made = cls(start.model, start._processor, start._files, _prompts(settings), side)
        made.base, made.scale = start.base, settings.scale
        return made.requires_grad_(True)

    @classmethod
    def rebuilt(cls, architecture: Mapping[str, Any], folder: Path) -> Self:
        """A network without weights, from `architecture` and the folder of its files."""
        config = transformers.AutoConfig.for_model(**architecture["model"])
        with torch.random.fork_rng(devices=[]):
            model = transformers.AutoModelForImageTextToText.from_config(config)
        files = _files_of(folder)
        with TemporaryDirectory() as own:  # the folder's config.json is a network's
            for name, data in files.items():
                (Path(own) / name).write_bytes(data)
            config.save_pretrained(own)
            processor = load_processor(transformers.AutoProcessor, own, "", model)
        prompts = Prompts(**architecture["prompts"])
        return cls(model, processor, files, prompts, architecture["side"])

    @property
    def dim(self) -> int:
        """d, the language model's width."""
        return int(self.model.config.get_text_config().hidden_size)

    def architecture(self) -> dict[str, Any]:
        """The model's configuration, the side of pictures, and what is asked."""
        return {
            "model": json.loads(self.model.config.to_json_string(use_diff=False)),
            "side": self._side,
            "prompts": vars(self._prompts),
        }

    def files(self) -> Mapping[str, bytes]:
        """Those of the processor."""
        return self._files

    def tokenised(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """`texts`: ids (B, L) of whole prompts, filled up on the right; `read`: (B, L) which count.

        Raises:
            ValueError: A prompt is longer than the model reads.
        """
        return self._ids([self._prompt(text, self._prompts.asked, target=False) for text in texts])

    def query(self, pixels: torch.Tensor, texts: Texts) -> torch.Tensor:
        """Vectors (B, d) of reference images under texts."""
        return self._last(pixels, texts["texts"], texts["read"])

    def target(self, pixels: torch.Tensor) -> torch.Tensor:
        """Vectors (B, d) of gallery pictures."""
        prompt = self._prompt("", self._prompts.shown, target=True)
        read = self._ids([prompt])
        ids, mask = (each.to(pixels.device).expand(len(pixels), -1) for each in read.values())
        return self._last(pixels, ids, mask)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Keep only the layers' inputs for the backward pass."""
        if enabled:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            self.model.gradient_checkpointing_disable()

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Everything is pre-trained."""
        return parameter_groups(self, lambda name: False)

    def save_pretrained(self, folder: Path) -> None:
        """Write the model as transformers and servers read it; the configuration comes last."""
        for name, data in self._files.items():
            (folder / name).write_bytes(data)
        self.model.save_pretrained(folder)

    def as_embedder(self) -> dict[str, Any]:
        """Settings under which a chat embedder gives the same vectors, by dotted name."""
        return {
            "form.preset": self._prompts.form,
            "form.side": self._side,
            "form.target_instruction": self._prompts.shown,
            "instruction": self._prompts.asked,
        }

    # ------------------------------------------------------------------ the model's own input

    def _prompt(self, text: str, instruction: str, *, target: bool) -> str:
        prompt = prompt_of(self._processor, self._prompts.full, 1, text, instruction, target=target)
        mark = str(self._processor.image_token)
        tokens = (self._side // (self._patch * self._merged)) ** 2
        return prompt.replace(mark, mark * tokens)

    def _ids(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        read = self._processor.tokenizer(
            list(prompts), padding=True, padding_side="right", return_tensors="pt"
        )
        most = int(self.model.config.get_text_config().max_position_embeddings)
        if (longest := read["input_ids"].shape[1]) > most:
            raise ValueError(f"a prompt has {longest} tokens, the model reads {most}")
        return {"texts": read["input_ids"], "read": read["attention_mask"]}

    def _last(self, pixels: torch.Tensor, ids: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        patches = self._side // self._patch
        grid = torch.tensor([[1, patches, patches]], device=pixels.device)
        config = self.model.config
        kinds = (ids == config.image_token_id).int()
        hidden = self.model.model(
            input_ids=ids,
            attention_mask=read,
            pixel_values=self._patches(pixels),
            image_grid_thw=grid.expand(len(pixels), -1),
            mm_token_type_ids=kinds,
        )[0]
        vectors: torch.Tensor = hidden[torch.arange(len(ids)), read.sum(dim=1) - 1]
        return vectors

    def _patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) -> (B (S/p)^2, 3 frames p p), in the order of the library's processor."""
        count, merged, side = len(pixels), self._merged, self._patch
        wide = self._side // (side * merged)
        cut = pixels.view(count, 3, wide, merged, side, wide, merged, side)
        cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7)  # B, rows, columns, m, m, 3, p, p
        frames = cut.unsqueeze(6).expand(*cut.shape[:6], self._frames, side, side)
        return frames.reshape(-1, 3 * self._frames * side * side)


def published_embedder(folder: Path, settings: TunedEmbeddingSettings) -> EmbeddingNetwork:
    """A checkpoint of transformers as a network.

    Args:
        folder: Of Qwen3-VL-Embedding, GME, or another Qwen-VL model, with its processor.
        settings: Prompts, and the side of pictures.

    Raises:
        UnusableCheckpoint: A weight or file is missing or does not fit, or it is another model's.
    """
    require_tunable(folder)
    model = load_model(transformers.AutoModelForImageTextToText, str(folder), dtype=torch.float32)
    processor = load_processor(transformers.AutoProcessor, str(folder), "", model)
    require_chat_template(processor, str(folder))
    side = settings.side or _largest_side(processor)
    _require_side(processor, side)
    made = EmbeddingNetwork(model, processor, _files_of(folder), _prompts(settings), side)
    made.scale = settings.scale
    return made


def _prompts(settings: TunedEmbeddingSettings) -> Prompts:
    return Prompts(settings.form, settings.instruction, settings.target_instruction)


def _files_of(folder: Path) -> dict[str, bytes]:
    found = (folder / name for name in _PROCESSOR_FILES)
    return {path.name: path.read_bytes() for path in found if path.is_file()}


def _unit(processor: Any) -> int:
    reader = processor.image_processor
    return int(reader.patch_size) * int(reader.merge_size)


def _largest_side(processor: Any) -> int:
    pixels = min(int(processor.image_processor.size["longest_edge"]), LARGEST_SIDE**2)
    unit = _unit(processor)
    return math.isqrt(pixels) // unit * unit


def _require_side(processor: Any, side: int) -> None:
    unit = _unit(processor)
    if side < unit or side % unit:
        raise ValueError(f"side={side}: a picture token has {unit} pixels; give a multiple of it")
