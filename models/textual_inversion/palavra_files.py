"""The folder of a PALAVRA-style network, read without torch for its identity."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.checkpoints import UnusableCheckpoint, file_sha256
from models.textual_inversion.mapping_files import CONFIG_FILE, WEIGHTS_FILE, MappingError

if TYPE_CHECKING:
    from models.protocols import Json
    from models.textual_inversion.palavra import PalavraNetwork

FORMAT: Final = "cirflow-palavra-1"
_SHAPE: Final = ("dim", "hidden", "width")


def palavra_fingerprint(folder: str | Path) -> Mapping[str, Json]:
    """Shape and hash of the weights; no weights are loaded.

    Raises:
        MappingError: The folder holds no such network.
    """
    weights = Path(folder) / WEIGHTS_FILE
    return {"palavra": dict(_shape(Path(folder))), "weights_sha256": file_sha256(weights)}


def dump_palavra(network: PalavraNetwork, recipe: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a network, by name."""
    from safetensors.torch import save

    config = {
        "format": FORMAT,
        "shape": {name: getattr(network, name) for name in _SHAPE},
        "recipe": dict(recipe),
    }
    state = {name: own.detach().cpu().contiguous() for name, own in network.state_dict().items()}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    return {CONFIG_FILE: text.encode(), WEIGHTS_FILE: save(state)}


def load_palavra(folder: str | Path) -> PalavraNetwork:
    """The network of a folder, in evaluation mode.

    Raises:
        MappingError: The folder holds no such network, or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from models.loaded_weights import require_finite
    from models.textual_inversion.palavra import PalavraNetwork
    from models.weight_formats import formats_of, require_plain

    shape = _shape(Path(folder))
    try:
        network = PalavraNetwork(**shape)
        state = load_file(Path(folder) / WEIGHTS_FILE)
        require_plain(str(folder), formats_of(state))
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        require_finite(str(folder), network)
    except (SafetensorError, RuntimeError, OSError, UnusableCheckpoint) as error:
        raise MappingError(
            f"{folder} does not hold the weights it states: {error}; copy it again, or train one "
            "(cirflow run train-mapping --set system=palavra)"
        ) from error
    return network.eval().requires_grad_(False)


def _shape(folder: Path) -> dict[str, int]:
    if not (folder / CONFIG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise MappingError(
            f"{folder} holds no PALAVRA-style network: it needs {CONFIG_FILE} and {WEIGHTS_FILE}; "
            "train one (cirflow run train-mapping --set system=palavra)"
        )
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
        if config["format"] != FORMAT:
            raise MappingError(f"{folder / CONFIG_FILE} is not of format {FORMAT}")
        return {name: _positive(config["shape"][name]) for name in _SHAPE}
    except MappingError:
        raise
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise MappingError(f"{folder / CONFIG_FILE} is damaged: {error}") from error


def _positive(size: Any) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"a size is {size!r}")
    return size
