"""Devices and precisions by name. Only functions that return torch's values import torch.

The meaning of `auto` enters identities, which are computed before anything is loaded. So the
driver is asked whether there is a GPU, as torch asks it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal

from models.protocols import TORCH_DTYPES, AutoDtype, Dtype

if TYPE_CHECKING:
    import torch

_DRIVERS: Final = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}
"""Libraries that torch's CUDA runtime loads; other systems have no driver."""


def pick_device(device: str) -> torch.device:
    """The device named, where `auto` means the GPU if there is one.

    On CUDA, torch computes convolutions of fp32 in TF32 unless it is told otherwise; it is told so
    here, for the whole process.

    Raises:
        ValueError: A device is named and torch sees none.
    """
    require_device(device)
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(_no_gpu(device))
    found = torch.device(device)
    if found.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    return found


def require_device(device: str) -> None:
    """Refuse a device where there is none; torch is not imported where that is possible.

    Raises:
        ValueError: A device is named and there is none.
    """
    kind, _, number = device.partition(":")
    if kind in ("auto", "cpu"):
        return
    if kind != "cuda":
        if not _is_built_for(kind):
            raise ValueError(
                f"device {device!r} was asked for, but the torch of this machine knows no "
                f"{kind}; use 'cpu' (or 'auto')"
            )
    elif not gpu_is_available():
        raise ValueError(_no_gpu(device))
    elif number and 0 < (count := _gpus()) <= int(number):
        there = ", ".join(f"cuda:{place}" for place in range(count))
        raise ValueError(
            f"device {device!r} was asked for, but torch sees {there} alone; name one of these"
        )


def _no_gpu(device: str) -> str:
    return f"device {device!r} was asked for, but torch sees no GPU; use 'cpu' (or 'auto')"


def _is_built_for(kind: str) -> bool:
    """Whether torch has that kind of device, as far as its build and its plug-ins say."""
    if kind == "mps":
        return sys.platform == "darwin"
    if kind == "xpu":
        return bool(getattr(_torch_build(), "xpu", None))
    return bool(entry_points(group="torch.backends"))  # which torch loads by itself


def autocast_of(device: torch.device, dtype: Dtype | Literal["tf32"]) -> torch.autocast:
    """Computation in a precision over fp32 weights; see `tf32_products` for tf32."""
    import torch

    full = dtype in ("fp32", "tf32")
    half = torch.float32 if full else getattr(torch, TORCH_DTYPES[dtype])
    return torch.autocast(device.type, dtype=half, enabled=not full)


@contextlib.contextmanager
def tf32_products(
    device: torch.device, precision: Dtype | Literal["tf32"] = "tf32"
) -> Iterator[None]:
    """Products and convolutions of fp32 in TF32 (10 bits of mantissa), where the device is CUDA's.

    A precision that is not tf32 leaves them as they are.

    It holds for the whole process. Only these two of torch's switches may be used together; its
    newer ones for one backend make a reading of the older ones fail.
    """
    import torch

    if device.type != "cuda" or precision != "tf32":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def precision_of(dtype: AutoDtype, device: str) -> Dtype:
    """The precision named; `auto` is bf16 on a GPU and fp32 elsewhere."""
    if dtype != "auto":
        return dtype
    on_gpu = device.startswith("cuda") or (device == "auto" and gpu_is_available())
    return "bf16" if on_gpu else "fp32"


def torch_dtype_name(dtype: AutoDtype, device: str) -> str:
    """Torch's name of a precision, see `precision_of`.

    Raises:
        ValueError: An unknown precision.
    """
    name = precision_of(dtype, device)
    if name not in TORCH_DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; known: auto, {', '.join(TORCH_DTYPES)}")
    return TORCH_DTYPES[name]


def pick_dtype(dtype: AutoDtype, device: str) -> torch.dtype:
    """The precision named, as torch's value; see `torch_dtype_name`."""
    import torch

    found = getattr(torch, torch_dtype_name(dtype, device))
    assert isinstance(found, torch.dtype)
    return found


@functools.cache
def gpu_is_available() -> bool:
    """The answer of `torch.cuda.is_available`, without importing torch where that is possible.

    Torch counts the devices of the CUDA driver, provided that it was built for CUDA and that the
    driver is of the same major version or newer; the driver itself honours CUDA_VISIBLE_DEVICES.
    A torch for AMD's GPUs is asked itself.
    """
    return _gpus() > 0


def _gpus() -> int:
    """How many GPUs torch sees; see `gpu_is_available`."""
    build = _torch_build()
    if getattr(build, "hip", None):
        import torch

        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = getattr(build, "cuda", None)
    return _devices_of_driver(int(str(cuda).partition(".")[0])) if cuda else 0


def _torch_build() -> ModuleType | None:
    """Torch's `version` module, which imports nothing; None where torch is not installed."""
    found = importlib.util.find_spec("torch")
    for folder in (found.submodule_search_locations or ()) if found else ():
        spec = importlib.util.spec_from_file_location("torch_build", Path(folder, "version.py"))
        if spec and spec.loader:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    return None


def _devices_of_driver(major: int) -> int:
    """How many GPUs a CUDA driver of that major version, or a newer one, shows this process."""
    name = _DRIVERS.get(sys.platform)
    if name is None:
        return 0
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return 0
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    asked = (
        lambda: driver.cuDriverGetVersion(ctypes.byref(version)),
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGetCount(ctypes.byref(count)),
    )
    if any(ask() != 0 for ask in asked) or version.value // 1000 < major:
        return 0
    return count.value
