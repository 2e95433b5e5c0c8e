"""A folder of gates: `gate.json` with one gate for each benchmark family, read and written."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.retrieval.gate import Gate

GATE_FILE: Final = "gate.json"
FORMAT: Final = "cirflow-query-weights-1"
_GIVE: Final = "give the folder that train-weights published"


class GateError(ValueError):
    """A folder holds no gate, or a damaged one, or none for a family."""


def gate_file(method: str, gates: Mapping[str, Gate], provenance: Mapping[str, Any]) -> bytes:
    """The content of `GATE_FILE`.

    Args:
        method: Whose parts are weighed.
        gates: Family -> gate.
        provenance: How they were trained, as JSON.
    """
    families = {
        family: {
            name: value.tolist() if isinstance(value, np.ndarray) else list(value)
            for name, value in asdict(gate).items()
        }
        for family, gate in gates.items()
    }
    content = {
        "format": FORMAT,
        "method": method,
        "families": families,
        "provenance": dict(provenance),
    }
    return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"


def read_gate_file(folder: str | Path) -> dict[str, Any]:
    """A folder's gates as JSON.

    Raises:
        GateError: The file is missing, unreadable, or of another format.
    """
    path = Path(folder, GATE_FILE)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise GateError(f"{folder} holds no {GATE_FILE}; {_GIVE}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise GateError(f"{path} is damaged: {error}") from error
    given = content.get("format") if isinstance(content, dict) else None
    if given != FORMAT:
        raise GateError(f"{path} is of format {given!r}, read here is {FORMAT}; {_GIVE}")
    if not isinstance(content.get("families"), dict) or "method" not in content:
        raise GateError(f"{path} is damaged: it lacks families or method; {_GIVE}")
    return content


def load_gate(folder: str | Path, family: str) -> Gate:
    """The gate of a benchmark family.

    Raises:
        GateError: There is none for it, or its numbers do not fit together.
    """
    families = read_gate_file(folder)["families"]
    if family not in families:
        raise GateError(
            f"{folder} has no weights for the benchmark family {family!r}; it has "
            f"{', '.join(sorted(families))}: train them with families={family}"
        )
    try:
        return _gate(families[family])
    except (KeyError, TypeError, ValueError) as error:
        raise GateError(f"{Path(folder, GATE_FILE)} is damaged at {family}: {error!r}") from error


def gate_key(folder: str | Path, family: str) -> str:
    """20 hex digits over the numbers of a family's gate: equal gates rank alike.

    Raises:
        GateError: As `load_gate`.
    """
    load_gate(folder, family)
    own = read_gate_file(folder)["families"][family]
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:20]


def _gate(values: Mapping[str, Any]) -> Gate:
    parts, names = tuple(values["parts"]), tuple(values["signals"])
    shapes = {
        "mean": (len(names),),
        "scale": (len(names),),
        "bias": (len(parts),),
        "matrix": (len(parts), len(names)),
        "fixed": (len(parts),),
    }
    arrays = {name: np.array(values[name], np.float64) for name in shapes}
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not all(map(math.isfinite, arrays[name].flat)):
            raise ValueError(f"{name} must hold {shape} finite numbers")
    if not (arrays["scale"] > 0).all():
        raise ValueError("scale must be positive")
    return Gate(parts, names, **arrays)
