"""A random BLIP small enough for a test, and its file under the names of BLIP's own code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import BlipForImageTextRetrieval

HEAD_WIDTH = 16
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "make",
    "it",
    "blue",
    "a",
    "red",
    "##der",
    "circle",
    "and",
    "the",
    "[",
    "]",
    "forward",
]
VOCABULARY = "\n".join(WORDS).encode() + b"\n"


def random_blip(image_size: int = 32, head_width: int = HEAD_WIDTH) -> BlipForImageTextRetrieval:
    """transformers' own model, in evaluation mode, every weight away from its default."""
    import torch
    from transformers import BlipConfig, BlipForImageTextRetrieval

    config = BlipConfig(
        text_config={
            "vocab_size": len(WORDS) + 2,
            "hidden_size": 3 * head_width,
            "encoder_hidden_size": 2 * head_width,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "max_position_embeddings": 40,
        },
        vision_config={
            "hidden_size": 2 * head_width,
            "intermediate_size": 8 * head_width,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": 8,
            "layer_norm_eps": 1e-6,
        },
        image_text_hidden_size=24,
    )
    torch.manual_seed(0)
    model = BlipForImageTextRetrieval(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def published_blip() -> BlipForImageTextRetrieval:
    """A random one whose heads are as wide as in every published file."""
    return random_blip(head_width=64)


def original_state(model: BlipForImageTextRetrieval) -> dict[str, torch.Tensor]:
    """The model's weights as BLIP's own code names them, with what it also stores."""
    import torch

    state = {}
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if parts[0] == "vision_model":
            state[_vision_name(parts[1:])] = tensor
        elif "position_ids" not in name and not name.startswith("text_encoder.pooler"):
            state[name] = tensor
    copies = {
        name.replace(top, f"{top}_m", 1): torch.zeros_like(tensor)
        for name, tensor in state.items()
        for top in ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
        if name.startswith(f"{top}.")
    }
    return {
        **state,
        **copies,
        "temp": torch.tensor(0.07),
        "image_queue": torch.zeros(24, 8),
        "text_queue": torch.zeros(24, 8),
        "ptr_queue": torch.zeros(1, dtype=torch.long),
        "idx_queue": torch.zeros(1, 8, dtype=torch.long),
        "text_encoder.embeddings.position_ids": torch.arange(40)[None],
    }


def covr_file(folder: Path, prefix: str = "module.") -> Path:
    """A random checkpoint in the layout of a released CoVR, with a vocabulary next to it."""
    import torch

    state = {f"{prefix}{name}": each for name, each in original_state(published_blip()).items()}
    torch.save({"epoch": 4, "model": state}, folder / "webvid-covr.ckpt")
    (folder / "vocab.txt").write_bytes(VOCABULARY)
    return folder / "webvid-covr.ckpt"


def _vision_name(parts: list[str]) -> str:
    """A name of transformers' image tower in timm's words, which BLIP's code keeps."""
    if parts[0] == "post_layernorm":
        return f"visual_encoder.norm.{parts[1]}"
    if parts[0] == "embeddings":
        embedding = {
            "class_embedding": "cls_token",
            "position_embedding": "pos_embed",
            "patch_embedding": "patch_embed.proj",
        }[parts[1]]
        return ".".join(["visual_encoder", embedding, *parts[2:]])
    module = {
        "layer_norm1": "norm1",
        "layer_norm2": "norm2",
        "self_attn.qkv": "attn.qkv",
        "self_attn.projection": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }[".".join(parts[3:-1])]
    return f"visual_encoder.blocks.{parts[2]}.{module}.{parts[-1]}"
