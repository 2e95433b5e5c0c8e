"""Weights that are integers, booleans or 8-bit floats: no answer is made of them.

Each is a genuine small checkpoint whose weights were converted, in every form of file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints import UnusableCheckpoint
from models.encoders.spec import EncoderSpec
from models.generators.transformers import TransformersSettings
from models.instructcir.folder import CheckpointError
from models.textual_inversion.mapping_files import MappingError, MappingShape
from tests.models.test_damaged_checkpoints import Weights, settings_of, use

ENGINES = ("blip2", "llava", "llama")
FORMATS = ("int8", "uint8", "int32", "bool", "float8_e4m3fn")
FEW = ("int8", "float8_e5m2")
BACKBONE = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An undamaged checkpoint of each architecture."""
    from tests.fakes.checkpoints import save_blip2, save_llama, save_llava
    from tests.fakes.small_clip import write_small_clip

    make: dict[str, Callable[[Path], Path]] = {
        **{"blip2": save_blip2, "llava": save_llava, "llama": save_llama},
        "clip": write_small_clip,
    }
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in make.items()}


def as_format(tensor: Any, name: str) -> Any:
    """A tensor as a quantised checkpoint stores it: its scale is kept elsewhere, or lost."""
    import torch

    kind = getattr(torch, name)
    scale = 1.0 if kind.is_floating_point else float(100 / tensor.abs().max().clamp(min=1e-9))
    return (tensor * scale).round().to(kind) if scale != 1.0 else tensor.to(kind)


