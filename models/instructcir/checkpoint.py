"""A trained reformulation network as a folder that needs no other file.

    config.json             format, settings, architecture, preprocessing, backbone, provenance
    model.safetensors       the online network
    target.safetensors      the tensors in which its moving average differs; absent without one
    combiner.safetensors    the second stage; absent where there was none
    bpe.txt.gz              the tokenizer of a backbone that has its own

Neither the backbone's weights nor a network are needed for loading, and nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import safetensors.torch
import torch
from open_clip.transform import PreprocessCfg
from safetensors import SafetensorError

from models.checkpoints import UnusableCheckpoint
from models.encoders.preprocess import ImagePreprocess
from models.encoders.spec import BPE_FILE
from models.instructcir.combiner import Combiner, new_combiner
from models.instructcir.folder import (
    COMBINER_FILE,
    CONFIG_FILE,
    FORMAT,
    ONLINE_FILE,
    TARGET_FILE,
    CheckpointError,
    network_fingerprint,
    read_config,
    require_files,
)
from models.instructcir.network import ReformulationNetwork
from models.instructcir.parts import NetworkParts, bare_backbone, make_tokens
from models.instructcir.settings import CombinerSettings, NetworkSettings
from models.loaded_weights import require_finite, require_written
from models.weight_formats import formats_of, require_plain

if TYPE_CHECKING:
    from models.protocols import Fingerprint, Json

DiskDtype: TypeAlias = Literal["fp32", "fp16"]

_DISK_DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class LoadedNetwork:
    """A checkpoint in memory: fp32, on the CPU, in evaluation mode, nothing trained.

    Attributes:
        online: The network that was trained.
        target: Its moving average; `online` itself where there was none.
        combiner: The second stage, if there was one.
        fingerprint: Identity of weights and configuration; see `network_fingerprint`.
        provenance: How it was trained, as it was saved.
    """

    online: ReformulationNetwork
    target: ReformulationNetwork
    combiner: Combiner | None
    fingerprint: Fingerprint
    provenance: Mapping[str, Json]


def save_network(
    folder: str | Path,
    *,
    online: ReformulationNetwork,
    target: ReformulationNetwork | None = None,
    combiner: Combiner | None = None,
    provenance: Mapping[str, Json] | None = None,
    dtype: DiskDtype = "fp32",
) -> None:
    """Write a network; settings, architecture and backbone are the network's own.

    The configuration is written last: a folder without it is not a checkpoint. To publish a folder
    in one step, save to a temporary one and rename it.

    Args:
        folder: An empty folder, or one to be made.
        online: The trained network.
        target: Its moving average; None (or `online`) where there is none.
        combiner: The second stage, if any.
        provenance: Anything about training worth keeping; no part of the identity.
        dtype: `fp16` halves the files; weights are fp32 again after loading.

    Raises:
        ValueError: The folder holds something, or the precision is unknown.
    """
    folder = Path(folder)
    if dtype not in _DISK_DTYPES:
        raise ValueError(f"dtype is {dtype!r}; one of {', '.join(_DISK_DTYPES)}")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds something already; save to a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / ONLINE_FILE, online.state_dict(), dtype)
    if target is not None and target is not online:
        _save(folder / TARGET_FILE, _otherwise(target.state_dict(), online.state_dict()), dtype)
    if combiner is not None:
        _save(folder / COMBINER_FILE, combiner.state_dict(), "fp32")
    if online.parts.bpe is not None:
        (folder / BPE_FILE).write_bytes(online.parts.bpe)
    config = _config(online, combiner, dtype) | {"provenance": dict(provenance or {})}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def load_network(folder: str | Path) -> LoadedNetwork:
    """Load a network with its moving average and combiner.

    Raises:
        CheckpointError: The folder holds none, or one that is damaged; it says what to do.
    """
    folder = Path(folder)
    config = read_config(folder)
    require_files(folder, config)
    parts = _parts(folder, config)
    state = _load(folder / ONLINE_FILE)
    online = _filled(folder, config, parts, state)
    target = online
    if (folder / TARGET_FILE).is_file():
        target = _filled(folder, config, parts, state | _load(folder / TARGET_FILE))
    return LoadedNetwork(
        online, target, load_combiner(folder), network_fingerprint(folder), config["provenance"]
    )


def load_combiner(folder: str | Path) -> Combiner | None:
    """The checkpoint's combiner alone, without the network; None where it has none.

    Raises:
        CheckpointError: The folder holds no checkpoint, or one that is damaged.
    """
    folder = Path(folder)
    config = read_config(folder)
    if config["combiner"] is None:
        return None
    try:
        combiner = new_combiner(int(config["dim"]), CombinerSettings(**config["combiner"]))
        combiner.load_state_dict(_load(folder / COMBINER_FILE))
        require_finite(str(folder), combiner)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} holds a damaged combiner: {error}") from error
    return combiner.eval().requires_grad_(False)


def _config(
    network: ReformulationNetwork, combiner: Combiner | None, dtype: DiskDtype
) -> dict[str, Any]:
    preprocess = network.parts.preprocess
    return {
        "format": FORMAT,
        "network": network.settings.model_dump(),
        "combiner": None if combiner is None else combiner.settings.model_dump(),
        "architecture": dict(network.parts.architecture),
        "preprocess": {
            "mode": preprocess.mode,
            "pad_ratio": preprocess.pad_ratio,
            "config": asdict(preprocess.config),
        },
        "base": dict(network.parts.base),
        "dim": network.dim,
        "dtype": dtype,
    }


def _parts(folder: Path, config: Mapping[str, Any]) -> NetworkParts:
    bpe = folder / BPE_FILE
    own = bpe.read_bytes() if bpe.is_file() else None
    try:
        pixels = {key: _tupled(value) for key, value in config["preprocess"]["config"].items()}
        preprocess = ImagePreprocess(
            config["preprocess"]["mode"], config["preprocess"]["pad_ratio"], PreprocessCfg(**pixels)
        )
        tokens = make_tokens(config["architecture"], own)
    except (KeyError, TypeError, ValueError, OSError, EOFError) as error:
        raise CheckpointError(f"{folder} has damaged parts: {error!r}") from error
    return NetworkParts(config["architecture"], tokens, preprocess, config["base"], own)


def _filled(
    folder: Path, config: Mapping[str, Any], parts: NetworkParts, state: Mapping[str, torch.Tensor]
) -> ReformulationNetwork:
    """A network of the configuration with the weights given, without initialising it first."""
    try:
        settings = NetworkSettings(**config["network"])
        with torch.device("meta"):
            network = ReformulationNetwork(bare_backbone(parts.architecture), parts, settings)
        network.load_state_dict({k: v.float() for k, v in state.items()}, assign=True)
        require_finite(str(folder), network)
        require_written(str(folder), network)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights in {folder} do not fit its {CONFIG_FILE}: {error}"
        ) from error
    return network.eval().requires_grad_(False)


def _save(path: Path, state: Mapping[str, torch.Tensor], dtype: DiskDtype) -> None:
    to_disk = _DISK_DTYPES[dtype]
    tensors = {
        # A copy each: safetensors refuses tensors that share memory.
        name: tensor.detach().to("cpu", to_disk, copy=True).contiguous()
        for name, tensor in state.items()
    }
    path.touch()
    readable = path.stat().st_mode  # the user's choice; safetensors' own is "nobody else"
    safetensors.torch.save_file(tensors, path)
    path.chmod(readable)


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        state = safetensors.torch.load_file(path)
        require_plain(str(path), formats_of(state))
        return state
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; the checkpoint is incomplete") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    except UnusableCheckpoint as error:
        raise CheckpointError(str(error)) from error


def _otherwise(
    state: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The tensors that differ from `base`: a frozen text tower is kept once."""
    return {
        name: tensor
        for name, tensor in state.items()
        if not torch.equal(tensor, base[name].to(tensor.device, tensor.dtype))
    }


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
