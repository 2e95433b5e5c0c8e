"""Edited captions by a language model of LLaMA-7B's shape: the project's engine against `generate`.

Both answer the same prompts greedily in batches of similar length. Random weights end no answer
early. Decoding reads all weights and the cache for each token of a batch: the copy limit binds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import torch

from bench.gpu import made
from bench.gpu.case import Case
from bench.gpu.records import Row, Work
from bench.gpu.timing import Clock
from bench.gpu.work import Decoder
from models.generators.transformers import TransformersGenerator, TransformersSettings
from models.protocols import TextRequest

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

_LENGTHS: Final = (120, 200)
"""Words of a prompt: an instruction with its examples, a caption and a modification text."""
_TOKENS: Final = 64
_BATCH: Final = 128


def measure(case: Case) -> Iterator[Row]:
    """One row: answer tokens a second, two batches in a turn."""
    config = _config(case.small)
    batch, tokens = (3, 5) if case.small else (_BATCH, _TOKENS)
    model = _model(config, case)
    tokenizer = made.word_tokenizer(config.vocab_size)
    engine = _engine(model, tokenizer, case, batch)
    lengths = (4, 9) if case.small else _LENGTHS
    prompts = made.prompts(2 * batch, lengths, config.vocab_size)
    requests = [
        TextRequest(str(number), prompt, max_new_tokens=tokens)
        for number, prompt in enumerate(prompts)
    ]
    clock, found = Clock(case.device), {"ours": [""], "bare": [""]}

    def ours() -> None:
        answers = {reply.key: reply for reply in engine.generate(requests)}
        if wrong := [reply for reply in answers.values() if reply.status == "engine_error"]:
            raise RuntimeError(f"{len(wrong)} prompts have no answer: {wrong[0].reason}")
        found["ours"] = [answers[request.key].text for request in requests]

    def bare() -> None:
        found["bare"] = bare_answers(model, tokenizer, prompts, batch, tokens)

    memory = clock.peak_of(ours)
    bare()
    turns = clock.interleaved(ours, bare, case.until, warm=True)
    assert turns.bare_seconds is not None
    same = sum(a.strip() == b.strip() for a, b in zip(found["ours"], found["bare"], strict=True))
    mean = round(sum(len(prompt.split()) for prompt in prompts) / len(prompts))
    decoder = Decoder.of(config, model.dtype.itemsize)
    yield Row(
        part="edits",
        what=f"LLaMA-7B's shape, prompts of {mean} tokens, answers of {tokens}, batches of {batch}",
        unit="tokens",
        rate=len(prompts) * tokens / turns.seconds,
        bare=len(prompts) * tokens / turns.bare_seconds,
        spread=turns.spread,
        turns=len(turns.ours),
        work=Work(
            flops=decoder.answer_flops(mean, tokens) / tokens,
            dtype=case.half,
            moved=decoder.answer_bytes(batch, mean, tokens) / (batch * tokens),
        ),
        memory=memory,
        note=f"{len(prompts) / turns.seconds:.2f} requests/s; answers as by `generate`: "
        f"{same} of {len(prompts)}",
        more={"requests_per_second": len(prompts) / turns.seconds, "equal": same},
    )


def bare_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[str],
    batch: int,
    tokens: int,
) -> list[str]:
    """Greedy answers by the library, in batches of similar length, in the order of the prompts."""
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place].split()))
    texts = [""] * len(prompts)
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        given = tokenizer(
            [prompts[place] for place in places],
            padding=True,
            padding_side="left",
            return_tensors="pt",
            return_token_type_ids=False,
        ).to(model.device)
        with torch.inference_mode():
            rows = model.generate(**given, do_sample=False, max_new_tokens=tokens)
        new = rows[:, given["input_ids"].shape[1] :]
        for place, text in zip(
            places, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True
        ):
            texts[place] = text
    return texts


def _engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, case: Case, batch: int
) -> TransformersGenerator:
    """The engine with a random model in the place of a checkpoint's."""
    settings = TransformersSettings(
        model="random", device=str(case.device), dtype=case.half, batch_size=batch
    )
    engine = TransformersGenerator(settings)
    engine.__dict__["_model"] = model
    engine.__dict__["_tokenizer"] = tokenizer
    return engine


def _model(config: LlamaConfig, case: Case) -> PreTrainedModel:
    from transformers import LlamaForCausalLM

    return made.on_device(case.device, case.torch_dtype, lambda: LlamaForCausalLM(config).eval())


def _config(small: bool) -> LlamaConfig:
    """LLaMA-7B's sizes, which are the library's defaults."""
    from transformers import LlamaConfig

    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if not small:
        return LlamaConfig(**special)
    return LlamaConfig(
        vocab_size=100,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        **special,
    )
