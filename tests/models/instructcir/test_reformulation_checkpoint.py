"""A saved network comes back as it was, from its folder alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from models.instructcir.folder import network_fingerprint
from models.instructcir.settings import CombinerSettings, EmaSettings
from models.network_folders import CheckpointError

if TYPE_CHECKING:
    import torch

    from models.instructcir.network import ReformulationNetwork


def trained(folder: Path, **settings: Any) -> tuple[ReformulationNetwork, ReformulationNetwork]:
    """A network and its average, as different as a step of training makes them."""
    import torch

    from models.instructcir.ema import EmaTarget
    from tests.fakes.small_networks import small_network

    network = small_network(folder, **settings)
    average = EmaTarget(network, EmaSettings(start=0.5, end=0.5))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    average.update(network, 0, 1)
    return network, average.network


def outputs(network: ReformulationNetwork) -> list[torch.Tensor]:
    import torch

    from tests.fakes.small_networks import TEXTS, pixels

    with torch.no_grad():
        images = pixels(len(TEXTS))
        return [*network.query(images, network.text_ids(TEXTS)), network.target(images)]


def same(network: ReformulationNetwork, other: ReformulationNetwork) -> bool:
    import torch

    pairs = zip(outputs(network), outputs(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gate": "zero_init", "null_text": "learned"},
        {"cross_attended_blocks": 1, "predictor": False},
        {"text_mask": "full"},
    ],
    ids=str,
)
def test_comes_back_without_its_backbone(tmp_path: Path, settings: dict[str, Any]) -> None:
    from models.instructcir.checkpoint import load_network, save_network
    from models.instructcir.combiner import new_combiner
    from tests.fakes.small_clip import write_small_clip

    base = tmp_path / "clip"
    if not settings:  # with a tokenizer of its own
        base.mkdir()
        write_small_clip(base, merges=["r e"])
    online, average = trained(base, **settings)
    combiner = new_combiner(online.dim, CombinerSettings(start=0.7))
    save_network(
        tmp_path / "net",
        online=online,
        target=average,
        combiner=combiner,
        provenance={"steps": 1, "data": ["a", "b"]},
    )
    shutil.rmtree(base)
    loaded = load_network(tmp_path / "net")
    assert same(loaded.online, online)
    assert same(loaded.target, average)
    assert not same(loaded.online, loaded.target)
    assert loaded.online.settings == online.settings
    assert float(loaded.combiner.logit) == pytest.approx(0.7)
    assert loaded.provenance == {"steps": 1, "data": ["a", "b"]}
    assert loaded.online.parts.base == online.parts.base
    assert loaded.online.parts.preprocess.fingerprint == online.parts.preprocess.fingerprint
    assert not any(p.requires_grad or p.is_meta for p in loaded.online.parameters())
    assert not loaded.online.training


def test_custom_text_and_special_blocks_come_back(tmp_path: Path) -> None:
    from models.instructcir.checkpoint import load_network, save_network
    from tests.fakes.small_networks import write_clip

    vision = {"qk_norm": True, "scale_attn": True, "pos_embed_type": "sin_cos_2d"}
    write_clip(tmp_path / "clip", vision=vision, custom_text=True)
    online, _ = trained(tmp_path / "clip")
    save_network(tmp_path / "net", online=online)
    assert same(load_network(tmp_path / "net").online, online)


def test_equal_tensors_are_kept_once(tmp_path: Path) -> None:
    import safetensors.torch

    from models.instructcir.checkpoint import load_network, save_network

    online, average = trained(tmp_path / "clip", text_tower="frozen")
    save_network(tmp_path / "net", online=online, target=average)
    kept = safetensors.torch.load_file(tmp_path / "net" / "target.safetensors").keys()
    assert kept
    assert not any(name.startswith("text.") for name in kept)
    assert same(load_network(tmp_path / "net").target, average)
    save_network(tmp_path / "one", online=online, target=online)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    alone = load_network(tmp_path / "one")
    assert alone.target is alone.online
    assert alone.combiner is None


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    from models.instructcir.checkpoint import load_network, save_network
    from tests.fakes.small_networks import small_network

    online = small_network(tmp_path / "clip")
    first, second = (block.cross.query for block in online.blocks)
    second.weight = first.weight
    save_network(tmp_path / "net", online=online)
    assert same(load_network(tmp_path / "net").online, online)


def test_half_precision_on_disk(tmp_path: Path) -> None:
    import torch

    from models.instructcir.checkpoint import load_network, save_network

    online, average = trained(tmp_path / "clip")
    for dtype in ("fp32", "fp16"):
        save_network(tmp_path / dtype, online=online, target=average, dtype=dtype)
    size = {d: (tmp_path / d / "model.safetensors").stat().st_size for d in ("fp32", "fp16")}
    assert size["fp16"] < 0.52 * size["fp32"]
    loaded = load_network(tmp_path / "fp16")
    assert {p.dtype for p in loaded.online.parameters()} == {torch.float32}
    for got, exact in zip(outputs(loaded.online), outputs(online), strict=True):
        torch.testing.assert_close(got, exact, atol=2e-2, rtol=2e-2)


def test_fingerprint_is_of_weights_and_settings(tmp_path: Path) -> None:
    from models.instructcir.checkpoint import load_network, save_network
    from models.instructcir.combiner import new_combiner

    online, average = trained(tmp_path / "clip")
    save_network(tmp_path / "a", online=online, target=average, provenance={"by": "me"})
    save_network(tmp_path / "b", online=online, target=average, provenance={"by": "you"})
    assert network_fingerprint(tmp_path / "a") == network_fingerprint(tmp_path / "b")
    assert load_network(tmp_path / "a").fingerprint == network_fingerprint(tmp_path / "a")
    save_network(tmp_path / "c", online=average, target=average)
    combiner = new_combiner(online.dim, CombinerSettings())
    save_network(tmp_path / "d", online=online, target=average, combiner=combiner)
    prints = [json.dumps(network_fingerprint(tmp_path / name)) for name in "acd"]
    assert len(set(prints)) == 3
    assert not any(str(tmp_path) in each for each in prints)


def test_combiner_loads_alone(tmp_path: Path) -> None:
    import torch

    from models.instructcir.checkpoint import load_combiner, save_network
    from models.instructcir.combiner import new_combiner
    from tests.fakes.small_networks import small_network

    online = small_network(tmp_path / "clip")
    settings = CombinerSettings(kind="clip4cir_mlp", projection=4, hidden=6)
    combiner = new_combiner(online.dim, settings, seed=3).eval()
    save_network(tmp_path / "net", online=online, combiner=combiner)
    (tmp_path / "net" / "model.safetensors").unlink()
    rows = torch.randn(2, 3, online.dim)
    again = load_combiner(tmp_path / "net")
    assert torch.equal(again.combine(*rows), combiner.combine(*rows))


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    from models.instructcir.checkpoint import load_network
    from tests.fakes.small_networks import write_clip

    def fails(said: str, folder: Path) -> None:
        with pytest.raises(CheckpointError, match=said) as caught:
            load_network(folder)
        assert str(folder) in str(caught.value)

    fails("does not exist", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    fails(r"holds no config\.json", tmp_path / "empty")
    fails("holds a backbone", write_clip(tmp_path / "clip"))
    mapping = tmp_path / "mapping"
    mapping.mkdir()
    (mapping / "config.json").write_text('{"format": "cirflow-mapping-1"}')
    fails("of format 'cirflow-mapping-1'", mapping)
    (mapping / "config.json").write_text("[")
    fails("is damaged", mapping)


def test_damaged_checkpoints_are_named(tmp_path: Path) -> None:
    from models.instructcir.checkpoint import load_network, save_network
    from tests.fakes.small_networks import small_network

    online = small_network(tmp_path / "clip")
    net = tmp_path / "net"
    save_network(net, online=online)
    with pytest.raises(ValueError, match="holds something already"):
        save_network(net, online=online)
    with pytest.raises(ValueError, match="fp32, fp16"):
        save_network(tmp_path / "b", online=online, dtype="int8")  # type: ignore[arg-type]
    config = json.loads((net / "config.json").read_text())
    wrong = config | {"network": config["network"] | {"predictor": False}}
    (net / "config.json").write_text(json.dumps(wrong))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_network(net)
    (net / "config.json").write_text(json.dumps({k: config[k] for k in config if k != "base"}))
    with pytest.raises(CheckpointError, match="lacks base"):
        load_network(net)
    (net / "config.json").write_text(json.dumps(config))
    (net / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_network(net)
    (net / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="incomplete"):
        load_network(net)
