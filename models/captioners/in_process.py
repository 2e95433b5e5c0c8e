"""Captioners that run in this process share batches, failures, and the drawing of captions.

Sampling is counter-based (`models.captioners.sampling`), so that a caption depends on (image key,
sample index, seed, model) and not on the batch it is drawn in.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from models.captioners.decoding import Sampling, decode
from models.captioners.seeds import stream_seed
from models.metering import Spent, counting_for, current_meter, device_time
from models.plain_text import without_controls
from models.protocols import CaptionReply, CaptionSampling

KeyedImage: TypeAlias = tuple[str, Image.Image]
CaptionBatch: TypeAlias = Callable[[Sequence[KeyedImage]], list[list[str]]]
"""N stripped captions for each image of a batch."""

_IMAGE_FAILURES = (RuntimeError, ValueError, TypeError, OSError, MemoryError)
"""Errors that a bad image or a full memory raises inside preprocessing or the model."""


def caption_in_batches(
    images: Iterable[KeyedImage], batch_size: int, caption_batch: CaptionBatch
) -> Iterator[CaptionReply]:
    """Caption every (key, image) exactly once, in the order given.

    At most `batch_size` images are held at a time. When a batch fails it is halved until the
    images at fault stand alone; each of them becomes a reply with status `engine_error`, and the
    others are not affected.
    """
    stream = ((image, current_meter()) for image in images)
    while taken := list(itertools.islice(stream, batch_size)):
        with counting_for([meter for _, meter in taken]):
            replies = list(_caption_or_split([image for image, _ in taken], caption_batch))
        del taken  # the batch is not held while its replies are used
        yield from replies


def _caption_or_split(
    batch: Sequence[KeyedImage], caption_batch: CaptionBatch
) -> Iterator[CaptionReply]:
    reason = ""
    try:
        with device_time():
            captions = caption_batch(batch)
    except _IMAGE_FAILURES as failure:
        # Only the text is kept: the exception's traceback would hold the batch in memory.
        reason = f"{type(failure).__name__}: {str(failure).strip()[:300]}"
    if not reason:
        for (key, _), texts in zip(batch, captions, strict=True):
            yield _reply(key, texts)
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if len(batch) == 1:
        yield CaptionReply(batch[0][0], (), "engine_error", reason)
        return
    half = len(batch) // 2
    yield from _caption_or_split(batch[:half], caption_batch)
    yield from _caption_or_split(batch[half:], caption_batch)


def _reply(key: str, captions: Sequence[str]) -> CaptionReply:
    """A reply, refused when a caption has no words: its feature would be that of no text."""
    empty = [index for index, caption in enumerate(captions) if not caption]
    if empty:
        reason = f"caption {empty[0] + 1} of {len(captions)} is empty"
        return CaptionReply(key, (), "rejected", reason)
    return CaptionReply(key, tuple(captions))


def draw_captions(
    model: PreTrainedModel,
    prompt: dict[str, Tensor],
    keys: Sequence[str],
    sampling: CaptionSampling,
    *,
    end_tokens: Sequence[int],
    min_new_tokens: int = 0,
) -> list[list[int]]:
    """Tokens of N captions for each image, image-major.

    An encoder-decoder model reads the prompt with its encoder and writes a caption from its start
    token on, so that the tokens hold no prompt either; the library draws them.

    Args:
        model: The language model that continues the prompts, or answers them.
        prompt: `inputs_embeds` (B, L, H) and `attention_mask` (B, L), image and words together.
        keys: The images' keys (B); they choose the streams.
        sampling: How captions are drawn.
        end_tokens: Ids that end a caption.
        min_new_tokens: Least tokens of a caption.
    """
    if sampling.mode in ("beam", "beam_sample") or model.config.is_encoder_decoder:
        drawn = _by_the_library(model, prompt, keys, sampling, min_new_tokens)
        _count(model, prompt, drawn)
        return drawn
    seeds: tuple[int, ...] = ()
    if sampling.mode == "nucleus":
        seeds = tuple(
            stream_seed("caption", sampling.seed, key, index)
            for key in keys
            for index in range(sampling.n)
        )
    rows = decode(
        model,
        prompt,
        repeats=sampling.n,
        max_new_tokens=sampling.max_new_tokens,
        end_tokens=end_tokens,
        sampling=Sampling(seeds, sampling.temperature, sampling.top_p, sampling.top_k),
        min_new_tokens=min_new_tokens,
    )
    drawn = [row.tokens for row in rows]
    _count(model, prompt, drawn)
    return drawn


def _count(model: PreTrainedModel, prompt: dict[str, Tensor], drawn: Sequence[list[int]]) -> None:
    """Count the images and their tokens; what fills up rows of the library is not counted."""
    mask, filling = prompt["attention_mask"], model.generation_config.pad_token_id
    current_meter().add(
        Spent(
            questions=len(mask),
            calls=len(mask),
            prompt_tokens=int(mask.sum()),
            answer_tokens=sum(token != filling for row in drawn for token in row),
        )
    )


def _by_the_library(
    model: PreTrainedModel,
    prompt: dict[str, Tensor],
    keys: Sequence[str],
    sampling: CaptionSampling,
    min_new_tokens: int,
) -> list[list[int]]:
    """Captions by transformers' own `generate`, one image at a time and seeded by its key.

    `beam_sample` is the present LAVIS behaviour (difference D8): N beams, N returns.
    """
    beams = {"beam_sample": sampling.n, "beam": sampling.beams}.get(sampling.mode, 1)
    draws = {
        "do_sample": True,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "temperature": sampling.temperature,
    }
    if sampling.mode in ("beam", "greedy"):
        draws = {"do_sample": False}
    token_rows: list[list[int]] = []
    device = prompt["attention_mask"].device
    for index, key in enumerate(keys):
        one = {name: tensor[index : index + 1] for name, tensor in prompt.items()}
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(stream_seed(sampling.mode, sampling.seed, key) & (2**63 - 1))
            out = model.generate(
                **one,
                **draws,
                num_beams=beams,
                num_return_sequences=sampling.n,
                max_new_tokens=sampling.max_new_tokens,
                min_new_tokens=min_new_tokens,
            )
        token_rows += out.tolist()
    return token_rows


def images_in_place(model: PreTrainedModel, prefix: Tensor, features: Tensor) -> dict[str, Tensor]:
    """The language model's input: the prompt with each image in the place of its placeholders.

    Args:
        model: The words are embedded by it.
        prefix: Tokens of the prompt (1, L), P image placeholders among them.
        features: What stands for each image (B, P, H).

    Returns:
        `inputs_embeds` (B, L, H) and `attention_mask` (B, L).
    """
    input_ids = prefix.expand(len(features), -1)
    embeds = model.get_input_embeddings()(input_ids)
    is_image = (input_ids == model.config.image_token_id)[..., None]
    return {
        "inputs_embeds": embeds.masked_scatter(is_image, features.to(embeds.dtype)),
        "attention_mask": torch.ones_like(input_ids),
    }


def grouped(texts: Sequence[str], n: int) -> list[list[str]]:
    """Image-major captions, stripped, as one list of `n` per image."""
    stripped = [without_controls(text).strip() for text in texts]
    return [stripped[i : i + n] for i in range(0, len(stripped), n)]


def as_list(token: int | Sequence[int] | None) -> list[int]:
    """End tokens as a configuration states them: none, one or several."""
    if token is None:
        return []
    return [token] if isinstance(token, int) else list(token)
