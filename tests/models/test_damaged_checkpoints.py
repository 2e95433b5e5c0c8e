"""Checkpoints that are not whole are refused, by loading and by the check that reads no weight.

Each is a genuine small checkpoint of the architecture, damaged in one way.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.captioners.blip2 import Blip2Settings
from models.captioners.llava import LlavaSettings
from models.checkpoints import UnusableCheckpoint
from models.engine_settings import CheckpointSettings
from models.generators.transformers import TransformersSettings

Weights = dict[str, Any]
ENGINES: dict[str, type[CheckpointSettings]] = {
    "blip2": Blip2Settings,
    "llava": LlavaSettings,
    "llama": TransformersSettings,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An undamaged checkpoint of each architecture."""
    from tests.fakes.checkpoints import save_blip2, save_llama, save_llava

    make = {"blip2": save_blip2, "llava": save_llava, "llama": save_llama}
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in make.items()}


def a_matrix(weights: Weights) -> str:
    """The name of a matrix in the middle of the model."""
    names = sorted(name for name, tensor in weights.items() if tensor.ndim == 2)
    return names[len(names) // 2]


def without_one(weights: Weights) -> None:
    del weights[a_matrix(weights)]


def one_renamed(weights: Weights) -> None:
    weights["renamed"] = weights.pop(a_matrix(weights))


def one_of_another_shape(weights: Weights) -> None:
    name = a_matrix(weights)
    weights[name] = weights[name].new_zeros(weights[name].shape[0] + 1, weights[name].shape[1])


def a_prefix_too_many(weights: Weights) -> None:
    for name in list(weights):
        weights[f"student.{name}"] = weights.pop(name)


def without_half(weights: Weights) -> None:
    for name in sorted(weights)[::2]:
        del weights[name]


def not_a_number(weights: Weights) -> None:
    weights[a_matrix(weights)][0, 0] = float("nan")


DAMAGES = (without_one, one_renamed, one_of_another_shape, a_prefix_too_many, without_half)


def damaged(folder: Path, copy: Path, damage: Callable[[Weights], None]) -> Path:
    """A copy of a checkpoint whose weights were damaged."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    damage(weights)
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    return copy


def settings_of(engine: str, folder: Path) -> CheckpointSettings:
    """The engine on a checkpoint."""
    return ENGINES[engine](model=str(folder), device="cpu", dtype="fp32")


def use(settings: CheckpointSettings) -> Iterator[Any]:
    """Ask the engine for something."""
    from PIL import Image

    from models.protocols import CaptionSampling, TextRequest

    loaded: Any = settings.load()
    if isinstance(settings, TransformersSettings):
        yield from loaded.generate([TextRequest("a", "red", max_new_tokens=2)])
    else:
        sampling = CaptionSampling(n=1, mode="greedy", max_new_tokens=3)
        yield from loaded.caption([("a", Image.new("RGB", (32, 32)))], sampling)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_whole_checkpoint_answers(engine: str, whole: dict[str, Path]) -> None:
    settings = settings_of(engine, whole[engine])
    settings.check()
    assert len(list(use(settings))) == 1


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_are_not_all_there(
    engine: str, damage: Callable[[Weights], None], whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = damaged(whole[engine], tmp_path / "copy", damage)
    settings = settings_of(engine, folder)
    for refused in (settings.check, lambda: list(use(settings))):
        with pytest.raises(UnusableCheckpoint, match=r"lacks \d|another shape") as refusal:
            refused()
        named = "layer" in str(refusal.value) or "embed" in str(refusal.value)
        assert named, "no weight is named"


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_are_no_numbers(engine: str, whole: dict[str, Path], tmp_path: Path) -> None:
    folder = damaged(whole[engine], tmp_path / "copy", not_a_number)
    with pytest.raises(UnusableCheckpoint, match="not finite"):
        list(use(settings_of(engine, folder)))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("length", [0, 5, -100])
def test_a_file_that_is_cut(
    engine: str, length: int, whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole[engine], tmp_path / "copy"))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    settings = settings_of(engine, folder)
    for refused in (settings.check, lambda: list(use(settings))):
        with pytest.raises(UnusableCheckpoint, match="cannot be loaded"):
            refused()


def test_a_shard_that_is_missing(whole: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(whole["llama"])
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(whole["llama"] / file, tmp_path)
    settings_of("llama", tmp_path).check()
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    settings = settings_of("llama", tmp_path)
    for refused in (settings.is_here, settings.check, lambda: list(use(settings))):
        with pytest.raises(UnusableCheckpoint, match=shards[1].name):
            refused()
    shutil.copy(whole["llama"] / "model.safetensors", tmp_path)  # which is read, and no index
    assert settings.is_here()


@pytest.mark.parametrize(
    ("engine", "other"), [("blip2", "llava"), ("llava", "blip2"), ("blip2", "llama")]
)
def test_a_checkpoint_of_another_engine(engine: str, other: str, whole: dict[str, Path]) -> None:
    """It is refused by its files, which is what a run asks first."""
    settings = settings_of(engine, whole[other])
    kind = json.loads((whole[other] / "config.json").read_text())["model_type"]
    for refused in (lambda: settings.fingerprint, settings.check):  # type: ignore[attr-defined]
        with pytest.raises(UnusableCheckpoint, match=f"a checkpoint of {kind}"):
            refused()


@pytest.mark.parametrize("other", ["blip2", "llava"])
def test_a_captioner_is_no_text_generator(other: str, whole: dict[str, Path]) -> None:
    with pytest.raises(UnusableCheckpoint):
        list(use(settings_of("llama", whole[other])))


@pytest.mark.parametrize(
    ("engine", "files"),
    [
        ("blip2", ("tokenizer.json",)),
        ("blip2", ("processor_config.json", "preprocessor_config.json")),
        ("llava", ("tokenizer.json",)),
        ("llava", ("processor_config.json", "preprocessor_config.json")),
        ("llama", ("tokenizer.json",)),
        ("llama", ("config.json",)),
    ],
)
def test_files_that_are_missing(
    engine: str, files: tuple[str, ...], whole: dict[str, Path], tmp_path: Path
) -> None:
    """They are named before the first image, and before any weight is read."""
    folder = Path(shutil.copytree(whole[engine], tmp_path / "copy"))
    for name in files:
        (folder / name).unlink(missing_ok=True)
    settings = settings_of(engine, folder)
    for refused in (lambda: settings.fingerprint, settings.check):  # type: ignore[attr-defined]
        with pytest.raises(UnusableCheckpoint, match=f"lacks .*{files[0]}"):
            refused()
    with pytest.raises(UnusableCheckpoint):
        list(use(settings))


def test_a_tokenizer_that_cannot_be_read(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole["blip2"], tmp_path / "copy"))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UnusableCheckpoint, match="tokenizer"):
        list(use(settings_of("blip2", folder)))


NOT_READ = {"README.md", "recipe.json"}


@pytest.mark.parametrize("engine", ENGINES)
def test_every_file_enters_the_identity(
    engine: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    """A byte that is added to any file, and any further file of a tokenizer, tells."""
    folder = Path(shutil.copytree(whole[engine], tmp_path / "copy"))
    settings: Any = settings_of(engine, folder)
    before = settings.fingerprint
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        file.write_bytes(content + b" ")
        assert settings.fingerprint != before, file.name
        file.write_bytes(content)
    for name in ("merges.txt", "vocab.bpe", "added_tokens.json", "special_tokens_map.json"):
        (folder / name).write_text("{}")
        assert settings.fingerprint != before, name
        (folder / name).unlink()
    for name in NOT_READ:
        (folder / name).write_text("{}")
    assert settings.fingerprint == before


@pytest.fixture(scope="module")
def adapter(whole: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the small LLaMA."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(whole["llama"])
    folder = tmp_path_factory.mktemp("adapter")
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).save_pretrained(
        folder
    )
    return folder


@pytest.mark.parametrize("damage", [without_one, one_renamed, one_of_another_shape, not_a_number])
def test_an_adapter_that_does_not_fit(
    damage: Callable[[Weights], None], whole: dict[str, Path], adapter: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    def with_adapter(folder: Path) -> TransformersSettings:
        return TransformersSettings(
            model=str(whole["llama"]), adapter=str(folder), device="cpu", dtype="fp32"
        )

    assert len(list(use(with_adapter(adapter)))) == 1
    folder = Path(shutil.copytree(adapter, tmp_path / "copy"))
    weights = load_file(folder / "adapter_model.safetensors")
    damage(weights)
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(UnusableCheckpoint, match=r"adapter|not finite"):
        list(use(with_adapter(folder)))
