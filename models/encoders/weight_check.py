"""Names and shapes in a backbone's weight file, compared with its architecture; none is read."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from safetensors import safe_open
from torch import nn

from models.encoders.backbone_files import EncoderNotFound, architecture, weights_file
from models.encoders.spec import CONFIG_FILE, EncoderSpec
from models.loaded_weights import UNREADABLE, first_line, in_words
from models.spelling import some_of

Named = dict[str, torch.Tensor]

_FORMS = (".safetensors", ".bin", ".pt", ".pth")


def check_weights(spec: EncoderSpec) -> None:
    """Compare the names and shapes in a backbone's weight file with its architecture.

    Architectures with towers of other libraries are left to `load_encoder`.

    Raises:
        EncoderNotFound: The file is missing or damaged, or does not fit.
    """
    weights, config = weights_file(spec), copy.deepcopy(architecture(spec))
    towers = (config["vision_cfg"], config["text_cfg"])
    foreign = any(key in tower for tower in towers for key in ("timm_model_name", "hf_model_name"))
    if weights is None or weights.suffix not in _FORMS or foreign:
        return
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    try:
        with torch.device("meta"):
            model = kind(**config)
    except UNREADABLE as error:
        raise EncoderNotFound(
            f"{CONFIG_FILE} of {spec.name!r} describes no backbone: {first_line(error)}"
        ) from error
    needed, found = model.state_dict(), _stored(spec, weights, model)
    # open_clip fills the one with zeros, and gives the other the shape that it needs.
    free = {"logit_bias", "logit_scale"}
    report = {
        "missing_keys": needed.keys() - found.keys() - {"logit_bias"},
        "unexpected_keys": found.keys() - needed.keys() - {"logit_bias"},
        "mismatched_keys": {
            name
            for name in needed.keys() & found.keys() - free
            if needed[name].shape != found[name].shape
        },
    }
    if any(report.values()):
        raise EncoderNotFound(
            f"{weights.name} of {spec.name!r} does not fit its {CONFIG_FILE}: {in_words(report)}; "
            "take the published files again"
        )


def require_sizes(spec: EncoderSpec, weights: Path, model: nn.Module) -> None:
    """Refuse weights of another size: open_clip would stretch positions and say nothing.

    Raises:
        EncoderNotFound: The message names some.
    """
    if weights.suffix not in _FORMS:
        return
    try:
        found = _stored(spec, weights, model)
    except EncoderNotFound:
        if weights.suffix == ".safetensors":
            raise
        return  # a TorchScript archive, which open_clip has loaded whole
    wrong = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in model.state_dict().items()
        if name in found and found[name].numel() != tensor.numel()
    ]
    if wrong:
        raise EncoderNotFound(
            f"{weights.name} of {spec.name!r} does not fit its {CONFIG_FILE}: {some_of(wrong)}; "
            "state the image size and context length that it was trained with"
        )


def _stored(spec: EncoderSpec, weights: Path, model: nn.Module) -> Named:
    """The file's tensors without their data, under the names that open_clip gives them."""
    try:
        found = _without_data(weights)
        if next(iter(found)).startswith("module"):
            found = {name[len("module.") :]: tensor for name, tensor in found.items()}
        found = convert_state_dict(model, found)
        if "positional_embedding" in found and not hasattr(model, "positional_embedding"):
            found = convert_to_custom_text_state_dict(found)
    except UNREADABLE as error:
        raise EncoderNotFound(
            f"{weights.name} of {spec.name!r} is damaged: {first_line(error)}"
        ) from error
    found.pop("text.transformer.embeddings.position_ids", None)
    return found


def _without_data(weights: Path) -> Named:
    if weights.suffix == ".safetensors":
        with safe_open(weights, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in list(file.keys())}
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    content: Any = torch.load(weights, map_location="meta", weights_only=True)
    found: Named = content.get("state_dict", content)
    return found
