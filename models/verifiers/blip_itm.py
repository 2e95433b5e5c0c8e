"""BLIP's image-text matching: whether a candidate shows what a text describes.

    margin = score(matches) - score(does not),  P = softmax of the two (BLIP, arXiv:2201.12086)

It reads one picture and one text, so it is asked about the candidate and the caption of the wanted
image, and sees no reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from pydantic import Field

from models.checkpoints import PROCESSOR, TOKENIZER
from models.engine_settings import CheckpointSettings
from models.loaded_checkpoint import LoadedCheckpoint, images_scaled_by
from models.metering import Spent, current_meter
from models.protocols import Fingerprint
from models.verifiers.protocol import Mode, Refused, Verification, VerificationRequest

if TYPE_CHECKING:
    pass

VERSION: Final = 1
"""Raised when the code gives other margins to the same requests."""


class BlipItmSettings(CheckpointSettings):
    """BLIP with its image-text matching head in this process; it reads edited captions."""

    MODEL_TYPES: ClassVar[Sequence[str]] = ("blip",)
    ARCHITECTURES: ClassVar[Sequence[str]] = ("ForImageTextRetrieval",)
    NEEDED_FILES: ClassVar[Sequence[Sequence[str]]] = (TOKENIZER, PROCESSOR)

    modes: ClassVar[tuple[Mode, ...]] = ("pointwise",)
    """It reads one picture and one text."""

    engine: Literal["blip-itm"] = "blip-itm"
    batch_size: int = Field(32, ge=1)
    """Candidates read at once; changes a margin by rounding alone."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Checkpoint contents, precision and code version."""
        return {
            **self.contents("transformers-blip-itm", VERSION, lambda: self.load().fetch()),
            "images_scaled_by": images_scaled_by(),
        }

    def check(self) -> None:
        """Compare names and shapes of the weights with the model's; none is read.

        Raises:
            UnusableCheckpoint: Something is missing or does not fit.
        """
        from transformers import AutoProcessor, BlipForImageTextRetrieval

        from models.loaded_weights import check_model

        super().check()
        check_model(BlipForImageTextRetrieval, AutoProcessor, self.model, self.revision)

    def load(self) -> BlipItmVerifier:
        """The verifier; its checkpoint is read when the first request comes."""
        return BlipItmVerifier(self)


class BlipItmVerifier(LoadedCheckpoint[BlipItmSettings]):
    """Verifies candidates by BLIP; fulfils `models.verifiers.protocol.Verifier`."""

    MODEL = "BlipForImageTextRetrieval"

    def verify(self, requests: Iterable[VerificationRequest]) -> Iterator[Verification]:
        """Answer every request exactly once, in the order given; see `in_process`.

        A request without `target_text` is `rejected`.
        """
        from models.verifiers.in_process import verify_in_batches

        stream, size = iter(requests), self._settings.batch_size
        batches = iter(lambda: list(islice(stream, size)), [])
        yield from verify_in_batches(batches, self._verify_batch)

    def _verify_batch(self, requests: Sequence[VerificationRequest]) -> list[Verification]:
        import torch
        from torch.nn import functional

        if not all(request.target_text.strip() for request in requests):
            raise Refused("rejected", "the wanted image has no caption, which BLIP needs")
        inputs = self._processor(
            images=[request.candidate.convert("RGB") for request in requests],
            text=[request.target_text for request in requests],
            padding=True,
            return_tensors="pt",
        ).to(self._device)
        model, mask = self._model, inputs["attention_mask"]
        most = model.config.text_config.max_position_embeddings
        if mask.shape[1] > most:
            raise Refused("overlong", f"the text has {mask.shape[1]} tokens, BLIP reads {most}")
        with torch.inference_mode():
            # By parts: the library's own forward makes the pictures' mask on the CPU.
            seen = model.vision_model(pixel_values=inputs["pixel_values"].to(self._dtype))[0]
            read = model.text_encoder(
                input_ids=inputs["input_ids"],
                attention_mask=mask,
                encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones(seen.shape[:-1], device=self._device).long(),
            )
            head = model.itm_head  # in float32: scores of bf16 would tie
            first = read.last_hidden_state[:, 0].float()
            scores = functional.linear(first, head.weight.float(), head.bias.float())
        spent = Spent(questions=len(requests), calls=len(requests), prompt_tokens=int(mask.sum()))
        current_meter().add(spent)
        margins = (scores[:, 1] - scores[:, 0]).tolist()
        return [
            Verification(request.key, margin, 1.0, "yes" if margin > 0 else "no")
            for request, margin in zip(requests, margins, strict=True)
        ]
