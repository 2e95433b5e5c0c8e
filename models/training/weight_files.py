"""The weights that a training keeps: the state of its module as one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def save_weights(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write the state of a module."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, path)


def kept_weights(path: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The weights of a part of a module, under the part's own names.

    Args:
        path: A file of `save_weights`.
        prefix: Name of the part, with a dot at its end.
    """
    return below(prefix, load_file(path))


def below(prefix: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The entries whose names start with a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
