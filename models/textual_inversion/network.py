"""Mapping networks: from an image feature to a pseudo token of the text tower.

Two shapes exist in published checkpoints, and both load here:

- SEARLE, LinCIR, CVSI: Linear(d -> 4d) GELU Dropout, Linear(4d -> 4d) GELU Dropout,
  Linear(4d -> dt); a file `{'epoch': ..., 'Phi': weights}` with keys `layers.{0,3,6}.*`.
- Pic2Word: Linear(d -> 512) Dropout ReLU, Linear(512 -> 512) Dropout ReLU, Linear(512 -> dt); a
  file with `state_dict_img2text` and keys `layers.{0,1}.0.*`, `fc_out.*`, perhaps `module.`.

The input is the image feature as the vision tower gives it, not normalised; a network that was
trained with `normalise_input` says so in its folder and scales what it reads.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.nn.functional import normalize

from models.checkpoints import UnusableCheckpoint, refuse_pointer
from models.loaded_weights import UNREADABLE, require_finite, require_written
from models.spelling import some_of
from models.textual_inversion.mapping_files import (
    CONFIG_FILE,
    FORMAT,
    WEIGHTS_FILE,
    MappingError,
    MappingShape,
    fingerprint_of,
    read_shape,
    recognise,
)
from models.weight_formats import formats_of, require_plain

if TYPE_CHECKING:
    from models.protocols import FloatArray, Json

_WRAPPERS: Final = ("Phi", "state_dict_img2text", "state_dict")
_FEATURES_PER_BATCH: Final = 8192


class Phi(nn.Module):
    """SEARLE's and LinCIR's network; parameter names as in their checkpoints."""

    def __init__(self, shape: MappingShape) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(shape.dim_in, shape.hidden),
            nn.GELU(),
            nn.Dropout(shape.dropout),
            nn.Linear(shape.hidden, shape.hidden),
            nn.GELU(),
            nn.Dropout(shape.dropout),
            nn.Linear(shape.hidden, shape.dim_out),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Image features (B, d) -> pseudo tokens (B, dt)."""
        return self.layers(x)


