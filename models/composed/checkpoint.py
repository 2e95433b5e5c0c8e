"""A composed query encoder as a folder that needs no other file.

    config.json             format, system, settings, architecture, preprocessing, provenance
    model.safetensors       every weight, the backbone's too
    ...                     files of its tokenizer, named in the configuration

Neither the backbone nor a published checkpoint is needed for loading, and nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.composed.folder import FORMAT, WEIGHTS_FILE, composed_fingerprint, read_config
from models.composed.registry import system
from models.encoders.preprocess import ImagePreprocess
from models.loaded_weights import require_finite, require_written
from models.network_folders import CONFIG_FILE, CheckpointError
from models.network_weights import (
    DiskDtype,
    dump_config,
    load_tensors,
    new_folder,
    save_tensors,
)

if TYPE_CHECKING:
    from models.composed.network import ComposedNetwork
    from models.protocols import Fingerprint
    from models.settings import Settings


@dataclass(frozen=True)
class LoadedComposed:
    """A network in memory: fp32, on the CPU, in evaluation mode, nothing trained.

    Attributes:
        system: Name of its system.
        network: The network.
        settings: Its own.
        fingerprint: Identity of weights and configuration.
        provenance: How it came to be.
    """

    system: str
    network: ComposedNetwork
    settings: Settings
    fingerprint: Fingerprint
    provenance: Mapping[str, Any]


def save_composed(
    folder: str | Path,
    name: str,
    network: ComposedNetwork,
    settings: Settings,
    *,
    base: Mapping[str, Any],
    provenance: Mapping[str, Any],
    dtype: DiskDtype = "fp32",
) -> None:
    """Write a network; the configuration comes last.

    Args:
        folder: An empty folder, or one to be made.
        name: Of the system.
        network: The trained network.
        settings: Its own.
        base: Identity of the backbone that it was built on.
        provenance: How it was trained or where it was published; no part of the identity.
        dtype: `fp16` halves the file; weights are fp32 again after loading.

    Raises:
        ValueError: The folder holds something, or the precision is unknown.
    """
    folder = new_folder(folder, dtype)
    save_tensors(folder / WEIGHTS_FILE, network.state_dict(), dtype)
    for file, data in network.files().items():
        (folder / file).write_bytes(data)
    config = {
        "format": FORMAT,
        "system": name,
        "settings": settings.model_dump(mode="json"),
        "architecture": network.architecture(),
        "preprocess": network.preprocess.record,
        "base": dict(base),
        "dim": network.dim,
        "dtype": dtype,
        "files": sorted(network.files()),
        "provenance": dict(provenance),
    }
    dump_config(folder, config)


def load_composed(folder: str | Path) -> LoadedComposed:
    """Load a network.

    Raises:
        CheckpointError: The folder holds none, or one that is damaged.
    """
    folder = Path(folder)
    config = read_config(folder)
    fingerprint = composed_fingerprint(folder)
    try:
        found = system(config["system"])
        settings = found.settings.model_validate(config["settings"])
        network = found.rebuild(config["architecture"], folder)
        network.preprocess = ImagePreprocess.of(config["preprocess"])
        state = load_tensors(folder / WEIGHTS_FILE, network.state_dict())
        network.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, assign=True
        )
        require_finite(str(folder), network)
        require_written(str(folder), network)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, EOFError) as error:
        raise CheckpointError(
            f"the weights in {folder} do not fit its {CONFIG_FILE}: {error}"
        ) from error
    network = network.eval().requires_grad_(False)
    return LoadedComposed(config["system"], network, settings, fingerprint, config["provenance"])
