"""Number formats of stored weights: read without loading them, compared with the model's.

Loaders cast whatever a file holds to the model's format. Integers, booleans and 8-bit floats of a
quantised checkpoint mean nothing without the scales that belong to them, yet the cast is silent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open

from models.checkpoints import CONFIG_FILE, UnusableCheckpoint, weight_files
from models.spelling import agreed, some_of

Formats = Mapping[str, str]
"""Name of a tensor -> its number format, as torch names it (`float32`, `int8`)."""

PLAIN: Final = frozenset({"float64", "float32", "float16", "bfloat16"})
"""Formats whose values are the weights themselves."""

_SAFETENSORS: Final = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{"BF16": "bfloat16", "BOOL": "bool"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
}


def format_name(tensor: torch.Tensor) -> str:
    """The number format of a tensor."""
    return str(tensor.dtype).removeprefix("torch.")


def formats_of(state: Mapping[str, torch.Tensor]) -> Formats:
    """The number formats of named tensors."""
    return {name: format_name(tensor) for name, tensor in state.items()}


def without_data(file: Path) -> dict[str, torch.Tensor]:
    """Named tensors of a file on torch's `meta` device: shapes and formats, no values.

    Args:
        file: In the form of safetensors, or of `torch.save`; from the latter, the mapping itself.
    """
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as content:
            slices = {name: content.get_slice(name) for name in list(content.keys())}
            return {
                name: _empty(part.get_shape(), part.get_dtype()) for name, part in slices.items()
            }
    state: dict[str, torch.Tensor] = torch.load(file, map_location="meta", weights_only=True)
    return state


def _empty(shape: list[int], stored: str) -> torch.Tensor:
    """A format that torch does not know counts as bytes: no model takes them for weights."""
    kind = getattr(torch, _SAFETENSORS.get(stored, ""), torch.uint8)
    return torch.empty(shape, dtype=kind, device="meta")


def require_plain_files(
    model: str, folder: Path, held: Mapping[str, torch.Tensor], unused: frozenset[str]
) -> None:
    """Refuse a checkpoint of transformers whose files hold other numbers than plain floats.

    A `quantization_config` that transformers knows says how to read them; one that it does not
    know is skipped by transformers with a warning, and so counts for nothing here.

    Args:
        model: Name of the checkpoint.
        folder: Its files.
        held: The model's own tensors.
        unused: Names of stored tensors that the model has no place for.

    Raises:
        UnusableCheckpoint: The message names file, weights and formats.
    """
    if _is_read_by_transformers(folder):
        return
    for file in weight_files(folder):
        stored = formats_of(without_data(file))
        used = {name: kind for name, kind in stored.items() if name not in unused}
        require_plain(f"{file.name} of {model!r}", used, held)


def require_plain(
    where: str, stored: Formats, held: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Refuse stored tensors that are not plain floats where the model holds floats.

    A tensor that the model knows by the same name is judged by the model's own format: counters and
    positions may be integers. One under another name (loaders rename) is a weight if the model has
    a weight whose last word is the same.

    Args:
        where: The file, for the message.
        stored: Formats in the file.
        held: The model's own tensors; None where all of them are floats.

    Raises:
        UnusableCheckpoint: The message names weights and their formats.
    """
    known = dict.fromkeys(stored, True) if held is None else _are_floats(held)
    words = {_last_word(name) for name, is_float in known.items() if is_float}
    wrong = [
        f"{name} ({kind})"
        for name, kind in stored.items()
        if kind not in PLAIN and known.get(name, _last_word(name) in words)
    ]
    if wrong:
        weights = agreed(
            len(wrong), "weight that is not a plain float", "weights that are not plain floats"
        )
        raise UnusableCheckpoint(
            f"{where} holds {len(wrong)} {weights} ({some_of(wrong)}), and nothing "
            f"says with which scales to read {agreed(len(wrong), 'it', 'them')}; take the "
            "published checkpoint in fp32, fp16 or bf16, or (for transformers) one whose "
            f"{CONFIG_FILE} has the "
            "`quantization_config` that it was made with"
        )


def _are_floats(held: Mapping[str, torch.Tensor]) -> dict[str, bool]:
    return {name: tensor.is_floating_point() for name, tensor in held.items()}


def _last_word(name: str) -> str:
    return name.rpartition(".")[2]


def _is_read_by_transformers(folder: Path) -> bool:
    from transformers.quantizers.auto import AutoHfQuantizer

    config: Mapping[str, Any] = json.loads((folder / CONFIG_FILE).read_bytes())
    stated = config.get("quantization_config")
    return isinstance(stated, dict) and bool(AutoHfQuantizer.supports_quant_method(stated))
