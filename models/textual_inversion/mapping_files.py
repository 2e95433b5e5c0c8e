"""Facts about a mapping network from its files, read without torch.

`models.textual_inversion.network` loads the network of the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np

from models.published_files import begins_as_weights
from models.spelling import some_of

if TYPE_CHECKING:
    from models.protocols import FloatArray, Json

Kind: TypeAlias = Literal["phi", "img2text"]

CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "model.safetensors"
FORMAT: Final = "cirflow-mapping-1"

_SIGNATURES: Final[tuple[tuple[Kind, tuple[str, ...], float], ...]] = (
    ("phi", ("layers.0.weight", "layers.3.weight", "layers.6.weight"), 0.5),
    ("img2text", ("layers.0.0.weight", "layers.1.0.weight", "fc_out.weight"), 0.1),
)
"""Kind, weights that tell it, and the dropout it is trained with."""

_NUMPY: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
"""safetensors' names of precisions that numpy knows; BF16 is the upper half of an F32."""


class MappingError(ValueError):
    """A file holds no mapping network, or one for another backbone."""


@dataclass(frozen=True, slots=True)
class MappingShape:
    """Architecture of a mapping network.

    Attributes:
        kind: `phi` (SEARLE, LinCIR) or `img2text` (Pic2Word).
        dim_in: d, width of image features.
        hidden: Width of the two hidden layers.
        dim_out: dt, width of the text tower's tokens.
        dropout: Dropped share while training.
        unit_input: Whether it was trained on features of length one, and scales what it reads.
    """

    kind: Kind
    dim_in: int
    hidden: int
    dim_out: int
    dropout: float
    unit_input: bool = False

    @staticmethod
    def phi(
        dim_in: int, dim_out: int, dropout: float = 0.5, unit_input: bool = False
    ) -> MappingShape:
        """SEARLE's and LinCIR's shape for a backbone: hidden layers of 4 d."""
        return MappingShape("phi", dim_in, 4 * dim_in, dim_out, dropout, unit_input)

    @property
    def record(self) -> dict[str, Json]:
        """The shape in files and fingerprints; `unit_input` only where it is set."""
        values = asdict(self)
        return values if self.unit_input else {k: values[k] for k in values if k != "unit_input"}


def fingerprint_of(
    shape: MappingShape, weights: Iterable[tuple[str, FloatArray]]
) -> Mapping[str, Json]:
    """Architecture and a hash of the weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, values in sorted(weights, key=lambda named: named[0]):
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(np.ascontiguousarray(values, dtype=np.float32).tobytes())
    return {"mapping": shape.kind, **shape.record, "weights_sha256": digest.hexdigest()}


def read_shape(folder: Path) -> MappingShape:
    """The architecture that a folder of our own form states.

    Raises:
        MappingError: The folder holds no mapping network, or a damaged one.
    """
    if not (folder / CONFIG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise MappingError(
            f"{folder} holds no mapping network: it needs {CONFIG_FILE} and {WEIGHTS_FILE}"
        )
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
    except json.JSONDecodeError as error:
        raise MappingError(f"{folder} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise MappingError(f"{folder / CONFIG_FILE} is not of format {FORMAT}")
    try:
        return MappingShape(**config["shape"])
    except (KeyError, TypeError) as error:
        raise MappingError(f"{folder / CONFIG_FILE} has no complete `shape`: {error}") from error


def read_arrays(path: Path) -> dict[str, FloatArray]:
    """Names and values of a safetensors file, as float32."""
    from safetensors import SafetensorError, deserialize

    try:
        return {name: _values(entry) for name, entry in deserialize(path.read_bytes())}
    except (SafetensorError, KeyError, MappingError) as error:
        raise MappingError(f"{path} cannot be read as weights: {error}") from error


def _values(entry: Mapping[str, Any]) -> FloatArray:
    if entry["dtype"] == "BF16":
        upper = np.frombuffer(entry["data"], dtype="<u2").astype("<u4")
        return (upper << 16).view("<f4").reshape(entry["shape"])
    if entry["dtype"] not in _NUMPY:
        raise MappingError(
            f"it holds weights of the format {entry['dtype']}, which are not plain floats; take "
            "the published checkpoint in fp32, fp16 or bf16"
        )
    values = np.frombuffer(entry["data"], dtype=_NUMPY[entry["dtype"]])
    return values.astype(np.float32).reshape(entry["shape"])


def require_torch_file(path: Path) -> None:
    """Refuse a file that torch did not write: neither a zip nor a pickle.

    Raises:
        MappingError: It begins otherwise.
    """
    if not begins_as_weights(path):
        raise MappingError(
            f"{path} holds no mapping network: it is not a checkpoint of torch; give a published "
            f"one, a .safetensors file, or a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
        )


def recognise(state: Mapping[str, Any], where: str) -> MappingShape:
    """Read the architecture off the names and shapes of the weights.

    Args:
        state: Name -> array or tensor.
        where: The file, for errors.

    Raises:
        MappingError: They are another network's.
    """
    for kind, names, dropout in _SIGNATURES:
        if all(name in state and state[name].ndim == 2 for name in names):
            first, last = state[names[0]], state[names[-1]]
            return MappingShape(kind, first.shape[1], first.shape[0], last.shape[0], dropout)
    raise MappingError(
        f"{where} holds no mapping network; found weights {some_of(list(state))}, expected "
        "layers.{0,3,6} (SEARLE, LinCIR) or layers.{0,1}.0 and fc_out (Pic2Word)"
    )