def convert(file: Path, name: str, one: bool = False) -> str:
    """Store all weights of a file, or the first, in a format; returns the name of the first."""
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    names = sorted(weights)[: 1 if one else None]
    for each in names:
        weights[each] = as_format(weights[each], name)
    save_file(weights, file, {"format": "pt"})
    return names[0]


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def pickled(file: Path) -> None:
    """The same weights in torch's form, under the name that transformers gives it."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(file), file.parent / "pytorch_model.bin")
    file.unlink()


@pytest.mark.parametrize(("name", "one"), [*((name, False) for name in FORMATS), ("int32", True)])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_refuses_weights_that_are_not_plain_floats(
    engine: str, name: str, one: bool, whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(whole[engine], tmp_path)
    first = convert(folder / "model.safetensors", name, one)
    settings = settings_of(engine, folder)
    for refused in (settings.check, lambda: list(use(settings))):
        with pytest.raises(UnusableCheckpoint) as refusal:
            refused()
        said = str(refusal.value)
        assert "model.safetensors" in said
        assert f"({name})" in said
        assert "fp32, fp16 or bf16" in said
        assert not one or first in said


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("engine", ENGINES)
def test_pickled_weights_are_refused_too(
    engine: str, name: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(whole[engine], tmp_path)
    convert(folder / "model.safetensors", name)
    pickled(folder / "model.safetensors")
    settings = settings_of(engine, folder)
    for refused in (settings.check, lambda: list(use(settings))):
        with pytest.raises(UnusableCheckpoint, match=rf"pytorch_model\.bin.*\({name}\)"):
            refused()


@pytest.mark.parametrize("name", ["float64", "bfloat16"])
@pytest.mark.parametrize("engine", ENGINES)
def test_plain_floats_of_any_width_answer(
    engine: str, name: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(whole[engine], tmp_path)
    convert(folder / "model.safetensors", name)
    settings = settings_of(engine, folder)
    settings.check()
    assert len(list(use(settings))) == 1


def test_one_shard_of_many(whole: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(whole["llama"]).save_pretrained(
        tmp_path, max_shard_size="40KB"
    )
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(whole["llama"] / file, tmp_path)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    first = convert(shard, "int8")
    settings = settings_of("llama", tmp_path)
    for refused in (settings.check, lambda: list(use(settings))):
        with pytest.raises(UnusableCheckpoint, match=rf"{shard.name}.*{first} \(int8\)"):
            refused()


def with_positions(weights: Weights) -> None:
    """Buffers that older versions saved next to the weights."""
    import torch

    for name in list(weights):
        if name.endswith("position_embedding.weight"):
            owner = name.removesuffix("position_embedding.weight")
            weights[f"{owner}position_ids"] = torch.arange(len(weights[name]))[None]
    weights["language_model.model.decoder.version"] = torch.tensor([3])


@pytest.mark.parametrize("engine", ["blip2", "llava"])
def test_buffers_of_integers_are_allowed(
    engine: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(whole[engine], tmp_path)
    weights = load_file(folder / "model.safetensors")
    with_positions(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    settings = settings_of(engine, folder)
    settings.check()
    assert len(list(use(settings))) == 1


def test_the_models_own_format_decides() -> None:
    """A counter may be an integer, its neighbour of the same file may not."""
    import torch

    from models.weight_formats import formats_of, require_plain

    held = torch.nn.BatchNorm1d(2).state_dict()
    require_plain("it", formats_of(held), held)
    wrong = {name: tensor.to(torch.int64) for name, tensor in held.items()}
    with pytest.raises(UnusableCheckpoint, match="holds 4 weights") as refusal:
        require_plain("it", formats_of(wrong), held)
    assert "num_batches_tracked" not in str(refusal.value)


@pytest.mark.parametrize(
    "stated",
    [{"quant_method": "of-nobody"}, {}, "int8", {"bits": 8}],
)
def test_a_quantization_config_that_nobody_knows_counts_for_nothing(
    stated: Any, whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(whole["llama"], tmp_path)
    convert(folder / "model.safetensors", "int8")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": stated}))
    settings = settings_of("llama", folder)
    for refused in (settings.check, lambda: list(use(settings))):
        with pytest.raises(UnusableCheckpoint):
            refused()


def test_a_quantization_config_of_transformers_is_left_to_it(
    whole: dict[str, Path], tmp_path: Path
) -> None:
    """What is stored may then be integers."""
    from models.weight_formats import require_plain_files

    folder = copied(whole["llama"], tmp_path)
    convert(folder / "model.safetensors", "int8")
    config = json.loads((folder / "config.json").read_text())
    known = {"quantization_config": {"quant_method": "compressed-tensors"}}
    (folder / "config.json").write_text(json.dumps(config | known))
    require_plain_files("it", folder, {}, frozenset())


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize("name", FEW)
def test_an_adapter(name: str, form: str, whole: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(whole["llama"])
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    tuned.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    convert(file, name)
    if form == "bin":
        torch.save(load_file(file), tmp_path / "adapter_model.bin")
        file.unlink()
    settings = TransformersSettings(
        model=str(whole["llama"]), adapter=str(tmp_path), device="cpu", dtype="fp32"
    )
    for refused in (settings.check, lambda: list(use(settings))):
        with pytest.raises(UnusableCheckpoint, match=rf"adapter_model\.{form}.*\({name}\)"):
            refused()


@pytest.mark.parametrize(
    ("name", "form"), [*((name, "safetensors") for name in FORMATS), ("int8", "bin")]
)
def test_a_backbone(name: str, form: str, whole: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from models.encoders.loading import load_encoder
    from models.encoders.weight_check import check_weights

    folder = copied(whole["clip"], tmp_path)
    file = folder / BACKBONE
    convert(file, name)
    if form != "safetensors":
        other = folder / f"open_clip_pytorch_model.{form}"
        torch.save({"state_dict": load_file(file)}, other)
        file.unlink()
        file = other
    spec = EncoderSpec(name=str(folder), device="cpu")
    for refused in (load_encoder, check_weights):
        with pytest.raises(ValueError, match=rf"{file.name}.*\({name}\)"):
            refused(spec)


@pytest.mark.parametrize("form", ["folder", "safetensors", "pt"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_mapping_network(name: str, form: str, tmp_path: Path) -> None:
    import safetensors.torch
    import torch

    from models.textual_inversion.fingerprint import mapping_fingerprint
    from models.textual_inversion.network import (
        MappingNetwork,
        dump_mapping,
        load_mapping,
        new_module,
    )

    shape = MappingShape("phi", 8, 32, 6, 0.5)
    network = MappingNetwork(shape, new_module(shape))
    path = tmp_path / "network"
    state = {n: as_format(t, name) for n, t in network.module.state_dict().items()}
    if form == "folder":
        path.mkdir()
        for file, content in dump_mapping(network, {}).items():
            (path / file).write_bytes(content)
        assert load_mapping(path).shape == shape
        convert(path / "model.safetensors", name)
    elif form == "safetensors":
        path = path.with_suffix(".safetensors")
        safetensors.torch.save_file(state, path)
    else:
        path = path.with_suffix(".pt")
        torch.save({"epoch": 1, "Phi": state}, path)
    with pytest.raises(MappingError, match=rf"layers\.0\.bias \({name}\)"):
        load_mapping(path)
    with pytest.raises(MappingError, match="plain floats"):
        mapping_fingerprint(path)


@pytest.mark.parametrize("name", FEW)
def test_a_reformulation_network_and_its_combiner(name: str, tmp_path: Path) -> None:
    from models.instructcir.checkpoint import load_combiner, load_network, save_network
    from models.instructcir.combiner import new_combiner
    from models.instructcir.settings import CombinerSettings
    from tests.fakes.small_networks import small_network

    online = small_network(tmp_path / "clip")
    combiner = new_combiner(online.dim, CombinerSettings(start=0.5))
    whole = tmp_path / "network"
    save_network(whole, online=online, combiner=combiner)
    load_network(whole)
    for number, file in enumerate(("model.safetensors", "combiner.safetensors")):
        folder = copied(whole, tmp_path / str(number))
        first = convert(folder / file, name)
        with pytest.raises(CheckpointError, match=rf"{file}.*{first} \({name}\)"):
            load_network(folder)
    with pytest.raises(CheckpointError, match="combiner"):
        load_combiner(folder)


@pytest.mark.parametrize("what", ["encoder", "captioner", "mapping network"])
def test_doctor_tells(
    what: str, whole: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from deployments.cli import main

    kind, setting, file = {
        "encoder": ("clip", "encoder.name", BACKBONE),
        "captioner": ("blip2", "captioner.model", "model.safetensors"),
        "mapping network": ("", "mapping.checkpoint", "model.safetensors"),
    }[what]
    embedded = Path(__file__).parents[2] / "models" / "embedded" / "lincir"
    folder = copied(whole[kind] if kind else embedded, tmp_path)
    convert(folder / file, "int8")
    engine = ["--set=captioner.engine=blip2"] if what == "captioner" else []
    main(["doctor", "--json", *engine, f"--set={setting}={folder}", f"--set=root={tmp_path}"])
    found = {each["what"]: each for each in json.loads(capsys.readouterr().out)}
    assert found[what]["state"] == "broken"
    assert "(int8)" in found[what]["found"]
