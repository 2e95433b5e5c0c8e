"""A random CLIP small enough for a test, written in open_clip's own local form."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 32,
            "layers": 2,
            "width": 32,
            "patch_size": 8,
            "head_width": 16,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 40,
            "heads": 4,
            "layers": 3,
        },
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
}


def write_small_clip(
    folder: Path,
    text: dict[str, Any] | None = None,
    merges: list[str] | None = None,
    vision: dict[str, Any] | None = None,
) -> Path:
    """Write config, random weights and, with `merges`, a byte-pair file of its own."""
    import open_clip
    import torch

    config = copy.deepcopy(CONFIG)
    if merges is not None:
        config["model_cfg"]["text_cfg"]["vocab_size"] = 514 + len(merges)
        lines = "\n".join(["#version: 0.2", *merges])
        (folder / "bpe.txt.gz").write_bytes(gzip.compress(lines.encode()))
    config["model_cfg"]["text_cfg"].update(text or {})
    config["model_cfg"]["vision_cfg"].update(vision or {})
    torch.manual_seed(0)
    model = open_clip.CLIP(**copy.deepcopy(config["model_cfg"]))
    return write_perturbed(folder, config, model)


def write_perturbed(folder: Path, config: dict[str, Any], model: Any) -> Path:
    """The folder, with a configuration and the weights of its model in it.

    Biases and norms start at 0 and 1: all is perturbed, so that equality means something.
    """
    import safetensors.torch
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, folder / "open_clip_model.safetensors")
    return folder
