"""Random verifiers of the real architectures, and requests about drawn pictures."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from models.verifiers.protocol import GridRequest, VerificationRequest
from tests.fakes.transformers_folders import saved, small_text

if TYPE_CHECKING:
    from PIL import Image

CHAT = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<ask>{% endif %}"
)


def tokenizer_of(marked: bool) -> Any:
    """The embedded verifier's tokenizer; a marked one has a token for each mark of a grid."""
    from embedded_world.recipes.verifier_model import build_verifier_tokenizer
    from models.verifiers.grid import all_marks

    tokenizer = build_verifier_tokenizer()
    if marked:
        tokenizer.add_tokens(list(all_marks()))
    return tokenizer


def save_qwen3_vl(folder: Path, seed: int = 0, marked: bool = False) -> Path:
    """The embedded verifier's architecture with random weights."""
    from embedded_world.recipes.verifier_model import new_verifier, ship, verifier_processor

    tokenizer = tokenizer_of(marked)
    processor = verifier_processor(tokenizer)
    processor.image_processor.size = {"shortest_edge": 4096, "longest_edge": 16384}
    ship(new_verifier(tokenizer, seed), processor, folder)
    return folder


def drawn_grids(queries: int, candidates: int) -> list[GridRequest]:
    """Drawn queries with their candidates in one picture each."""
    from models.verifiers.grid import draw_grid, marks_of

    found = []
    for q in range(queries):
        own = drawn_requests(queries, candidates)[q * candidates : (q + 1) * candidates]
        found.append(
            GridRequest(
                key=f"{q}",
                reference=own[0].reference,
                text=own[0].text,
                grid=draw_grid([request.candidate for request in own], 64),
                marks=marks_of(len(own)),
            )
        )
    return found


def save_qwen2_5_vl(folder: Path, marked: bool = False) -> Path:
    """A Qwen2.5-VL, which has windows in its vision tower and no DeepStack."""
    import torch
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    from embedded_world.recipes.verifier_model import CHAT_TEMPLATE

    tokenizer = tokenizer_of(marked)
    token = tokenizer.convert_tokens_to_ids
    torch.manual_seed(1)
    config = Qwen2_5_VLConfig(
        text_config={
            **small_text(len(tokenizer)),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100.0,
                "mrope_section": [4, 2, 2],
            },
        },
        vision_config={
            **{"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2},
            **{"patch_size": 14, "out_hidden_size": 32, "window_size": 56},
            **{"fullatt_block_indexes": [1], "initializer_range": 0.2},
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        initializer_range=0.2,
    )
    area = {"shortest_edge": 4096, "longest_edge": 16384}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=area),
        tokenizer,
        Qwen2VLVideoProcessor(size=area),
        chat_template=CHAT_TEMPLATE,
    )
    return saved(folder, Qwen2_5_VLForConditionalGeneration(config), processor)


def save_llava_onevision(folder: Path, marked: bool = False) -> Path:
    """A LLaVA-OneVision; its pictures become tiles, and it takes no grid."""
    import torch
    from tokenizers import AddedToken
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    tokenizer = tokenizer_of(marked)
    tokenizer.add_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<image>", "<video>")],
        special_tokens=True,
    )
    token = tokenizer.convert_tokens_to_ids
    torch.manual_seed(2)
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **small_text(len(tokenizer))},
        vision_config={
            **{"model_type": "siglip_vision_model", "hidden_size": 32, "num_hidden_layers": 2},
            **{"intermediate_size": 48, "num_attention_heads": 2, "image_size": 32},
            **{"patch_size": 16, "vision_use_head": False},
        },
        image_token_index=token("<image>"),
        video_token_index=token("<video>"),
        image_grid_pinpoints=[[32, 64], [64, 32], [64, 64]],
        initializer_range=0.2,
    )
    size = {"height": 32, "width": 32}
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(
            size=size, image_grid_pinpoints=[[32, 64], [64, 32], [64, 64]]
        ),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=CHAT,
    )
    return saved(folder, LlavaOnevisionForConditionalGeneration(config), processor)


def save_blip_itm(folder: Path) -> Path:
    """A BLIP with the head of image-text matching."""
    import torch
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForImageTextRetrieval,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder.mkdir(parents=True, exist_ok=True)
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "red",
        "blue",
        "circle",
        "star",
        "on",
    ]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizer.from_pretrained(folder)
    torch.manual_seed(3)
    shared = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BlipConfig(
        text_config={
            **shared,
            **{"vocab_size": len(words), "encoder_hidden_size": 32, "intermediate_size": 48},
            **{"max_position_embeddings": 24, "initializer_range": 0.3},
        },
        vision_config={**shared, "image_size": 32, "patch_size": 16, "intermediate_size": 48},
    )
    processor = BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    return saved(folder, BlipForImageTextRetrieval(config), processor)


def drawn_requests(queries: int, candidates: int) -> list[VerificationRequest]:
    """Requests of drawn queries; candidates are of several sizes, and some are shared."""
    from embedded_world.drawing import draw
    from embedded_world.scenes import sample_scenes

    rng = Random(0)
    pictures: list[Image.Image] = [
        draw(scene, i) for i, scene in enumerate(sample_scenes(rng, 12, held_out=True))
    ]
    sizes = [(96, 96), (130, 70), (60, 120)]
    texts = ["make the circle red", "remove the star at the top left and add a blue heart"]
    found = []
    for q in range(queries):
        for c in range(candidates):
            place = (3 * q + c) % len(pictures)
            found.append(
                VerificationRequest(
                    key=f"{q}/{c}",
                    reference_id=f"reference {q}",
                    reference=pictures[q % len(pictures)],
                    text=texts[q % len(texts)],
                    candidate_id=f"picture {place}",
                    candidate=pictures[place].resize(sizes[place % len(sizes)]),
                    target_text="a red circle on a blue star",
                )
            )
    return found
