"""Parameters that Flax wrote, as tensors by dotted name; nothing in the file is run.

`flax.serialization.to_bytes` writes nested dictionaries in MessagePack, each array as an extension
of code 1 that holds (shape, name of the number format, bytes in C order). A file `.pkl` holds those
bytes as the one value of a pickle, whose opcodes are read as data.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgpack
import torch

from models.checkpoints import UnusableCheckpoint
from models.composed.flax_kind import EXPECTED, PICKLE, require_flax
from models.loaded_weights import first_line
from models.published_state import State

_BYTES: Final = ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8")
_AROUND: Final = ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP")
_ARRAY: Final = 1
_FORMATS: Final = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16")}
_UNREADABLE: Final = (
    *(ValueError, TypeError, RuntimeError, RecursionError, MemoryError),
    *(msgpack.exceptions.UnpackException, UnicodeDecodeError),
)


def read_flax(path: Path) -> State:
    """The parameters in a file, on the CPU, without the name `params` around all of them.

    Raises:
        UnusableCheckpoint: It cannot be read, is cut off, or holds anything else.
    """
    require_flax(path)
    try:
        tree = msgpack.unpackb(_packed(path), ext_hook=_array, strict_map_key=True)
        leaves = list(_leaves(tree, ""))
        state = dict(leaves)
        if len(state) < len(leaves):
            raise ValueError("it holds two arrays of one name")
    except _UNREADABLE as error:
        raise UnusableCheckpoint(
            f"{path} cannot be read as {EXPECTED}: {first_line(error)}; take the published file "
            "again"
        ) from error
    if all(name.startswith("params.") for name in state):
        state = {name.removeprefix("params."): each for name, each in state.items()}
    return state


def _packed(path: Path) -> bytes:
    """The MessagePack of a file; what was around it is not kept in memory."""
    data = path.read_bytes()
    return _bytes_of(data) if data[:1] == PICKLE else data


def _bytes_of(data: bytes) -> bytes:
    """The one byte string of a pickle."""
    found: list[bytes] = []
    for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
        if opcode.name in _BYTES and isinstance(argument, bytes):
            found.append(argument)
        elif opcode.name not in _AROUND:
            raise ValueError(f"the pickle holds more than bytes ({opcode.name}); nothing of it ran")
    if len(found) != 1:
        raise ValueError(f"the pickle holds {len(found)} byte strings and not one")
    return found[0]


def _array(code: int, data: bytes) -> torch.Tensor:
    if code != _ARRAY:
        raise ValueError(f"an extension of code {code} is not an array")
    shape, kind, values = msgpack.unpackb(data)
    if not isinstance(values, bytes):
        raise ValueError(f"an array holds {type(values).__name__} and not bytes")
    if kind not in _FORMATS:
        raise ValueError(f"an array of {kind!r} is none of {', '.join(_FORMATS)}")
    if min(shape, default=0) < 0 or math.prod(shape) * _FORMATS[kind].itemsize != len(values):
        raise ValueError(f"an array of {kind} {shape} has {len(values)} bytes")
    if not values:
        return torch.empty(tuple(shape), dtype=_FORMATS[kind])
    # A copy: torch warns of memory that is read-only.
    return torch.frombuffer(bytearray(values), dtype=_FORMATS[kind]).reshape(tuple(shape))


def _leaves(tree: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(tree, torch.Tensor):
        yield name, tree
    elif isinstance(tree, Mapping):
        for key, each in tree.items():
            yield from _leaves(each, f"{name}.{key}" if name else str(key))
    else:
        raise ValueError(f"{name or 'it'} holds {type(tree).__name__} and not parameters")
