"""Random CLIPs of every vision transformer that open_clip can build, and networks on them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.encoders.spec import EncoderSpec
from models.instructcir.settings import NetworkSettings

if TYPE_CHECKING:
    import torch

    from models.instructcir.network import ReformulationNetwork

TEXTS = ["make it blue", "", "a large red star on top of two small green circles", "brighter"]


def write_clip(
    folder: Path,
    vision: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    **model: Any,
) -> Path:
    """Write a random CLIP in open_clip's local form; every weight differs from its default."""
    import open_clip
    import safetensors.torch
    import torch

    from tests.fakes.small_clip import CONFIG

    config = copy.deepcopy(CONFIG)
    architecture = config["model_cfg"]
    architecture["vision_cfg"].update(vision or {})
    architecture["text_cfg"].update(text or {})
    architecture.update(model)
    arguments = copy.deepcopy(architecture)
    custom = arguments.pop("custom_text", False)
    torch.manual_seed(0)
    clip = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**arguments)
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = {name: tensor.contiguous() for name, tensor in clip.state_dict().items()}
    safetensors.torch.save_file(state, folder / "open_clip_model.safetensors")
    return folder


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
