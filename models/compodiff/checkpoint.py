"""CompoDiff denoisers in files: our own folder, and the released form, read strictly."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import safetensors.torch
import torch

from models.checkpoints import UnusableCheckpoint, refuse_pointer
from models.compodiff.folder import (
    CONFIG_FILE,
    FORMAT,
    WEIGHTS_FILE,
    CompoDiffError,
    CompoDiffFolder,
    read_folder,
)
from models.compodiff.network import Denoiser, DenoiserShape
from models.compodiff.settings import DenoiserSettings
from models.loaded_weights import UNREADABLE, first_line, in_words, require_finite, require_written
from models.weight_formats import formats_of, require_plain

if TYPE_CHECKING:
    from models.protocols import Fingerprint, Json

logger = logging.getLogger(__name__)

_NETWORK: Final = "model.net."
_SCHEDULE: Final = "model.noise_scheduler."
_ROTATION: Final = ".0.rotary_emb.freqs"
_TURNED: Final = ".0.to_q.weight"
_TEXT, _REGION = "to_text_embeds.0.weight", "to_mask_embeds.1.net.0.0.weight"


class LoadedDenoiser:
    """A denoiser in memory: fp32, on the CPU, in evaluation mode, nothing trained.

    Attributes:
        denoiser: The network.
        settings: Units and noise of its training.
        folder: Where it was read.
    """

    def __init__(
        self, denoiser: Denoiser, settings: DenoiserSettings, folder: CompoDiffFolder
    ) -> None:
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.settings = settings
        self.folder = folder


def denoiser_files(
    denoiser: Denoiser,
    settings: DenoiserSettings,
    base: Fingerprint,
    provenance: Mapping[str, Json],
) -> dict[str, bytes]:
    """The files of our own form, by name.

    Args:
        denoiser: The network that answers queries.
        settings: Of its training.
        base: Fingerprint of the backbone whose features it reads.
        provenance: How it was trained; no part of its identity.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in denoiser.state_dict().items()}
    config = {
        "format": FORMAT,
        "settings": settings.model_dump(),
        "shape": denoiser.shape.record,
        "base": dict(base),
        "provenance": dict(provenance),
    }
    return {
        CONFIG_FILE: (json.dumps(config, indent=2, sort_keys=True) + "\n").encode(),
        WEIGHTS_FILE: safetensors.torch.save(state),
    }


def load_denoiser(path: str | Path) -> LoadedDenoiser:
    """A denoiser of either form, each of its weights accounted for.

    Raises:
        CompoDiffError: There is none, or names or shapes do not fit; it lists them.
    """
    folder = read_folder(path)
    state = _state(folder.weights)
    try:
        if folder.released:
            state = _released(state)
            shape, settings = _released_shape(folder.config, state)
        else:
            shape = DenoiserShape(**folder.config["shape"])
            settings = DenoiserSettings.given(folder.config["settings"], CONFIG_FILE)
        denoiser = _filled(shape, state, str(folder.path))
    except CompoDiffError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise CompoDiffError(f"{folder.path} is damaged: {first_line(error)}") from error
    logger.info("took %d tensors of %s", len(state), folder.weights)
    return LoadedDenoiser(denoiser, settings, folder)


def _state(path: Path) -> dict[str, torch.Tensor]:
    try:
        refuse_pointer(path)
        if path.suffix == ".safetensors":
            found: Any = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except UnusableCheckpoint as error:
        raise CompoDiffError(str(error)) from error
    except UNREADABLE as error:
        raise CompoDiffError(
            f"{path} cannot be read as weights: {first_line(error)}; take it as it was published"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise CompoDiffError(f"{path} holds a {type(found).__name__}, not named weights")
    try:
        require_plain(str(path), formats_of(found))
    except UnusableCheckpoint as error:
        raise CompoDiffError(str(error)) from error
    return found


def _released(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The denoiser's weights under its own names; the schedule is computed and not read.

    Released layers share one table of rotations, of which a file may hold one copy or one a layer.
    """
    own = {
        name.removeprefix(_NETWORK): tensor
        for name, tensor in state.items()
        if not name.startswith(_SCHEDULE)
    }
    tables = [tensor for name, tensor in own.items() if name.endswith(_ROTATION)]
    if tables and all(torch.equal(tables[0], each) for each in tables[1:]):
        for name in [name for name in own if name.endswith(_TURNED)]:
            own.setdefault(name.replace(_TURNED, _ROTATION), tables[0])
    return own


def _released_shape(
    config: Mapping[str, Any], state: Mapping[str, torch.Tensor]
) -> tuple[DenoiserShape, DenoiserSettings]:
    """The configuration's, where it says something; widths of text and region by the weights."""
    standard = DenoiserShape()
    text, region = state.get(_TEXT), state.get(_REGION)
    shape = DenoiserShape(
        dim=int(config["embed_dim"]),
        text_width=standard.text_width if text is None else text.shape[-1],
        depth=int(config["model_depth"]),
        heads=int(config["model_heads"]),
        head_width=int(config["model_dim"]),
        region_side=standard.region_side if region is None else math.isqrt(region.shape[-1]),
    )
    settings = DenoiserSettings(
        depth=shape.depth,
        heads=shape.heads,
        head_width=shape.head_width,
        features="as_encoded",
        timesteps=int(config["timesteps"]),
    )
    return shape, settings


def _filled(shape: DenoiserShape, state: Mapping[str, torch.Tensor], where: str) -> Denoiser:
    with torch.device("meta"):
        denoiser = Denoiser(shape)
    wanted = denoiser.state_dict()
    report = {
        "missing_keys": wanted.keys() - state.keys(),
        "unexpected_keys": state.keys() - wanted.keys(),
        "mismatched_keys": {
            name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape
        },
    }
    if any(report.values()):
        raise CompoDiffError(
            f"the weights in {where} are not CompoDiff's: {in_words(report)}; take them as they "
            "were published"
        )
    denoiser.load_state_dict({name: t.float() for name, t in state.items()}, assign=True)
    try:
        require_finite(where, denoiser)
        require_written(where, denoiser)
    except UnusableCheckpoint as error:
        raise CompoDiffError(str(error)) from error
    return denoiser
