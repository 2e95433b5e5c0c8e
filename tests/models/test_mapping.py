"""Mapping networks: published checkpoint forms, our own form, and what is refused."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    import torch
    from torch import nn

D, HIDDEN, DT = 6, 24, 5


def phi_layers() -> nn.Sequential:
    """SEARLE's network, written down independently."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(D, 4 * D), nn.GELU(), nn.Dropout(0.5),
        nn.Linear(4 * D, 4 * D), nn.GELU(), nn.Dropout(0.5),
        nn.Linear(4 * D, DT),
    ).eval()  # fmt: skip


def phi_state() -> dict[str, torch.Tensor]:
    return OrderedDict((f"layers.{k}", v) for k, v in phi_layers().state_dict().items())


def features(rows: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, D)).astype(np.float32) * 10


def expected_of_phi() -> np.ndarray:
    import torch

    with torch.inference_mode():
        return phi_layers()(torch.from_numpy(features())).numpy()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "Phi": state},
        lambda state: {"epoch": 3, "Phi": {f"module.{k}": v for k, v in state.items()}},
        lambda state: state,
        lambda state: {"Phi": {k: v.half().float() for k, v in state.items()}},
    ],
)
def test_searle_and_lincir_checkpoints(tmp_path: Path, wrap) -> None:
    import torch

    from models.textual_inversion.mapping_files import MappingShape
    from models.textual_inversion.network import load_mapping

    torch.save(wrap(phi_state()), tmp_path / "phi.pt")
    network = load_mapping(tmp_path / "phi.pt")
    assert network.shape == MappingShape("phi", D, HIDDEN, DT, 0.5)
    np.testing.assert_allclose(network.tokens(features()), expected_of_phi(), atol=0.02)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_pic2word_checkpoint(tmp_path: Path, prefix: str) -> None:
    import torch
    from torch import nn

    from models.textual_inversion.network import load_mapping

    torch.manual_seed(1)
    a, b, c = nn.Linear(D, 12), nn.Linear(12, 12), nn.Linear(12, DT)
    named = {"layers.0.0": a, "layers.1.0": b, "fc_out": c}
    state = {
        f"{prefix}{name}.{kind}": getattr(layer, kind).detach()
        for name, layer in named.items()
        for kind in ("weight", "bias")
    }
    whole_clip = {"visual.conv1.weight": (2, 2)}
    torch.save(
        {"epoch": 1, "name": "x", "state_dict": whole_clip, "state_dict_img2text": state},
        tmp_path / "pic2word.pt",
    )
    network = load_mapping(tmp_path / "pic2word.pt")
    assert network.shape.kind == "img2text"
    with torch.inference_mode():
        hidden = b(a(torch.from_numpy(features())).relu()).relu()
        expected = c(hidden).numpy()
    np.testing.assert_allclose(network.tokens(features()), expected, atol=1e-6)


def test_own_form_round_trip(tmp_path: Path) -> None:
    import safetensors.torch
    import torch

    from models.textual_inversion.fingerprint import mapping_fingerprint
    from models.textual_inversion.network import dump_mapping, load_mapping

    torch.save({"Phi": phi_state()}, tmp_path / "phi.pt")
    network = load_mapping(tmp_path / "phi.pt")
    folder = tmp_path / "own"
    folder.mkdir()
    for name, data in dump_mapping(network, {"steps": 3}).items():
        (folder / name).write_bytes(data)
    again = load_mapping(folder)
    assert again.fingerprint == network.fingerprint
    np.testing.assert_array_equal(again.tokens(features()), network.tokens(features()))
    safetensors.torch.save_file(dict(phi_state()), folder / "bare.safetensors")
    assert load_mapping(folder / "bare.safetensors").fingerprint == network.fingerprint
    for place in (tmp_path / "phi.pt", folder, folder / "bare.safetensors"):
        assert mapping_fingerprint(place) == network.fingerprint


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_any_precision_are_hashed_as_the_loaded_ones(tmp_path: Path, dtype: str) -> None:
    import safetensors.torch
    import torch

    from models.textual_inversion.fingerprint import mapping_fingerprint
    from models.textual_inversion.network import load_mapping

    state = {
        f"module.{name}": tensor.to(getattr(torch, dtype)) for name, tensor in phi_state().items()
    }
    safetensors.torch.save_file(state, tmp_path / "phi.safetensors")
    expected = load_mapping(tmp_path / "phi.safetensors").fingerprint
    assert mapping_fingerprint(tmp_path / "phi.safetensors") == expected


