"""Weights in files of others: opened without unpickling, and laid strictly over a network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.checkpoints import UnusableCheckpoint
from models.loaded_weights import (
    UNREADABLE,
    first_line,
    in_words,
    require_finite_values,
    require_written,
)
from models.published_files import require_weights
from models.spelling import agreed, some_of
from models.weight_formats import formats_of, require_plain

logger = logging.getLogger(__name__)

State = dict[str, torch.Tensor]


def read_state(path: Path, key: str | None = None, prefix: str = "") -> State:
    """The tensors of a published file, on the CPU; nothing in it is run.

    Args:
        path: A safetensors file, or one of PyTorch.
        key: Name of the state dict in a dict of several things; None where the file is one.
            A safetensors file holds tensors alone, and has no such name.
        prefix: Taken off the names where all have it (`module.` of data-parallel training).

    Raises:
        UnusableCheckpoint: It cannot be read, or holds something else.
    """
    try:
        require_weights(path)
        if path.suffix == ".safetensors":
            import safetensors.torch

            found: Any = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
            found = found if key is None else _entry(found, key, path)
    except UnusableCheckpoint:
        raise
    except UNREADABLE as error:
        raise UnusableCheckpoint(
            f"{path} cannot be read as weights: {first_line(error)}; take the published file "
            "again, or one that holds tensors alone"
        ) from error
    if not isinstance(found, Mapping) or not found:
        raise UnusableCheckpoint(f"{path} holds no state dict but {type(found).__name__}")
    others = [str(name) for name, each in found.items() if not isinstance(each, torch.Tensor)]
    if others:
        raise UnusableCheckpoint(
            f"{path} holds more than tensors: {some_of(others)}; the weights lie under another name"
        )
    if sparse := [str(name) for name, each in found.items() if each.layout != torch.strided]:
        raise UnusableCheckpoint(
            f"{path} holds weights in a sparse layout ({some_of(sparse)}), as no published file "
            "does; write them densely (`tensor.to_dense()`), or take the published file again"
        )
    if prefix and all(name.startswith(prefix) for name in found):
        return {name.removeprefix(prefix): each for name, each in found.items()}
    return dict(found)


def _entry(found: Any, key: str, path: Path) -> Any:
    if not isinstance(found, Mapping) or key not in found:
        names = some_of([str(name) for name in found]) if isinstance(found, Mapping) else "no names"
        raise UnusableCheckpoint(f"{path} has no entry {key!r}; it has {names}")
    return found[key]


def sizes_of(
    state: Mapping[str, torch.Tensor], name: str, axes: int, where: str | Path
) -> tuple[int, ...]:
    """The sizes of a tensor from which those of a network follow.

    Raises:
        UnusableCheckpoint: It is missing, has other axes, or nothing in it; the message names it.
    """
    if name not in state:
        raise UnusableCheckpoint(
            f"{where} lacks {name}; it holds {len(state)} {agreed(len(state), 'tensor')} "
            f"({some_of(sorted(state))}). Take the published file again, or say what it is"
        )
    shape = tuple(state[name].shape)
    if len(shape) != axes or 0 in shape:
        raise UnusableCheckpoint(
            f"{where}: {name} has the shape {shape} and not {axes} axes of one or more; take the "
            "published file again, or say what it is"
        )
    return shape


def in_heads(width: int, head_width: int, name: str, where: str | Path) -> int:
    """How many heads a width makes.

    Args:
        width: Of the layer.
        head_width: Of each head.
        name: The tensor that tells the width.
        where: The file.

    Raises:
        UnusableCheckpoint: They do not fill it.
    """
    heads, rest = divmod(width, head_width)
    if rest or not heads:
        raise UnusableCheckpoint(
            f"{where}: {name} has a width of {width}, which heads of {head_width} do not fill; "
            "take the published file again"
        )
    return heads


def side_of(positions: int, name: str, where: str | Path) -> int:
    """The side of the square of patches that a table of positions, class token first, is for.

    Raises:
        UnusableCheckpoint: It is for none.
    """
    side = round(max(positions - 1, 0) ** 0.5)
    if not side or side * side + 1 != positions:
        raise UnusableCheckpoint(
            f"{where}: {name} has {positions} positions, which are not a square and a class token; "
            "take the published file again"
        )
    return side


def fill(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    where: str | Path,
    named: Callable[[str], str] = str,
) -> None:
    """Lay all of a state over a network, in fp32; a network on `meta` gets its tensors from it.

    Args:
        network: Its names and shapes are those of the state.
        state: Tensors of any floating precision.
        where: The file, for messages.
        named: From a name in the state to the one in the file, for messages.

    Raises:
        UnusableCheckpoint: Names are missing or unknown, shapes or formats differ, or values are
            not finite.
    """
    wanted = network.state_dict()
    given = {named(name): tensor for name, tensor in state.items()}
    held = {named(name): tensor for name, tensor in wanted.items()}
    require_plain(str(where), formats_of(given), held)
    report = {
        "missing_keys": held.keys() - given.keys(),
        "unexpected_keys": given.keys() - held.keys(),
        "mismatched_keys": {
            f"{name} {tuple(given[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in held.items()
            if name in given and given[name].shape != tensor.shape
        },
    }
    if any(report.values()):
        raise UnusableCheckpoint(
            f"{where} does not fit {type(network).__name__}: {in_words(report)}; take the "
            "published file again, or say what it is"
        )
    require_finite_values(str(where), given)
    network.load_state_dict(
        {name: each.float() if each.is_floating_point() else each for name, each in state.items()},
        assign=True,
    )
    require_written(str(where), network)


def log_taken(where: str | Path, taken: Iterable[str], left: Iterable[str]) -> None:
    """Say which tensors of a file were read and which were left."""
    taken, left = list(taken), list(left)
    have = agreed(len(left), "has", "have")
    rest = f"; {len(left)} {have} no use here ({some_of(left)})" if left else ""
    logger.info("%s: %d %s taken%s", where, len(taken), agreed(len(taken), "tensor"), rest)
