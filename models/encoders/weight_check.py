"""Names and shapes in a backbone's weight file, compared with its architecture; none is read."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import nn

from models.encoders.backbone_files import EncoderNotFound, architecture, weights_file
from models.encoders.spec import CONFIG_FILE, EncoderSpec
from models.loaded_weights import UNREADABLE, first_line, in_words
from models.spelling import some_of
from models.weight_formats import formats_of, require_plain, without_data

Named = dict[str, torch.Tensor]

_FORMS = (".safetensors", ".bin", ".pt", ".pth")
_ANY = {word: torch.empty(0) for word in ("weight", "bias")}
"""What every tower holds as floats, where its architecture is not made."""


def check_weights(spec: EncoderSpec) -> None:
    """Compare the names and shapes in a backbone's weight file with its architecture.

    Of architectures with towers of other libraries only the number formats are looked at.

    Raises:
        EncoderNotFound: The file is missing or damaged, or does not fit.
        UnusableCheckpoint: It holds weights that are not plain floats.
    """
    weights, config = weights_file(spec), copy.deepcopy(architecture(spec))
    towers = (config["vision_cfg"], config["text_cfg"])
    foreign = any(key in tower for tower in towers for key in ("timm_model_name", "hf_model_name"))
    if weights is None or weights.suffix not in _FORMS:
        return
    if foreign:
        require_plain(f"{weights.name} of {spec.name!r}", formats_of(_named(spec, weights)), _ANY)
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
    require_plain(f"{weights.name} of {spec.name!r}", formats_of(found), needed)


def require_sizes(spec: EncoderSpec, weights: Path, model: nn.Module) -> None:
    """Refuse weights of another size: open_clip would stretch positions and say nothing.

    Raises:
        EncoderNotFound: The message names some.
        UnusableCheckpoint: So does this, for weights that are not plain floats.
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
    require_plain(f"{weights.name} of {spec.name!r}", formats_of(found), model.state_dict())


def _stored(spec: EncoderSpec, weights: Path, model: nn.Module) -> Named:
    """The file's tensors without their data, under the names that open_clip gives them."""
    found = _named(spec, weights)
    with _damage_named(spec, weights):
        found = convert_state_dict(model, found)
        if "positional_embedding" in found and not hasattr(model, "positional_embedding"):
            found = convert_to_custom_text_state_dict(found)
    found.pop("text.transformer.embeddings.position_ids", None)
    return found


def _named(spec: EncoderSpec, weights: Path) -> Named:
    """The file's tensors without their data, under their own names."""
    with _damage_named(spec, weights):
        content: Any = without_data(weights)
        found: Named = content.get("state_dict", content)
        if next(iter(found)).startswith("module"):
            found = {name[len("module.") :]: tensor for name, tensor in found.items()}
    return found


@contextlib.contextmanager
def _damage_named(spec: EncoderSpec, weights: Path) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise EncoderNotFound(
            f"{weights.name} of {spec.name!r} is damaged: {first_line(error)}"
        ) from error
