"""A vision-language model in this process whose last position is a vector of image and text.

    v = h_L[last position that is not padding], cut to the first d numbers

The vector is not normalised here; the models' own programs do so afterwards, and a cosine does not
see the length. How a query is put to the model is a form (`forms`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import Field

from models.captioners.chat import check_proportions
from models.checkpoints import CONFIG_FILE, PROCESSOR, TOKENIZER, checkpoint_folder
from models.embedders.forms import Form, FormSettings
from models.embedders.prompts import prompt_of
from models.embedders.protocol import (
    NO_EMBEDDER,
    ComposedQuery,
    Embedded,
    EmbedderEngine,
)
from models.engine_settings import CheckpointSettings
from models.loaded_checkpoint import LoadedCheckpoint, images_scaled_by, require_chat_template
from models.metering import Spent, current_meter
from models.protocols import Fingerprint

if TYPE_CHECKING:
    from PIL import Image

    from models.protocols import FloatArray

VERSION: Final = 1
"""Raised when the code gives other vectors to the same queries."""


class ChatEmbedderSettings(EmbedderEngine, CheckpointSettings):
    """A vision-language model that embeds: Qwen3-VL-Embedding, GME, VLM2Vec or BGE-VL-MLLM."""

    MODEL_TYPES: ClassVar[Sequence[str]] = ("qwen3_vl", "qwen2_5_vl", "qwen2_vl", "llava_next")
    NEEDED_FILES: ClassVar[Sequence[Sequence[str]]] = (TOKENIZER, PROCESSOR)

    engine: Literal["chat-embedder"] = "chat-embedder"
    model: str = ""
    """Directory or hub id; empty: none."""
    form: FormSettings = FormSettings()
    """How queries and targets are put to the model."""
    dimensions: int = Field(0, ge=0)
    """Numbers of a vector that are kept, for models trained to be cut (Matryoshka); 0: all."""
    batch_size: int = Field(8, ge=1)
    """Queries or pictures read at once; changes a vector by rounding alone."""

    @property
    def lacking(self) -> str:
        """A checkpoint."""
        return "" if self.model else NO_EMBEDDER

    @property
    def asked(self) -> str:
        """The instruction of queries."""
        return self.instruction or self.form.form.query_instruction

    @property
    def dim(self) -> int:
        """The language model's width, or less.

        Raises:
            ValueError: More numbers are to be kept than there are.
        """
        self.files(lambda: self.load().fetch())
        path = checkpoint_folder(self.model, self.revision) / CONFIG_FILE
        config = json.loads(path.read_bytes())
        width = int(config.get("text_config", {}).get("hidden_size") or config["hidden_size"])
        if self.dimensions > width:
            raise ValueError(
                f"dimensions={self.dimensions} is more than the {width} numbers of a vector of "
                f"{self.model!r}; set it to {width} or less, or to 0"
            )
        return self.dimensions or width

    @property
    def fingerprint(self) -> Fingerprint:
        """Checkpoint contents, precision, form, dimensions and code version."""
        return {
            **self.contents("transformers-chat-embedder", VERSION, lambda: self.load().fetch()),
            "images_scaled_by": images_scaled_by(),
            "form": self.form.form.fingerprint,
            "dimensions": self.dimensions,
        }

    def load(self) -> ChatEmbedder:
        """The embedder; its checkpoint is read when the first query comes."""
        return ChatEmbedder(self)


class ChatEmbedder(LoadedCheckpoint[ChatEmbedderSettings]):
    """Embeds with a checkpoint; fulfils `models.embedders.protocol.ComposedEmbedder`."""

    MODEL = "AutoModelForImageTextToText"

    def __init__(self, settings: ChatEmbedderSettings) -> None:
        """Remember the settings.

        Raises:
            ValueError: A GPU is asked for and there is none.
        """
        super().__init__(settings)
        self._form: Form = settings.form.form

    def _set_up(self, processor: Any) -> Any:
        """Padding and pixel limits of the form."""
        form = self._form
        if form.chat:
            require_chat_template(processor, self._settings.model)
        processor.tokenizer.padding_side = form.padding
        limits = {"shortest_edge": form.min_pixels, "longest_edge": form.max_pixels}
        if given := {name: value for name, value in limits.items() if value}:
            size = dict(processor.image_processor.size)
            processor.image_processor.size = {**size, **given}
        return processor

    def encode_composed(self, queries: Iterable[ComposedQuery], instruction: str) -> Embedded:
        """Vectors of queries under an instruction."""
        return self._embedded(queries, instruction, target=False)

    def encode_targets(self, pictures: Iterable[Image.Image]) -> Embedded:
        """Vectors of gallery pictures under the form's instruction of targets."""
        shown = (ComposedQuery((picture,), "") for picture in pictures)
        return self._embedded(shown, self._form.target_instruction, target=True)

    def _embedded(
        self, queries: Iterable[ComposedQuery], instruction: str, *, target: bool
    ) -> Embedded:
        from models.embedders.in_process import embed_in_batches

        _ = self._processor  # a checkpoint that cannot be used is not a query's failure

        def embed(part: Sequence[ComposedQuery]) -> FloatArray:
            return self._embed(part, instruction, target)

        return embed_in_batches(queries, self._settings.batch_size, self._settings.dim, embed)

    def _embed(
        self, queries: Sequence[ComposedQuery], instruction: str, target: bool
    ) -> FloatArray:
        import torch

        images = [self._picture(each) for query in queries for each in query.pictures]
        inputs = self._processor(
            text=[
                prompt_of(
                    self._processor,
                    self._form,
                    len(query.pictures),
                    query.text,
                    instruction,
                    target=target,
                )
                for query in queries
            ],
            images=images or None,
            padding=True,
            return_tensors="pt",
        )
        mask = inputs["attention_mask"]
        most = self._model.config.get_text_config().max_position_embeddings
        if (longest := int(mask.sum(dim=1).max())) > most:
            raise ValueError(f"a prompt has {longest} tokens, the model reads {most}")
        last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
        with torch.inference_mode():
            inputs = inputs.to(self._device, self._dtype)
            hidden = self._model.model(**inputs)[0]
            found = hidden[torch.arange(len(queries)), last.to(hidden.device)].float().cpu()
        current_meter().add(Spent(prompt_tokens=int(mask.sum())))
        made: FloatArray = found[:, : self._settings.dimensions or None].numpy()
        return made

    def _picture(self, image: Image.Image) -> Image.Image:
        check_proportions(image)
        shown = image if image.mode == "RGB" else image.convert("RGB")
        side = self._form.side
        return shown.resize((side, side)) if side else shown
