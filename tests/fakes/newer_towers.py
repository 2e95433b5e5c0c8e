"""Backbones of newer families, small and random, in open_clip's own local form.

What makes a family itself is as in its published configuration: tokenizer and cleaning, attention,
where the text is read, projection with bias, activation, tokens of context in proportion.
"""

from __future__ import annotations

import copy
import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.fakes.hub_tokenizers import TEXT, Kind, write_tokenizer
from tests.fakes.small_clip import write_perturbed

FAMILIES: Final[Mapping[str, tuple[Kind | None, Mapping[str, Any]]]] = {
    "SigLIP2": (
        "gemma",
        {
            "context_length": 24,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
            "act_kwargs": {"approximate": "tanh"},
        },
    ),
    "MobileCLIP2-S": (None, {"no_causal_mask": True}),
    "PE-Core": (None, {"context_length": 32}),
    "MetaCLIP2-H": ("xlm-v", {}),
    "MetaCLIP2-L": ("mt5", {}),
    "CLIPA": ("bert", {"context_length": 32, "no_causal_mask": True, "pool_type": "last"}),
}
"""Family -> its tokenizer where it is Hugging Face's, and what its text tower is like."""

VISION: Final[Mapping[str, Any]] = {
    "image_size": 32,
    "layers": 2,
    "width": 32,
    "patch_size": 8,
    "head_width": 16,
}
MERGES: Final = ("r e", "re d</w>", "c a", "ca t</w>", "d o", "do g</w>")


def write_newer(
    folder: Path, family: str, vision: Mapping[str, Any] = VISION, text: Mapping[str, Any] = {}
) -> Path:
    """Write configuration, random weights and tokenizer of a family."""
    import open_clip
    import torch

    tokenizer, own = FAMILIES[family]
    text = {"context_length": 77, "width": 40, "heads": 4, "layers": 3, **own, **text}
    if tokenizer is None:
        lines = "\n".join(["#version: 0.2", *MERGES])
        (folder / "bpe.txt.gz").write_bytes(gzip.compress(lines.encode()))
        text["vocab_size"] = 514 + len(MERGES)
    else:
        text |= {"vocab_size": write_tokenizer(folder, tokenizer), "hf_tokenizer_name": "own"}
        text |= copy.deepcopy(dict(TEXT[tokenizer]))
    model_cfg = {"embed_dim": 24, "vision_cfg": dict(vision), "text_cfg": text}
    if not family.startswith("MetaCLIP2"):
        model_cfg["custom_text"] = True
    config = {
        "model_cfg": model_cfg,
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"},
    }
    made = copy.deepcopy(model_cfg)
    kind = open_clip.CustomTextCLIP if made.pop("custom_text", False) else open_clip.CLIP
    torch.manual_seed(0)
    model = kind(**made)
    return write_perturbed(folder, config, model)
