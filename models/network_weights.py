"""The files of a trained network: tensors as safetensors, the configuration last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import safetensors.torch
import torch
from safetensors import SafetensorError

from models.checkpoints import UnusableCheckpoint
from models.network_folders import CONFIG_FILE, CheckpointError, require_new
from models.weight_formats import formats_of, require_plain

DiskDtype: TypeAlias = Literal["fp32", "fp16"]

_DISK_DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16}


def new_folder(folder: str | Path, dtype: DiskDtype) -> Path:
    """An empty folder for a network.

    Raises:
        ValueError: The folder holds something, or the precision is unknown.
    """
    folder = Path(folder)
    if dtype not in _DISK_DTYPES:
        raise ValueError(f"dtype is {dtype!r}; one of {', '.join(_DISK_DTYPES)}")
    require_new(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save_tensors(path: Path, state: Mapping[str, torch.Tensor], dtype: DiskDtype) -> None:
    """Write a state; floating tensors in the precision given, others as they are."""
    to_disk = _DISK_DTYPES[dtype]
    tensors = {
        # A copy each: safetensors refuses tensors that share memory.
        name: tensor.detach()
        .to("cpu", to_disk if tensor.is_floating_point() else tensor.dtype, copy=True)
        .contiguous()
        for name, tensor in state.items()
    }
    path.touch()
    readable = path.stat().st_mode  # the user's choice; safetensors' own is "nobody else"
    safetensors.torch.save_file(tensors, path)
    path.chmod(readable)


def load_tensors(
    path: Path, held: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Read a state.

    Args:
        path: The file.
        held: The tensors of the network that it is for; None where all of them are floats.

    Raises:
        CheckpointError: The file is missing, damaged, or holds no plain weights.
    """
    try:
        state = safetensors.torch.load_file(path)
        require_plain(str(path), formats_of(state), held)
        return state
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; the checkpoint is incomplete") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    except UnusableCheckpoint as error:
        raise CheckpointError(str(error)) from error


def dump_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the configuration, which makes the folder a network's."""
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
