"""What `auto` means is known without torch, and is what torch would say."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from models import devices
from models.devices import (
    gpu_is_available,
    pick_device,
    pick_dtype,
    require_device,
    torch_dtype_name,
)


@pytest.fixture(autouse=True)
def asked_anew() -> None:
    gpu_is_available.cache_clear()


@pytest.fixture
def switches() -> Iterator[Callable[[], tuple[object, ...]]]:
    """What torch may compute fp32 of CUDA in: products, convolutions, and its own summary."""
    import torch

    def read() -> tuple[object, ...]:
        products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
        # Lightning reads the summary on a GPU; where switches contradict each other, it raises.
        return products.allow_tf32, convolutions.allow_tf32, torch.get_float32_matmul_precision()

    before = read()
    yield read
    torch.set_float32_matmul_precision(str(before[2]))
    torch.backends.cudnn.allow_tf32 = bool(before[1])


def test_fp32_on_a_gpu_is_fp32_in_convolutions_too(
    switches: Callable[[], tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    pick_device("cpu")
    assert switches() == (False, True, "highest")  # torch's own choice
    pick_device("auto")
    assert switches() == (False, False, "highest")


def test_tf32_holds_as_long_as_it_is_asked_for(
    switches: Callable[[], tuple[object, ...]],
) -> None:
    import torch

    before = switches()
    with devices.tf32_products(torch.device("cpu")):
        assert switches() == before
    with devices.tf32_products(torch.device("cuda", 1)):
        assert switches() == (True, True, "high")
    assert switches() == before


def test_the_driver_says_what_torch_says() -> None:
    import torch

    assert gpu_is_available() == torch.cuda.is_available()


def test_the_build_of_torch_is_read_without_torch() -> None:
    import torch

    build = devices._torch_build()
    assert build is not None
    assert (build.cuda, build.hip) == (torch.version.cuda, torch.version.hip)


class Driver:
    """A CUDA driver of some version that shows some devices."""

    def __init__(self, version: int, count: int, started: int = 0) -> None:
        self._version, self._count, self._started = version, count, started

    def cuDriverGetVersion(self, place: ctypes._Pointer) -> int:
        place._obj.value = self._version
        return 0

    def cuInit(self, flags: int) -> int:
        return self._started

    def cuDeviceGetCount(self, place: ctypes._Pointer) -> int:
        place._obj.value = self._count
        return 0


@pytest.mark.parametrize(
    ("cuda", "driver", "there"),
    [
        ("13.0", Driver(13000, 1), True),
        ("13.0", Driver(13020, 8), True),
        ("13.2", Driver(13000, 1), True),  # any driver of the same major version
        ("12.8", Driver(13000, 1), True),
        ("13.0", Driver(12080, 1), False),
        ("13.0", Driver(13000, 0), False),  # CUDA_VISIBLE_DEVICES shows none
        ("13.0", Driver(13000, 1, started=100), False),  # CUDA_ERROR_NO_DEVICE
        (None, Driver(13000, 1), False),  # a build for CPUs
    ],
)
def test_a_gpu_is_there_for_a_driver_that_torch_can_use(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, driver: Driver, there: bool
) -> None:
    monkeypatch.setattr(devices, "_torch_build", lambda: SimpleNamespace(cuda=cuda, hip=None))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert gpu_is_available() is there
    assert torch_dtype_name("auto", "auto") == ("bfloat16" if there else "float32")


def test_torch_for_other_gpus_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(devices, "_torch_build", lambda: SimpleNamespace(cuda=None, hip="7.0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert gpu_is_available()


def test_names_of_precisions() -> None:
    import torch

    assert pick_dtype("bf16", "cpu") is torch.bfloat16
    assert pick_dtype("auto", "cpu") is torch.float32
    assert torch_dtype_name("auto", "cuda:1") == "bfloat16"
    with pytest.raises(ValueError, match=r"unknown dtype 'int8'; known: auto, fp32, bf16, fp16"):
        torch_dtype_name("int8", "cpu")  # type: ignore[arg-type]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"'cuda:1' was asked for, but torch sees no GPU"):
        pick_device("cuda:1")


def test_a_number_beyond_the_gpus_that_are_there_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "_torch_build", lambda: SimpleNamespace(cuda="13.0", hip=None))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(13000, 2))
    require_device("cuda:1")
    with pytest.raises(ValueError, match=r"'cuda:2' .* torch sees cuda:0, cuda:1 alone"):
        require_device("cuda:2")


@pytest.mark.parametrize("device", ["xpu", "xpu:0", "mps", "npu", "hpu", "xla", "mtia"])
def test_a_kind_of_device_that_torch_was_not_built_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(devices, "_torch_build", lambda: SimpleNamespace(xpu=None))
    monkeypatch.setattr(devices, "entry_points", lambda group: ())
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(ValueError, match=f"'{device}' was asked for, .* use 'cpu'"):
        require_device(device)
    with pytest.raises(ValueError, match=f"'{device}' was asked for, .* use 'cpu'"):
        pick_device(device)


@pytest.mark.parametrize("device", ["xpu", "mps", "npu:1"])
def test_a_kind_of_device_that_may_be_there_is_left_to_torch(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(devices, "_torch_build", lambda: SimpleNamespace(xpu="20250301"))
    monkeypatch.setattr(devices, "entry_points", lambda group: ("torch_npu",))
    monkeypatch.setattr("sys.platform", "darwin")
    require_device(device)


def test_production_computes_features_in_bf16_on_a_gpu_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flows.profiles import resolve_profile
    from models.encoders import spec

    def precisions(**settings: object) -> set[str]:
        own = {"instructcir.checkpoint": "a", **settings}
        profile = resolve_profile("production", own)
        return {
            profile.query_encoder.precision,
            profile.gallery_encoder.precision,
            profile.network.dtype,
        }

    monkeypatch.setattr(devices, "gpu_is_available", lambda: True)
    assert precisions() == {"bf16"}
    assert precisions(**{"encoder.device": "cpu"}) == {"fp32"}
    exact = {"encoder.dtype": "fp32", "cvsi.gallery_dtype": "fp32"}
    assert precisions(**exact) == {"fp32"}
    assert spec.EncoderSpec(name="ViT-B-32", pretrained="openai").precision == "fp32"
    monkeypatch.setattr(devices, "gpu_is_available", lambda: False)
    assert precisions() == {"fp32"}
    assert precisions(**{"encoder.device": "cuda"}) == {"bf16"}
