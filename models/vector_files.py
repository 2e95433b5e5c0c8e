"""Vectors in files of others: NPY, safetensors and tensors of PyTorch; nothing in them is run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.published_files import begins_as_weights

if TYPE_CHECKING:
    import torch

    from models.protocols import FloatArray


def read_vectors(path: Path, tensor: str = "") -> FloatArray:
    """The vectors of a file as (N, d) float32.

    Args:
        path: `.npy`, `.safetensors` or `.pt`.
        tensor: Name of a tensor where a file holds several.

    Raises:
        ValueError: the file holds no such array of numbers.
    """
    found: Any
    try:
        if path.suffix in (".safetensors", ".pt") and not begins_as_weights(path):
            raise ValueError("its content is not what its name says; write it again")
        if path.suffix == ".npy":
            found = np.load(path, allow_pickle=False)
        elif path.suffix == ".safetensors":
            found = _safe_tensors(path)
        elif path.suffix == ".pt":
            found = _torch_tensors(path)
        else:
            raise ValueError(f"give .npy, .safetensors or .pt, not {path.suffix!r}")
    except (OSError, EOFError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if isinstance(found, dict):
        found = _one_of(found, tensor, path)
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind != "f":
        kind = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else "else"
        raise ValueError(f"{path}: vectors are an array (N, d) of floats; it holds {kind}")
    return found.astype(np.float32)


def _torch_tensors(path: Path) -> Any:
    import pickle

    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            "it holds more than tensors, and is not opened; write it again as safetensors"
        ) from error
    if isinstance(loaded, torch.Tensor):
        return _array(loaded)
    if isinstance(loaded, dict):
        tensors = {k: each for k, each in loaded.items() if isinstance(each, torch.Tensor)}
        return {str(name): _array(each) for name, each in tensors.items()}
    return loaded


def _safe_tensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # numpy has no bfloat16

    try:
        return {name: _array(each) for name, each in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _array(tensor: torch.Tensor) -> Any:
    """Its numbers; floats of any width as float32.

    Raises:
        TypeError: it is sparse.
    """
    plain = tensor.detach()
    return (plain.float() if tensor.dtype.is_floating_point else plain).numpy()


def _one_of(found: dict[str, Any], tensor: str, path: Path) -> Any:
    if tensor in found:
        return found[tensor]
    if len(found) == 1 and not tensor:
        return next(iter(found.values()))
    asked = f"no tensor {tensor!r}" if tensor else "several tensors"
    raise ValueError(f"{path}: {asked}; name one with --tensor: {', '.join(found) or 'none'}")


def read_names(path: Path) -> list[str]:
    """The names of vectors, in their order: a NPY of texts, a JSON list, or a line each.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        if path.suffix == ".npy":
            found: Any = np.load(path, allow_pickle=False).tolist()
        elif path.suffix == ".json":
            found = json.loads(path.read_bytes())
        elif path.suffix == ".txt":
            found = path.read_text(encoding="utf-8").splitlines()
        else:
            raise ValueError(f"give .npy, .json or .txt, not {path.suffix!r}")
    except (OSError, EOFError, MemoryError, RecursionError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(found, list) or not all(
        isinstance(each, str | int) and not isinstance(each, bool) for each in found
    ):
        raise ValueError(f"{path}: names are a list of texts or numbers")
    return [str(each) for each in found]


def write_vectors(path: Path, vectors: FloatArray) -> None:
    """Write vectors as `.npy` or `.safetensors` (tensor `vectors`).

    Raises:
        ValueError: another ending.
    """
    if path.suffix == ".npy":
        np.save(path, vectors, allow_pickle=False)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({"vectors": np.ascontiguousarray(vectors)}, path)
    else:
        raise ValueError(f"{path}: give .npy or .safetensors, not {path.suffix!r}")


def faults(vectors: FloatArray) -> list[str]:
    """Why each vector must not be used; empty where it may be."""
    good = np.isfinite(vectors).all(axis=1) & (vectors != 0).any(axis=1)
    return ["" if each else "zero or not finite" for each in good]


def agreement(one: FloatArray, other: FloatArray) -> tuple[float, float]:
    """The mean and the least cosine of vectors row by row.

    Raises:
        ValueError: their widths differ.
    """
    if one.shape != other.shape:
        raise ValueError(f"vectors of width {one.shape[1]} and {other.shape[1]} have no cosine")
    a, b = (x.astype(np.float64) for x in (one, other))
    cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return float(cosines.mean()), float(cosines.min())


def rows_of(vectors: FloatArray, rows: Sequence[int]) -> FloatArray:
    """Some rows, in their order."""
    return vectors[list(rows)]
