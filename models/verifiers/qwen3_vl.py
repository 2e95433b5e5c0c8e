"""A vision-language model in this process that answers yes or no about a pair of pictures.

    margin = logsumexp(logits of "yes") - logsumexp(logits of "no")

at the position of the answer, in float32, over the single-token spellings of both words; nothing
is generated. For one spelling each, sigmoid(margin) is the two-token softmax of LamRA-Rank
(arXiv:2412.01720) and of Qwen3-VL-Reranker. The prompt is rendered by the checkpoint's own chat
template, as a server does it.

Qwen-VL models see each picture once a call and read the candidates of a query behind one prefix
(`packing`); LLaVA-OneVision reads one pair a row.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import Field

from models.checkpoints import PROCESSOR, checkpoint_folder
from models.engine_settings import CheckpointSettings
from models.loaded_checkpoint import LoadedCheckpoint, images_scaled_by, require_chat_template
from models.metering import Spent, current_meter
from models.protocols import Fingerprint
from models.verifiers.answer_tokens import (
    TOKENIZER_FILE,
    AnswerTokens,
    answer_tokens,
    mark_tokens,
)
from models.verifiers.choices import log_odds
from models.verifiers.grid import all_marks
from models.verifiers.prompt import Picture, VerifierPrompts
from models.verifiers.protocol import (
    MODES,
    Choice,
    GridRequest,
    Mode,
    Refused,
    Verification,
    VerificationRequest,
    VerificationStatus,
)

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

VERSION: Final = 1
"""Raised when the code gives other margins to the same requests."""

PACKED_TYPES: Final = ("qwen3_vl", "qwen2_5_vl", "qwen2_vl")
_KEPT_BYTES: Final = 2**28
"""Features of pictures that are kept within a call."""


class VlmVerifierSettings(CheckpointSettings):
    """A vision-language model in this process: Qwen3-VL, Qwen2.5-VL or LLaVA-OneVision."""

    MODEL_TYPES: ClassVar[Sequence[str]] = (*PACKED_TYPES, "llava_onevision")
    NEEDED_FILES: ClassVar[Sequence[Sequence[str]]] = ((TOKENIZER_FILE,), PROCESSOR)

    engine: Literal["qwen3-vl"] = "qwen3-vl"
    prompts: VerifierPrompts = VerifierPrompts()
    """How a pair is put in words."""
    batch_size: int = Field(16, ge=1)
    """Candidates read at once; changes a margin by rounding alone."""
    min_pixels: int = Field(0, ge=0)
    """Least pixels of a picture, to which a smaller one is enlarged; 0 is the checkpoint's own."""
    max_pixels: int = Field(0, ge=0)
    """Most pixels of a picture, to which a larger one is reduced; 0 is the checkpoint's own. A grid
    of candidates is one picture."""
    modes: tuple[Mode, ...] = Field(MODES, min_length=1)
    """Ways of asking that the checkpoint can answer; another one is refused (`verify.mode`)."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Checkpoint contents, precision, prompts, tokens of the answers, limits, code version."""
        return {
            **self.contents("transformers-vlm-verifier", VERSION, lambda: self.load().fetch()),
            "images_scaled_by": images_scaled_by(),
            "prompts": self.prompts.read().fingerprint,
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
            **answer_tokens(checkpoint_folder(self.model, self.revision)).fingerprint,
        }

    def check(self) -> None:
        """Compare names and shapes of the weights with the model's; none is read.

        Raises:
            UnusableCheckpoint: Something is missing or does not fit, an answer's token included.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from models.loaded_weights import check_model

        super().check()
        self.prompts.read()
        answer_tokens(checkpoint_folder(self.model, self.revision))
        check_model(AutoModelForImageTextToText, AutoProcessor, self.model, self.revision)

    def load(self) -> VlmVerifier:
        """The verifier; its checkpoint is read when the first request comes."""
        return VlmVerifier(self)


@dataclass(frozen=True)
class _SeenPicture:
    """A picture's grid (3,), its tokens (P, d) and its DeepStack tokens, each (P, d)."""

    grid: Tensor
    tokens: Tensor
    deepstack: Sequence[Tensor]

    @property
    def size(self) -> int:
        return sum(t.nbytes for t in (self.tokens, *self.deepstack))


