"""Random CLIPs of every vision transformer that open_clip can build, and networks on them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.encoders.spec import EncoderSpec
from models.instructcir.settings import NetworkSettings
from tests.fakes.small_clip import CONFIG, write_perturbed

if TYPE_CHECKING:
    import torch

    from models.instructcir.network import ReformulationNetwork

TEXTS = ["make it blue", "", "a large red star on top of two small green circles", "brighter"]
BACKBONES: dict[str, dict[str, Any]] = {
    "plain": {},
    "gelu": {"quick_gelu": False},
    "no_ln_pre": {"vision": {"no_ln_pre": True}},
    "average": {"vision": {"pool_type": "avg", "final_ln_after_pool": True}},
    "average_before_norm": {"vision": {"pool_type": "avg"}},
    "layer_scale": {"vision": {"ls_init_value": 0.1}, "text": {"ls_init_value": 0.2}},
    "patch_dropout": {"vision": {"patch_dropout": 0.5}},
    "output_tokens": {"vision": {"output_tokens": True}, "custom_text": True},
    "attention_pool": {"vision": {"attentional_pool": True, "attn_pooler_heads": 4}},
    "sines": {"vision": {"pos_embed_type": "sin_cos_2d"}},
    "custom_blocks": {
        "vision": {"qk_norm": True, "scale_attn": True, "scale_fc": True, "scale_heads": True},
        "text": {"scale_attn_inner": True},
    },
    "custom_text": {"custom_text": True, "text": {"pool_type": "eos", "eos_id": 49407}},
    "text_bias": {"text": {"proj_bias": True}},
    "text_unprojected": {"text": {"proj_type": "none", "width": 24, "heads": 2}},
}
"""What is unusual about backbones of several kinds, as arguments of `write_clip`."""


def write_clip(
    folder: Path,
    vision: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    **model: Any,
) -> Path:
    """Write a random CLIP in open_clip's local form; every weight differs from its default."""
    import open_clip
    import torch

    config = copy.deepcopy(CONFIG)
    architecture = config["model_cfg"]
    architecture["vision_cfg"].update(vision or {})
    architecture["text_cfg"].update(text or {})
    architecture.update(model)
    arguments = copy.deepcopy(architecture)
    custom = arguments.pop("custom_text", False)
    torch.manual_seed(0)
    clip = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**arguments)
    folder.mkdir(parents=True, exist_ok=True)
    return write_perturbed(folder, config, clip)


def small_network(folder: Path, **settings: Any) -> ReformulationNetwork:
    """A network on the CLIP in a folder, which is written where there is none."""
    from models.instructcir.network import build_network

    if not (folder / "open_clip_config.json").exists():
        write_clip(folder)
    spec = EncoderSpec(name=str(folder), preprocess="clip", device="cpu")
    return build_network(spec, NetworkSettings(**settings), seed=0)


def pixels(count: int, seed: int = 0, size: int = 32) -> torch.Tensor:
    """(count, 3, size, size) standard normal."""
    import torch

    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
