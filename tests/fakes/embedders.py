"""Random embedders of the real architectures, with Qwen's chat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.fakes.transformers_folders import saved, small_text

QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_AREA = {"shortest_edge": 4096, "longest_edge": 16384}


def _tokenizer(*more: str) -> Any:
    from tokenizers import AddedToken

    from embedded_world.recipes.verifier_model import build_verifier_tokenizer

    tokenizer = build_verifier_tokenizer()
    words = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", *more)
    added = [AddedToken(word, normalized=False, special=True) for word in words]
    tokenizer.add_tokens(added, special_tokens=True)
    return tokenizer


def save_qwen3_vl(folder: Path) -> Path:
    """A Qwen3-VL, whose vision tower feeds the language model's first layers too."""
    from embedded_world.recipes.verifier_model import new_verifier, ship, verifier_processor

    tokenizer = _tokenizer()
    processor = verifier_processor(tokenizer)
    processor.image_processor.size = dict(_AREA)
    processor.chat_template = QWEN_CHAT
    ship(new_verifier(tokenizer, 0), processor, folder)
    return folder


def save_qwen2_vl(folder: Path) -> Path:
    """A Qwen2-VL."""
    import torch
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = _tokenizer()
    token = tokenizer.convert_tokens_to_ids
    torch.manual_seed(1)
    rope = {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [4, 2, 2]}
    config = Qwen2VLConfig(
        text_config={**small_text(len(tokenizer)), "rope_parameters": rope},
        vision_config={
            **{"depth": 2, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 2},
            **{"patch_size": 14, "initializer_range": 0.2},
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        initializer_range=0.2,
    )
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=dict(_AREA)),
        tokenizer,
        Qwen2VLVideoProcessor(size=dict(_AREA)),
        chat_template=QWEN_CHAT,
    )
    return saved(folder, Qwen2VLForConditionalGeneration(config), processor)


def save_llava_next(folder: Path) -> Path:
    """A LLaVA-NeXT, whose pictures become tiles; it brings no chat."""
    import torch
    from transformers import (
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
    )

    tokenizer = _tokenizer("<image>", "[INST]", "[/INST]")
    torch.manual_seed(2)
    grid = [[32, 64], [64, 32], [64, 64]]
    config = LlavaNextConfig(
        text_config={"model_type": "llama", **small_text(len(tokenizer))},
        vision_config={
            **{"model_type": "clip_vision_model", "hidden_size": 32, "num_hidden_layers": 2},
            **{"intermediate_size": 48, "num_attention_heads": 2, "image_size": 32},
            **{"patch_size": 16, "projection_dim": 32},
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
        initializer_range=0.2,
    )
    processor = LlavaNextProcessor(
        LlavaNextImageProcessor(
            size={"shortest_edge": 32},
            crop_size={"height": 32, "width": 32},
            image_grid_pinpoints=grid,
        ),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return saved(folder, LlavaNextForConditionalGeneration(config), processor)


def save_clip(folder: Path) -> Path:
    """A CLIP in transformers' layout."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tokenizer = _tokenizer()
    torch.manual_seed(3)
    shared = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **{**shared, "intermediate_size": 48, "vocab_size": len(tokenizer)},
            **{"max_position_embeddings": 16, "eos_token_id": tokenizer.eos_token_id},
            **{"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id},
        },
        vision_config={**shared, "intermediate_size": 48, "image_size": 32, "patch_size": 16},
        projection_dim=24,
    )
    size = {"height": 32, "width": 32}
    processor = CLIPProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size), tokenizer
    )
    return saved(folder, CLIPModel(config), processor)