class Img2Text(nn.Module):
    """Pic2Word's network; parameter names as in its checkpoint."""

    def __init__(self, shape: MappingShape) -> None:
        super().__init__()
        widths = (shape.dim_in, shape.hidden, shape.hidden)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(a, b), nn.Dropout(shape.dropout), nn.ReLU())
                for a, b in itertools.pairwise(widths)
            )
        )
        self.fc_out = nn.Linear(shape.hidden, shape.dim_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Image features (B, d) -> pseudo tokens (B, dt)."""
        return self.fc_out(self.layers(x))


@dataclass(frozen=True)
class MappingNetwork:
    """A mapping network ready for use.

    Attributes:
        shape: Its architecture.
        module: Its weights, in evaluation mode.
    """

    shape: MappingShape
    module: nn.Module

    @property
    def fingerprint(self) -> Mapping[str, Json]:
        """Architecture and a hash of the weights."""
        return _fingerprint(self.shape, self.module.state_dict())

    def tokens(self, features: FloatArray, device: str = "cpu") -> FloatArray:
        """Pseudo tokens (B, dt) of image features (B, d), as the vision tower gives them.

        Raises:
            MappingError: The features are of another width: another backbone.
        """
        if features.ndim != 2 or features.shape[1] != self.shape.dim_in:
            raise MappingError(
                f"the mapping network reads features of width {self.shape.dim_in}, these are "
                f"{features.shape}; use the network that was trained for this backbone"
            )
        module = self.module.to(device).eval()
        out = np.empty((len(features), self.shape.dim_out), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(features), _FEATURES_PER_BATCH):
                rows = slice(start, start + _FEATURES_PER_BATCH)
                batch = torch.from_numpy(np.ascontiguousarray(features[rows], dtype=np.float32))
                read = normalize(batch, dim=-1) if self.shape.unit_input else batch
                out[rows] = module(read.to(device)).float().cpu().numpy()
        return out


def new_module(shape: MappingShape) -> nn.Module:
    """An untrained network of that shape."""
    return Phi(shape) if shape.kind == "phi" else Img2Text(shape)


def load_mapping(path: str | Path) -> MappingNetwork:
    """Load a mapping network from our own directory, safetensors, or a published checkpoint.

    Published files are read with `weights_only=True`: nothing in them is executed.

    Raises:
        MappingError: The file is missing, unreadable, or holds something else; it says what.
    """
    return _filled(*_read(Path(path)), str(path))


def published_fingerprint(path: Path) -> Mapping[str, Json]:
    """The fingerprint of a published checkpoint; no network is built.

    Raises:
        MappingError: As `load_mapping`, for what the file tells.
    """
    return _fingerprint(*_read(path))


def dump_mapping(network: MappingNetwork, recipe: Mapping[str, Json]) -> dict[str, bytes]:
    """The files of our own form, by name; writing them is the caller's business.

    Args:
        network: The network to save.
        recipe: How it was trained, kept next to the shape.
    """
    state = {name: t.detach().cpu().contiguous() for name, t in network.module.state_dict().items()}
    config = {"format": FORMAT, "shape": network.shape.record, "recipe": dict(recipe)}
    return {
        CONFIG_FILE: (json.dumps(config, indent=2, sort_keys=True) + "\n").encode(),
        WEIGHTS_FILE: safetensors.torch.save(state),
    }


Weights = Mapping[str, torch.Tensor]


def _read(path: Path) -> tuple[MappingShape, Weights]:
    """Architecture and weights of any known form."""
    if path.is_dir():
        file, shape = path / WEIGHTS_FILE, read_shape(path)
        state = _content(file)
    else:
        file, (shape, state) = path, _parsed(_content(path), str(path))
    try:
        require_plain(str(file), formats_of(state))
    except UnusableCheckpoint as error:
        raise MappingError(str(error)) from error
    return shape, state


def _content(path: Path) -> Any:
    """The contents of a file of weights."""
    try:
        refuse_pointer(path)
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise MappingError(f"there is no mapping network at {path}") from None
    except UnusableCheckpoint as error:
        raise MappingError(str(error)) from error
    except UNREADABLE as error:
        raise MappingError(f"{path} cannot be read as weights: {error}") from error


def _parsed(content: Any, where: str) -> tuple[MappingShape, Weights]:
    state = _unwrap(content, where)
    return recognise(state, where), state


def _unwrap(content: Any, where: str) -> dict[str, torch.Tensor]:
    """The bare weights in any of the forms that checkpoints wrap them in."""
    if isinstance(content, Mapping):
        for wrapper in _WRAPPERS:
            inner = content.get(wrapper)
            if isinstance(inner, Mapping):
                content = inner
                break
    if not isinstance(content, Mapping) or not content:
        raise MappingError(f"{where} holds a {type(content).__name__}, not named weights")
    strange = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise MappingError(
            f"{where} holds no mapping network; found entries {some_of(list(map(str, content)))}, "
            f"expected one of {', '.join(_WRAPPERS)}, or weights named layers.*"
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _filled(shape: MappingShape, state: Weights, where: str) -> MappingNetwork:
    try:
        module = new_module(shape)
        module.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        require_finite(where, module)
        require_written(where, module)
    except (RuntimeError, TypeError, UnusableCheckpoint) as error:
        raise MappingError(f"{where} does not fit {shape}: {error}") from error
    return MappingNetwork(shape, module.eval().requires_grad_(False))


def _fingerprint(shape: MappingShape, state: Weights) -> Mapping[str, Json]:
    arrays = ((name, tensor.detach().float().cpu().numpy()) for name, tensor in state.items())
    return fingerprint_of(shape, arrays)
