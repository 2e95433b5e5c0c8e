"""A trained reformulation network as a folder that needs no other file.

    config.json             format, settings, architecture, preprocessing, backbone, provenance
    model.safetensors       the online network
    target.safetensors      the tensors in which its moving average differs; absent without one
    combiner.safetensors    the second stage; absent where there was none
    bpe.txt.gz              the tokenizer of a backbone that has its own

Neither the backbone's weights nor a network are needed for loading, and nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from models.encoders.preprocess import ImagePreprocess
from models.encoders.spec import BPE_FILE
from models.instructcir.combiner import Combiner, new_combiner
from models.instructcir.folder import (
    COMBINER_FILE,
    FORMAT,
    ONLINE_FILE,
    TARGET_FILE,
    network_fingerprint,
    read_config,
    require_files,
)
from models.instructcir.network import ReformulationNetwork
from models.instructcir.parts import NetworkParts, bare_backbone, make_tokens
from models.instructcir.settings import CombinerSettings, NetworkSettings
from models.loaded_weights import require_finite, require_written
from models.network_folders import CONFIG_FILE, CheckpointError
from models.network_weights import DiskDtype, dump_config, load_tensors, new_folder, save_tensors

if TYPE_CHECKING:
    from models.protocols import Fingerprint, Json


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
    folder = new_folder(folder, dtype)
    save_tensors(folder / ONLINE_FILE, online.state_dict(), dtype)
    if target is not None and target is not online:
        save_tensors(
            folder / TARGET_FILE, _otherwise(target.state_dict(), online.state_dict()), dtype
        )
    if combiner is not None:
        save_tensors(folder / COMBINER_FILE, combiner.state_dict(), "fp32")
    if online.parts.bpe is not None:
        (folder / BPE_FILE).write_bytes(online.parts.bpe)
    config = _config(online, combiner, dtype) | {"provenance": dict(provenance or {})}
    dump_config(folder, config)


def load_network(folder: str | Path) -> LoadedNetwork:
    """Load a network with its moving average and combiner.

    Raises:
        CheckpointError: The folder holds none, or one that is damaged; it says what to do.
    """
    folder = Path(folder)
    config = read_config(folder)
    require_files(folder, config)
    parts = _parts(folder, config)
    state = load_tensors(folder / ONLINE_FILE)
    online = _filled(folder, config, parts, state)
    target = online
    if (folder / TARGET_FILE).is_file():
        target = _filled(folder, config, parts, state | load_tensors(folder / TARGET_FILE))
    return LoadedNetwork(
        online, target, load_combiner(folder), network_fingerprint(folder), config["provenance"]
    )


def continued_network(folder: str | Path) -> ReformulationNetwork:
    """The network of a folder, ready to be trained further: its online branch, in fp32.

    Raises:
        CheckpointError: As for `load_network`.
    """
    network = load_network(folder).online.train()
    network.choose_trained()
    return network


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
        combiner.load_state_dict(load_tensors(folder / COMBINER_FILE))
        require_finite(str(folder), combiner)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} holds a damaged combiner: {error}") from error
    return combiner.eval().requires_grad_(False)


def _config(
    network: ReformulationNetwork, combiner: Combiner | None, dtype: DiskDtype
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "network": network.settings.model_dump(),
        "combiner": None if combiner is None else combiner.settings.model_dump(),
        "architecture": dict(network.parts.architecture),
        "preprocess": network.parts.preprocess.record,
        "base": dict(network.parts.base),
        "dim": network.dim,
        "dtype": dtype,
    }


def _parts(folder: Path, config: Mapping[str, Any]) -> NetworkParts:
    bpe = folder / BPE_FILE
    own = bpe.read_bytes() if bpe.is_file() else None
    try:
        preprocess = ImagePreprocess.of(config["preprocess"])
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


def _otherwise(
    state: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The tensors that differ from `base`: a frozen text tower is kept once."""
    return {
        name: tensor
        for name, tensor in state.items()
        if not torch.equal(tensor, base[name].to(tensor.device, tensor.dtype))
    }
