"""A causal language model answering prompts in this process, through transformers.

Made for very many short prompts: equal requests are answered once, prompts are sorted by
length so that batches carry little padding, and finished rows leave the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from pydantic import Field

from models.captioners.seeds import stream_seed
from models.checkpoints import (
    ADAPTER,
    checkpoint_folder,
    checkpoint_identity,
    files_are_here,
    require_files,
)
from models.devices import pick_device, pick_dtype
from models.engine_settings import CheckpointSettings
from models.generators.adapter_card import benchmark_texts_seen, read_card, weights_hash
from models.generators.answer_reader import cut_at_stop
from models.generators.answers import check_request, reply_to
from models.generators.prompt_tokens import (
    has_chat_template,
    has_thinking_switch,
    prompt_texts,
    token_ids,
    uses_chat,
)
from models.generators.text_settings import TextGeneratorSettings
from models.metering import Meter, Spent, counting_for, current_meter, device_time
from models.protocols import Fingerprint, TextReply, TextRequest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from models.captioners.decoding import Row, StopTest

VERSION: Final = 1
"""Raised when the code gives other answers to the same requests."""

_WINDOW_BATCHES: Final = 4
"""Requests are read this many batches ahead, to be sorted by length and freed of repeats."""

_ENGINE_FAILURES = (RuntimeError, ValueError, MemoryError)


class TransformersSettings(TextGeneratorSettings, CheckpointSettings):
    """A causal language model in this process."""

    ARCHITECTURES: ClassVar[Sequence[str]] = (
        "ForCausalLM",
        "LMHeadModel",
        "ForConditionalGeneration",
    )

    engine: Literal["transformers"] = "transformers"
    adapter: str = ""
    """peft adapter, directory or hub id, which is merged into the weights. One with a card
    (`models.generators.adapter_card`) is refused on another base."""
    batch_size: int = Field(128, ge=1)
    """Prompts run at once."""
    chat: Literal["auto", "never"] = "auto"
    """auto wraps a prompt in the tokenizer's chat template if it has one; never sends it as it
    is."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Contents of checkpoint and adapter, chat use, precision and code version.

        A model that was tuned on texts of benchmarks says so (`saw_benchmark_texts`): what it
        makes is not zero-shot.

        Raises:
            ValueError: The adapter does not fit the model.
        """
        contents = self.contents("transformers", VERSION, lambda: self.load().fetch())
        self.check_adapter()
        seen = benchmark_texts_seen(self.model, self.adapter)
        return {
            **contents,
            "adapter": dict(checkpoint_identity(self.adapter)) if self.adapter else {},
            "chat": self._uses_chat,
            **({"thinking": False} if self._can_skip_thinking else {}),
            **({"saw_benchmark_texts": seen} if seen else {}),
        }

    def check(self) -> None:
        """Compare names and shapes of the weights with the model's; none is read.

        Raises:
            UnusableCheckpoint: Something is missing or does not fit.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from models.loaded_adapter import check_adapter_weights
        from models.loaded_weights import check_model

        super().check()
        model = check_model(AutoModelForCausalLM, AutoTokenizer, self.model, self.revision)
        if self.adapter:
            self.check_adapter()
            check_adapter_weights(model, self.adapter)

    def is_here(self) -> bool:
        """Whether the checkpoint and the adapter are on this machine, and fit by their card."""
        found = super().is_here()
        if self.adapter:
            found &= files_are_here(
                self.adapter,
                require_fit=lambda folder: require_files(
                    self.adapter, [path.name for path in folder.iterdir()], ADAPTER
                ),
            )
        if found:
            self.check_adapter()
        return found

    def load(self) -> TransformersGenerator:
        """The generator; its weights are read when the first prompt comes."""
        return TransformersGenerator(self)

    def check_adapter(self) -> None:
        """Refuse an adapter whose card says that it belongs to something else.

        Raises:
            ValueError: Saying what the adapter was made for.
        """
        if card := read_card(self.adapter) if self.adapter else None:
            files = checkpoint_identity(self.model, self.revision)
            card.require_fit(weights_hash(files), "chat" if self._uses_chat else "raw")

    @property
    def _uses_chat(self) -> bool:
        folder = checkpoint_folder(self.model, self.revision)
        return self.chat == "auto" and has_chat_template(folder)

    @property
    def _can_skip_thinking(self) -> bool:
        folder = checkpoint_folder(self.model, self.revision)
        return self._uses_chat and has_thinking_switch(folder)


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A request with its token ids, and the meter of who asked it first."""

    request: TextRequest
    tokens: tuple[int, ...]
    meter: Meter


class TransformersGenerator:
    """Answers prompts in process; fulfils `models.protocols.TextGenerator`."""

    def __init__(self, settings: TransformersSettings) -> None:
        """Remember the settings.

        Raises:
            ValueError: A GPU is asked for and there is none.
        """
        self._settings = settings
        self._device = pick_device(settings.device)
        self._dtype = pick_dtype(settings.dtype, settings.device)
        self._stops: dict[tuple[str, ...], _StopFinder] = {}

    def fetch(self) -> None:
        """Bring all files of a hub's checkpoint to this machine."""
        _ = self._tokenizer, self._model

    @cached_property
    def _model(self) -> PreTrainedModel:
        from transformers import AutoModelForCausalLM

        from models.loaded_adapter import load_adapter
        from models.loaded_weights import load_model

        settings = self._settings
        model: PreTrainedModel = load_model(
            AutoModelForCausalLM, settings.model, settings.revision, dtype=self._dtype
        )
        if settings.adapter:
            settings.check_adapter()
            model = load_adapter(model, settings.adapter).merge_and_unload()
        return model.eval().to(self._device)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        from models.loaded_weights import load_processor

        settings = self._settings
        tokenizer: PreTrainedTokenizerBase = load_processor(
            AutoTokenizer, settings.model, settings.revision, self._model
        )
        return tokenizer

    @cached_property
    def _end_tokens(self) -> tuple[int, ...]:
        ends = self._model.generation_config.eos_token_id
        ends = self._tokenizer.eos_token_id if ends is None else ends
        return () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)

    @property
    def _uses_chat(self) -> bool:
        return uses_chat(self._tokenizer, self._settings.chat)

    @property
    def _context(self) -> int | None:
        return getattr(self._model.config, "max_position_embeddings", None)

    def generate(self, requests: Iterable[TextRequest]) -> Iterator[TextReply]:
        """Answer every request exactly once, window by window, shortest prompts first.

        Raises:
            UnusableCheckpoint: Before the first answer.
        """
        stream = ((request, current_meter()) for request in requests)
        size = self._settings.batch_size * _WINDOW_BATCHES
        while window := list(itertools.islice(stream, size)):
            self.fetch()  # what is wrong with the checkpoint is not a prompt's fault
            yield from self._answer_window(window)

    def _answer_window(self, window: Sequence[tuple[TextRequest, Meter]]) -> Iterator[TextReply]:
        """Answer distinct requests in batches of one kind of decoding and similar length."""
        keys_of: dict[TextRequest, list[str]] = {}
        meters: dict[TextRequest, Meter] = {}
        for request, meter in window:
            check_request(request)
            keys_of.setdefault(_without_name(request), []).append(request.key)
            meters.setdefault(_without_name(request), meter)
        prompts, refused = self._tokenise(meters)
        for reply in itertools.chain(refused, self._answer_prompts(prompts)):
            for key in keys_of[reply[0]]:
                yield replace(reply[1], key=key)

    def _answer_prompts(
        self, prompts: Sequence[_Prompt]
    ) -> Iterator[tuple[TextRequest, TextReply]]:
        ordered = sorted(prompts, key=lambda p: (_decoding_kind(p.request), len(p.tokens)))
        for _, group in itertools.groupby(ordered, key=lambda p: _decoding_kind(p.request)):
            while batch := list(itertools.islice(group, self._settings.batch_size)):
                yield from self._answer_or_split(batch)

    def _answer_or_split(self, batch: Sequence[_Prompt]) -> Iterator[tuple[TextRequest, TextReply]]:
        """Answer a batch; when it fails (memory, mostly), halve it down to single prompts."""
        reason = ""
        try:
            with counting_for([prompt.meter for prompt in batch]):
                replies = self._answer_batch(batch)
        except _ENGINE_FAILURES as failure:
            reason = f"{type(failure).__name__}: {str(failure).strip()[:300]}"
        if not reason:
            yield from zip([prompt.request for prompt in batch], replies, strict=True)
        elif len(batch) == 1:
            request = batch[0].request
            yield request, TextReply(request.key, "", "engine_error", reason)
        else:
            import torch

            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            half = len(batch) // 2
            yield from self._answer_or_split(batch[:half])
            yield from self._answer_or_split(batch[half:])

    def _answer_batch(self, batch: Sequence[_Prompt]) -> list[TextReply]:
        """Decode prompts that share everything but prompt and seed, padded on the left."""
        import torch

        from models.captioners.decoding import Sampling, decode

        request = batch[0].request
        longest = max(len(prompt.tokens) for prompt in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for line, prompt in enumerate(batch):
            ids[line, longest - len(prompt.tokens) :] = torch.tensor(prompt.tokens)
            mask[line, longest - len(prompt.tokens) :] = 1
        seeds: tuple[int, ...] = ()
        if request.temperature > 0:
            seeds = tuple(stream_seed("text", prompt.request.seed) for prompt in batch)
        with device_time():
            rows = decode(
                self._model,
                {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)},
                max_new_tokens=request.max_new_tokens,
                end_tokens=self._end_tokens,
                sampling=Sampling(seeds, request.temperature, request.top_p),
                is_complete=self._stop_test(request.stop),
            )
        current_meter().add(
            Spent(
                questions=len(batch),
                calls=len(batch),
                prompt_tokens=sum(len(prompt.tokens) for prompt in batch),
                answer_tokens=sum(len(row.tokens) for row in rows),
            )
        )
        return self._replies(batch, rows)

    def _replies(self, batch: Sequence[_Prompt], rows: Sequence[Row]) -> list[TextReply]:
        texts = self._tokenizer.batch_decode([row.tokens for row in rows], skip_special_tokens=True)
        return [
            reply_to(prompt.request, text, row.finish_reason)
            for prompt, text, row in zip(batch, texts, rows, strict=True)
        ]

    def _tokenise(
        self, requests: Mapping[TextRequest, Meter]
    ) -> tuple[list[_Prompt], list[tuple[TextRequest, TextReply]]]:
        """Token ids of every prompt, and refusals of prompts that leave no room for an answer."""
        texts = prompt_texts(self._tokenizer, [r.prompt for r in requests], self._uses_chat)
        encoded = token_ids(self._tokenizer, texts, self._uses_chat)
        prompts, refused = [], []
        for (request, meter), tokens in zip(requests.items(), encoded, strict=True):
            reason = self._length_problem(len(tokens), request.max_new_tokens)
            if reason:
                refused.append((request, TextReply(request.key, "", "overlong", reason)))
            else:
                prompts.append(_Prompt(request, tuple(tokens), meter))
        return prompts, refused

    def _length_problem(self, num_tokens: int, max_new_tokens: int) -> str:
        if self._context is None or num_tokens + max_new_tokens <= self._context:
            return ""
        return (
            f"the prompt has {num_tokens} tokens and asks for {max_new_tokens} more, but the "
            f"model's context is {self._context}"
        )

    def _stop_test(self, stop: tuple[str, ...]) -> StopTest | None:
        if not stop:
            return None
        if stop not in self._stops:
            self._stops[stop] = _StopFinder(self._tokenizer, stop)
        return self._stops[stop]


class _StopFinder:
    """Whether tokens hold a stop string, decoding only when the last token could complete one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        last = {text[-1] for text in stop}
        pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        # A character beyond ASCII may be spread over several byte tokens, none of which shows it.
        always = not all(character.isascii() for character in last)
        self._may_end = frozenset(
            token for token, piece in enumerate(pieces) if always or last & set(piece)
        )

    def __call__(self, tokens: Sequence[int]) -> bool:
        """True when the text of `tokens` contains a stop string after its first words."""
        if tokens[-1] not in self._may_end:
            return False
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return cut_at_stop(text, self._stop) != text


def _without_name(request: TextRequest) -> TextRequest:
    """The request reduced to what decides its answer; equal ones are answered once."""
    seed = request.seed if request.temperature > 0 else 0
    return replace(request, key="", seed=seed)


def _decoding_kind(request: TextRequest) -> tuple[int, float, float, tuple[str, ...]]:
    """The values that requests of one batch share."""
    return request.max_new_tokens, request.temperature, request.top_p, request.stop
