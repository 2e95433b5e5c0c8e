"""The embedded verifier as files and as a function: a small genuine Qwen3-VL.

    <s> text <vision of the reference> <vision of the candidate> <ask>  ->  yes | no

A picture of 96x96 is 6x6 patches of 16; two by two are merged, so that each of its nine tokens is
one cell of the grid. The text comes first: reference and candidate then lie at one distance, and
the reference's tokens can already work out what is wanted.
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from embedded_world.drawing import SIDE
from embedded_world.recipes.captioner_tokenizer import pieces
from embedded_world.recipes.scene_tensors import MEAN, PATCH, PATCHES, STD
from embedded_world.recipes.training import half_precision
from embedded_world.recipes.word_tokenizers import SPECIALS, longest_first, word_tokenizer
from embedded_world.words import POINTING_WORDS

VISION_START, IMAGE, VIDEO, VISION_END, ASK = VISION_TOKENS = (
    *("<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"),
    "<ask>",
)
MERGE: Final = 2
FRAMES: Final = 2
"""A picture is doubled to two frames of one patch, as all Qwen-VL models do."""
CONTEXT: Final = 256
WEIGHTS: Final = "model.safetensors"
WIDTH, VISION_WIDTH = 128, 96
DEEPSTACK_LAYER: Final = 2
ROPE_THETA: Final = 10.0
"""Small: with the usual 10,000 hardly one rotary pair tells cells of a 3x3 grid apart."""
CHAT_TEMPLATE: Final = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] in ('image', 'image_url') %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<ask>{% endif %}"
)
"""Texts and pictures in the order of the messages. `<s>` stands in it, because servers put none
before a chat."""


def build_verifier_tokenizer() -> PreTrainedTokenizerFast:
    """The captioners' phrases, the answers, what points at things, and the tokens of pictures."""
    known = pieces(" ".join(("yes", "no", *POINTING_WORDS)))
    tokenizer = word_tokenizer(
        [*SPECIALS, *VISION_TOKENS, *known],
        normalizer=normalizers.Prepend(" "),
        split=pre_tokenizers.Split(Regex(longest_first(known, "(?![a-z])")), behavior="isolated"),
        decoder=decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
        opened=False,
        longest=CONTEXT,
    )
    # Blanks and line ends around a picture belong to it, whatever a prompt's form.
    added = [
        AddedToken(token, normalized=False, special=True, lstrip=True, rstrip=True)
        for token in VISION_TOKENS
    ]
    tokenizer.add_tokens(added, special_tokens=True)
    return tokenizer


def verifier_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    """Pictures and chats as the model reads them; all pictures get about nine tokens."""
    shared = {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": FRAMES,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }
    area = {"shortest_edge": SIDE**2, "longest_edge": SIDE**2}
    return Qwen3VLProcessor(
        Qwen2VLImageProcessor(size=area, **shared),
        tokenizer,
        Qwen3VLVideoProcessor(size=area, **shared),
        chat_template=CHAT_TEMPLATE,
    )


def verifier_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    """Architecture; wider initialisation than the default. Heads of 32, vLLM's least on a CPU."""
    token = tokenizer.convert_tokens_to_ids
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 32,
            "max_position_embeddings": CONTEXT,
            "initializer_range": 0.08,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": ROPE_THETA,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 4,
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 2 * VISION_WIDTH,
            "num_heads": VISION_WIDTH // 32,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": FRAMES,
            "out_hidden_size": WIDTH,
            "num_position_embeddings": PATCHES**2,
            "deepstack_visual_indexes": [DEEPSTACK_LAYER],
            "initializer_range": 0.05,
        },
        image_token_id=token(IMAGE),
        video_token_id=token(VIDEO),
        vision_start_token_id=token(VISION_START),
        vision_end_token_id=token(VISION_END),
        tie_word_embeddings=True,
    )


def new_verifier(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3VLForConditionalGeneration:
    """An untrained verifier."""
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(verifier_config(tokenizer))
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def patches(drawn: np.ndarray) -> tuple[Tensor, Tensor]:
    """Drawn pictures as the picture processor gives them to the model.

    Args:
        drawn: uint8 (B, 96, 96, 3).

    Returns:
        Patches (B * 36, 3 * 2 * 16 * 16) in blocks of two by two, and grids (B, 3).
    """
    count, blocks = len(drawn), PATCHES // MERGE
    pixels = (torch.from_numpy(drawn).float() / 255 - MEAN[0]) / STD[0]
    # y and x are (block, patch of the block, pixel) each; the two frames are one picture
    cut = pixels.reshape(count, blocks, MERGE, PATCH, blocks, MERGE, PATCH, 3)
    cut = cut.permute(0, 1, 4, 2, 5, 7, 3, 6).unsqueeze(6)
    cut = cut.expand(*cut.shape[:6], FRAMES, PATCH, PATCH)
    grids = torch.tensor([[1, PATCHES, PATCHES]]).repeat(count, 1)
    return cut.reshape(count * PATCHES**2, -1), grids


def ship(model: Qwen3VLForConditionalGeneration, processor: Qwen3VLProcessor, folder: Path) -> None:
    """Write the verifier in fp16 and its processor, for `from_pretrained` and for vLLM."""
    folder.mkdir(parents=True, exist_ok=True)
    processor.save_pretrained(folder)
    model.config.dtype = torch.float32  # the type in which plain loading computes
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    state = half_precision(model.state_dict())
    del state["lm_head.weight"]  # tied to the embeddings
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