def test_what_a_published_file_holds_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from models.textual_inversion.fingerprint import mapping_fingerprint

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.save({"Phi": phi_state()}, tmp_path / "phi.pt")
    first = mapping_fingerprint(tmp_path / "phi.pt")
    (tmp_path / "phi.pt").rename(tmp_path / "moved.pt")
    monkeypatch.setattr(torch, "load", None)
    assert mapping_fingerprint(tmp_path / "moved.pt") == first


def test_the_fingerprint_is_read_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from models.textual_inversion.fingerprint import mapping_fingerprint
    from models.textual_inversion.network import load_mapping

    half = {name: tensor.half() for name, tensor in phi_state().items()}
    torch.save({"Phi": half}, tmp_path / "phi.pt")
    expected = load_mapping(tmp_path / "phi.pt").fingerprint
    monkeypatch.setattr("models.textual_inversion.network.new_module", None)
    assert mapping_fingerprint(tmp_path / "phi.pt") == expected


def test_fingerprint_follows_the_weights() -> None:
    import torch

    from models.textual_inversion.mapping_files import MappingShape
    from models.textual_inversion.network import MappingNetwork, new_module

    shape = MappingShape.phi(D, DT)
    torch.manual_seed(5)
    module = new_module(shape)
    before = MappingNetwork(shape, module).fingerprint
    with torch.no_grad():
        next(module.parameters())[0, 0] += 1e-3
    assert MappingNetwork(shape, module).fingerprint != before


def with_zeros(content: Any) -> Any:
    """The same, with zeros in place of each shape."""
    import torch

    if isinstance(content, dict):
        return {name: with_zeros(value) for name, value in content.items()}
    return torch.zeros(content) if isinstance(content, tuple) else content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 1, "optimizer": {"a": 1}}, r"found entries epoch, optimizer, expected.*Phi"),
        ({"visual.conv1.weight": (2, 2)}, r"found weights visual.conv1.weight"),
        ([1, 2], "holds a list"),
        ({"Phi": {"layers.0.weight": (4, 3)}}, "expected layers"),
    ],
)
def test_other_files_say_what_was_found(tmp_path: Path, content: object, message: str) -> None:
    import torch

    from models.textual_inversion.mapping_files import MappingError
    from models.textual_inversion.network import load_mapping

    torch.save(with_zeros(content), tmp_path / "file.pt")
    with pytest.raises(MappingError, match=message):
        load_mapping(tmp_path / "file.pt")


class Evil:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


def test_code_in_a_checkpoint_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from models.textual_inversion.mapping_files import MappingError
    from models.textual_inversion.network import load_mapping

    torch.save({"Phi": phi_state(), "extra": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(MappingError, match="cannot be read as weights"):
        load_mapping(tmp_path / "evil.pt")
    assert "executed" not in capsys.readouterr().out


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    from models.textual_inversion.fingerprint import mapping_fingerprint
    from models.textual_inversion.mapping_files import MappingError
    from models.textual_inversion.network import load_mapping

    (tmp_path / "half.safetensors").write_bytes(b"\x08\x00")
    for read in (load_mapping, mapping_fingerprint):
        with pytest.raises(MappingError, match="there is no mapping network"):
            read(tmp_path / "nothing.pt")
        with pytest.raises(MappingError, match=r"needs config\.json"):
            read(tmp_path)
        with pytest.raises(MappingError, match="cannot be read"):
            read(tmp_path / "half.safetensors")


def test_features_of_another_backbone_are_refused(tmp_path: Path) -> None:
    import torch

    from models.textual_inversion.mapping_files import MappingError
    from models.textual_inversion.network import load_mapping

    torch.save({"Phi": phi_state()}, tmp_path / "phi.pt")
    with pytest.raises(MappingError, match="width 6"):
        load_mapping(tmp_path / "phi.pt").tokens(np.zeros((2, 7), dtype=np.float32))
