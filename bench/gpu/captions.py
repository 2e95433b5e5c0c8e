"""Fifteen captions an image by BLIP-2 OPT-2.7b: the project's captioner against `generate`.

Ours prepares the pictures, reads each image once, and repeats the key-value cache; bare is the
library's `generate` on ready pixels with `num_return_sequences`. Random weights end no caption
early, so both write equally many tokens. Decoding reads all weights for each token of a batch:
the copy limit binds.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import torch

from bench.gpu import made
from bench.gpu.case import Case
from bench.gpu.records import Row, Work
from bench.gpu.timing import Clock
from bench.gpu.work import Decoder, counted_flops, weight_bytes
from models.captioners.blip2 import Blip2Captioner, Blip2Settings
from models.protocols import CaptionSampling

if TYPE_CHECKING:
    from transformers import Blip2Config, Blip2ForConditionalGeneration

_CAPTIONS: Final = 15
_TOKENS: Final = 30


def measure(case: Case) -> Iterator[Row]:
    """One row: captions a second in batches of the captioner's own size."""
    config = _config(case.small)
    captioner, model = _captioner(config, case)
    clock, settings = Clock(case.device), captioner._settings
    sampling = CaptionSampling(
        n=3 if case.small else _CAPTIONS, max_new_tokens=6 if case.small else _TOKENS
    )
    files = made.jpegs(settings.batch_size)
    pictures = made.Photographs(files, settings.batch_size)
    images = [(f"{number:064x}", picture) for number, picture in enumerate(pictures)]
    pixels = captioner._processor.image_processor(
        images=[picture for _, picture in images], return_tensors="pt"
    )["pixel_values"].to(case.device, case.torch_dtype)

    prompt = config.num_query_tokens + 1

    def ours(how: CaptionSampling = sampling) -> list[str]:
        replies = list(captioner.caption(images, how))
        if wrong := [reply for reply in replies if reply.status == "engine_error"]:
            raise RuntimeError(f"{len(wrong)} images have no captions: {wrong[0].reason}")
        # Random weights may write special tokens alone, of which no caption is left.
        empty = ("",) * how.n
        return [caption for reply in replies for caption in reply.captions or empty]

    def bare(**how: Any) -> list[str]:
        with torch.inference_mode():
            rows = model.generate(
                pixel_values=pixels, max_new_tokens=sampling.max_new_tokens, min_new_tokens=1, **how
            )
        # Some versions of the library give the prompt back too.
        new = rows[:, prompt:] if rows.shape[1] > sampling.max_new_tokens else rows
        return captioner._processor.tokenizer.batch_decode(new, skip_special_tokens=True)

    drawn = {"do_sample": True, "top_p": sampling.top_p, "top_k": 0, "temperature": 1.0}
    drawn["num_return_sequences"] = sampling.n
    memory = clock.peak_of(ours)
    greedy = CaptionSampling(n=1, mode="greedy", max_new_tokens=sampling.max_new_tokens)
    pairs = zip(ours(greedy), bare(do_sample=False), strict=True)
    same = sum(one.strip() == other.strip() for one, other in pairs)
    bare(**drawn)
    turns = clock.interleaved(ours, lambda: bare(**drawn), case.until, warm=True)
    assert turns.bare_seconds is not None
    rows = len(images) * sampling.n
    decoder = Decoder.of(config.text_config, model.dtype.itemsize)
    seen = counted_flops(lambda: model.get_image_features(pixels[:1], return_dict=True))
    flops = seen + decoder.answer_flops(prompt, sampling.max_new_tokens, sampling.n)
    eyes = weight_bytes(model.vision_model, model.qformer, model.language_projection)
    moved = eyes + decoder.answer_bytes(rows, prompt, sampling.max_new_tokens)
    yield Row(
        part="captions",
        what=f"BLIP-2 OPT-2.7b, {sampling.n} captions of {sampling.max_new_tokens} tokens, "
        f"batches of {len(images)} images",
        unit="captions",
        rate=rows / turns.seconds,
        bare=rows / turns.bare_seconds,
        spread=turns.spread,
        turns=len(turns.ours),
        work=Work(
            flops=flops / sampling.n,
            dtype=case.half,
            moved=moved / rows,
            uploaded=pixels[0].numel() / sampling.n,
        ),
        memory=memory,
        note=f"{len(images) / turns.seconds:.2f} images/s; greedy captions as by `generate`: "
        f"{same} of {len(images)}",
        more={"images_per_second": len(images) / turns.seconds, "greedy_equal": same},
    )


def _captioner(
    config: Blip2Config, case: Case
) -> tuple[Blip2Captioner, Blip2ForConditionalGeneration]:
    """The captioner with a random model and a made-up processor in the place of a checkpoint's."""
    from transformers import Blip2ForConditionalGeneration, BlipImageProcessor

    def make() -> Blip2ForConditionalGeneration:
        model = Blip2ForConditionalGeneration(config).eval().requires_grad_(False)
        torch.nn.init.normal_(model.query_tokens, std=0.02)  # zeros show the same in every image
        return model

    settings = Blip2Settings(
        model="random", device=str(case.device), dtype=case.half, batch_size=2 if case.small else 16
    )
    captioner = Blip2Captioner(settings)
    model = made.on_device(case.device, case.torch_dtype, make)
    side = config.vision_config.image_size
    captioner.__dict__["_model"] = model
    captioner.__dict__["_processor"] = SimpleNamespace(
        image_processor=BlipImageProcessor(size={"height": side, "width": side}),
        tokenizer=made.word_tokenizer(config.text_config.vocab_size),
    )
    return captioner, model


def _config(small: bool) -> Blip2Config:
    """Blip2-opt-2.7b's sizes: EVA's ViT-g, a Q-Former of 32 queries, OPT-2.7b."""
    from transformers import Blip2Config, Blip2QFormerConfig, Blip2VisionConfig, OPTConfig

    words = 101 if small else 50_304
    vision: dict[str, Any] = {"initializer_range": 0.02}  # the library's 1e-10 sees nothing
    bridge: dict[str, Any] = {}
    text: dict[str, Any] = {"hidden_size": 2560, "num_hidden_layers": 32, "ffn_dim": 10_240}
    heads = 32
    if small:
        tiny = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        vision |= {**tiny, "intermediate_size": 64, "image_size": 32, "patch_size": 16}
        bridge = {**tiny, "intermediate_size": 64, "encoder_hidden_size": 32}
        text, heads = {"hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 64}, 2
    return Blip2Config(
        vision_config=Blip2VisionConfig(**vision),
        qformer_config=Blip2QFormerConfig(**bridge),
        text_config=OPTConfig(
            **text,
            word_embed_proj_dim=text["hidden_size"],
            num_attention_heads=heads,
            vocab_size=words,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        num_query_tokens=4 if small else 32,
        image_token_index=words - 1,
    )