class VlmVerifier(LoadedCheckpoint[VlmVerifierSettings]):
    """Verifies pairs with a checkpoint; fulfils `models.verifiers.protocol.Verifier`."""

    MODEL = "AutoModelForImageTextToText"

    def __init__(self, settings: VlmVerifierSettings) -> None:
        """Remember the settings.

        Raises:
            ValueError: A GPU is asked for and there is none, or a prompt cannot be read.
        """
        super().__init__(settings)
        self._texts = settings.prompts.read()

    def _set_up(self, processor: Any) -> Any:
        """Padding and pixel limits."""
        settings = self._settings
        require_chat_template(processor, settings.model)
        processor.tokenizer.padding_side = "left"  # the answer comes at the last position
        limits = {"shortest_edge": settings.min_pixels, "longest_edge": settings.max_pixels}
        if given := {name: value for name, value in limits.items() if value}:
            if not self._is_packed:
                raise ValueError(
                    f"{settings.model!r} takes no min_pixels and max_pixels: its pictures have one "
                    "size; set both to 0"
                )
            processor.image_processor.size = {**dict(processor.image_processor.size), **given}
        return processor

    @cached_property
    def _answers(self) -> AnswerTokens:
        settings = self._settings
        return answer_tokens(checkpoint_folder(settings.model, settings.revision))

    @property
    def _is_packed(self) -> bool:
        return self._model.config.model_type in PACKED_TYPES

    def verify(self, requests: Iterable[VerificationRequest]) -> Iterator[Verification]:
        """Answer every request exactly once, in the order given; see `in_process`.

        Raises:
            ValueError: Before the first answer, when the checkpoint cannot be used.
        """
        from models.verifiers.in_process import of_one_query, verify_in_batches

        size = self._settings.batch_size
        _ = self._processor
        if self._is_packed:
            self._seen: OrderedDict[str, _SeenPicture] = OrderedDict()
            yield from verify_in_batches(of_one_query(requests, size), self._verify_query)
        else:
            stream = iter(requests)
            pairs = iter(lambda: list(islice(stream, size)), [])
            yield from verify_in_batches(pairs, self._verify_pairs)

    def choose(self, requests: Iterable[GridRequest]) -> Iterator[Choice]:
        """Answer every request exactly once, in the order given; see `in_process`.

        Raises:
            ValueError: Before the first answer, when the checkpoint cannot be used or has marks of
                more than one token.
        """
        from models.verifiers.in_process import in_batches

        stream, size = iter(requests), self._settings.batch_size
        _ = self._processor, self._marks
        batches = iter(lambda: list(islice(stream, size)), [])
        yield from in_batches(batches, self._choose, _no_choice)

    @cached_property
    def _marks(self) -> dict[str, tuple[int, ...]]:
        """The tokens of each mark that a grid may have."""
        settings = self._settings
        folder = checkpoint_folder(settings.model, settings.revision)
        return dict(zip(all_marks(), mark_tokens(folder, all_marks()), strict=True))

    # ------------------------------------------------------------------ one pair a row

    def _verify_pairs(self, requests: Sequence[VerificationRequest]) -> list[Verification]:
        asked = [(request.text, (request.reference, request.candidate)) for request in requests]
        return self._answer(requests, *self._read_rows(asked))

    def _choose(self, requests: Sequence[GridRequest]) -> list[Choice]:
        if any(request.answer != "logits" for request in requests):
            raise Refused("rejected", "an order in text is asked of a server alone")
        asked = [(request.text, (request.reference, request.grid)) for request in requests]
        hidden, read = self._read_rows(asked)
        self._count(len(requests), read)
        return [
            self._choice(request, own[None]) for request, own in zip(requests, hidden, strict=True)
        ]

    def _choice(self, request: GridRequest, hidden: Tensor) -> Choice:
        """The answer by the last hidden state at its position (1, d)."""
        import torch

        own, whole, (word,) = self._read(hidden, [self._marks[mark] for mark in request.marks])
        logits = torch.cat(own)
        if not bool(logits.isfinite().all()):
            reason = f"the logits of the marks are {logits.tolist()}"
            return Choice(request.key, (), None, word, "engine_error", reason)
        mass = float(torch.exp(torch.logsumexp(logits, dim=0) - whole[0]))
        return Choice(request.key, log_odds(logits.tolist()), min(mass, 1.0), word)

    def _read_rows(self, asked: Sequence[tuple[str, Sequence[Image.Image]]]) -> tuple[Tensor, int]:
        """Last hidden states where the answers come (B, d), and how many tokens were read.

        Args:
            asked: Text and both pictures of each row.
        """
        import torch

        inputs = self._processor(
            text=[self._chat(text) for text, _ in asked],
            images=[[_rgb(picture) for picture in pictures] for _, pictures in asked],
            padding=True,
            add_special_tokens=False,
            return_tensors="pt",
        )
        read = int(inputs["attention_mask"].sum())
        self._require_room(int(inputs["attention_mask"].sum(dim=1).max()))
        with torch.inference_mode():
            inputs = inputs.to(self._device, self._dtype)
            return self._model.model(**inputs)[0][:, -1], read

    # ------------------------------------------------------------------ packed behind a prefix

    def _verify_query(self, requests: Sequence[VerificationRequest]) -> list[Verification]:
        import torch

        from models.verifiers.packing import pack

        pictures = {r.candidate_id: r.candidate for r in requests}
        pictures |= {r.reference_id: r.reference for r in requests}
        with torch.inference_mode():
            seen = self._see(pictures)
            pairs = [(seen[r.reference_id], seen[r.candidate_id]) for r in requests]
            chat = self._chat(requests[0].text)
            prompts = [self._prompt(chat, pair) for pair in pairs]
            self._require_room(max(map(len, prompts)))
            grids = [torch.stack([picture.grid for picture in pair]) for pair in pairs]
            model = self._model.model
            row = pack(model, prompts, grids, self._model.config.image_token_id)
            hidden = model(
                input_ids=row.ids.to(self._device),
                attention_mask=row.mask.to(self._device),
                position_ids=row.positions.to(self._device),
                mm_encoder_outputs={"image": self._features([pairs[0][0], *[c for _, c in pairs]])},
                use_cache=False,
            )[0][0, row.ends.to(self._device)]
        return self._answer(requests, hidden, row.ids.shape[1])

    def _see(self, pictures: dict[str, Image.Image]) -> dict[str, _SeenPicture]:
        """What the vision tower makes of pictures; those of one id once a call."""
        found = {key: self._seen[key] for key in pictures if key in self._seen}
        if unseen := [key for key in pictures if key not in found]:
            images = [_rgb(pictures[key]) for key in unseen]
            pixels = self._processor.image_processor(images=images, return_tensors="pt")
            grids = pixels["image_grid_thw"]
            out = self._model.model.get_image_features(
                pixels["pixel_values"].to(self._device, self._dtype),
                grids.to(self._device),
                return_dict=True,
            )
            self._features_kind = type(out)
            layers = getattr(out, "deepstack_features", None) or []
            for i, key in enumerate(unseen):
                deepstack = [layer[i] for layer in layers]
                found[key] = _SeenPicture(grids[i], out.pooler_output[i], deepstack)
                self._seen[key] = found[key]
        for key in pictures:
            self._seen.move_to_end(key)
        while sum(p.size for p in self._seen.values()) > _KEPT_BYTES and len(self._seen) > 1:
            self._seen.popitem(last=False)
        return found

    def _features(self, pictures: Sequence[_SeenPicture]) -> Any:
        """Features in the form in which the model's forward takes them."""
        features: dict[str, Any] = {"pooler_output": [p.tokens for p in pictures]}
        if pictures[0].deepstack:
            layers = range(len(pictures[0].deepstack))
            features["deepstack_features"] = [[p.deepstack[i] for p in pictures] for i in layers]
        return self._features_kind(**features)

    def _prompt(self, chat: str, pair: Sequence[_SeenPicture]) -> Tensor:
        """Tokens of a whole prompt (L,), with as many placeholders as a picture has tokens."""
        import torch

        mark = self._processor.image_token
        before, between, after = chat.split(mark)
        reference, candidate = (mark * len(picture.tokens) for picture in pair)
        text = f"{before}{reference}{between}{candidate}{after}"
        ids = self._processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor(ids)

    # ------------------------------------------------------------------ both

    def _chat(self, text: str) -> str:
        """The chat about a modification text, one mark for each picture.

        Raises:
            Refused: The text holds the mark of a picture.
        """
        content = [
            {"type": "image"} if isinstance(part, Picture) else {"type": "text", "text": part}
            for part in self._texts.user(text)
        ]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self._texts.system:
            said = [{"type": "text", "text": self._texts.system}]
            messages.insert(0, {"role": "system", "content": said})
        chat = str(self._processor.apply_chat_template(messages, add_generation_prompt=True))
        if (held := chat.count(self._processor.image_token)) != 2:
            raise Refused(
                "rejected",
                f"the chat holds {self._processor.image_token} {held} times, not twice; a text "
                "must not name it, and the chat template must place both pictures",
            )
        return chat

    def _require_room(self, tokens: int) -> None:
        most = self._model.config.get_text_config().max_position_embeddings
        if tokens > most:
            raise Refused("overlong", f"the prompt has {tokens} tokens, the model reads {most}")

    def _answer(
        self, requests: Sequence[VerificationRequest], hidden: Tensor, read: int
    ) -> list[Verification]:
        """Margins from the last hidden states where the answers come (k, d)."""
        import torch

        groups = (self._answers.yes, self._answers.no)
        (yes, no), whole, words = self._read(hidden, groups)
        masses = torch.exp(torch.logaddexp(yes, no) - whole).clamp(max=1.0).tolist()
        self._count(len(requests), read)
        return [
            _verification(request.key, margin, mass, word)
            for request, margin, mass, word in zip(
                requests, (yes - no).tolist(), masses, words, strict=True
            )
        ]

    def _read(
        self, hidden: Tensor, groups: Sequence[Sequence[int]]
    ) -> tuple[list[Tensor], Tensor, list[str]]:
        """What stands at the positions of answers.

        Args:
            hidden: Last hidden states (k, d).
            groups: Ids of tokens that are one answer.

        Returns:
            Logit of each answer (k,), the sum of all tokens on the same scale (k,), and the
            likeliest tokens.
        """
        import torch

        with torch.inference_mode():
            head = self._model.get_output_embeddings()
            logits = head(hidden).float()
            # In float32: logits of bf16 are multiples of an eighth, and margins would tie.
            own = [
                torch.logsumexp(hidden.float() @ head.weight[list(ids)].float().T, dim=-1)
                for ids in groups
            ]
            whole = torch.logsumexp(logits, dim=-1)
        words = self._processor.tokenizer.batch_decode(logits.argmax(dim=-1)[:, None])
        return own, whole, [word.strip() for word in words]

    @staticmethod
    def _count(questions: int, tokens: int) -> None:
        spent = Spent(questions=questions, calls=questions, prompt_tokens=tokens, answer_tokens=0)
        current_meter().add(spent)


def _no_choice(request: GridRequest, status: VerificationStatus, reason: str) -> Choice:
    return Choice(request.key, (), None, "", status, reason)


def _verification(key: str, margin: float, mass: float, word: str) -> Verification:
    if not math.isfinite(margin):
        return Verification(key, None, None, word, "engine_error", f"the margin is {margin}")
    return Verification(key, margin, mass, word)


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")
