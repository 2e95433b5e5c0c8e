"""Damages that most loaders do not see: cut downloads, other words, layers, heads, forms."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints import UnusableCheckpoint
from models.encoders.backbone_files import EncoderNotFound
from models.encoders.spec import EncoderSpec
from models.generators.transformers import TransformersSettings
from tests.models.test_damaged_checkpoints import DAMAGES, damaged, settings_of, use

ENGINES = ("blip2", "t5", "llava", "llama")
EMBEDDED = Path(__file__).parents[2] / "models" / "embedded"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tests.fakes.checkpoints import save_blip2, save_llama, save_llava

    make: dict[str, Callable[[Path], Path]] = {
        "blip2": save_blip2,
        "t5": lambda folder: save_blip2(folder, t5=True),
        "llava": save_llava,
        "llama": save_llama,
    }
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in make.items()}


def engine_on(engine: str, folder: Path) -> Any:
    return settings_of({"t5": "blip2"}.get(engine, engine), folder)


def zero_from_the_middle(file: Path) -> None:
    """What a cut download leaves in a file whose length was set at its start."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_t5_captioner_that_is_not_whole(
    damage: Any, whole: dict[str, Path], tmp_path: Path
) -> None:
    settings = engine_on("t5", damaged(whole["t5"], tmp_path / "copy", damage))
    for refused in (settings.check, lambda: list(use(settings))):
        with pytest.raises(UnusableCheckpoint, match=r"lacks \d|another shape"):
            refused()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_that_was_not_written_to_its_end(
    engine: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole[engine], tmp_path / "copy"))
    zero_from_the_middle(folder / "model.safetensors")
    with pytest.raises(UnusableCheckpoint, match="all zero"):
        list(use(engine_on(engine, folder)))


def with_words(file: Path, words: int) -> None:
    """A tokenizer that knows more words."""
    content = json.loads(file.read_text())
    known = content["model"]["vocab"]
    known |= {f"more{i}": len(known) + i for i in range(words)}
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tokenizer_of_more_words(engine: str, whole: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole[engine], tmp_path / "copy"))
    with_words(folder / "tokenizer.json", 3)
    settings = engine_on(engine, folder)
    for refused in (settings.check, lambda: list(use(settings))):
        with pytest.raises(UnusableCheckpoint, match=r"more0, more1, more2\) beyond the 66"):
            refused()


def test_added_tokens_need_no_embedding(whole: dict[str, Path], tmp_path: Path) -> None:
    """Published models add a padding token to a tokenizer and no row to the weights."""
    from transformers import AutoTokenizer

    folder = Path(shutil.copytree(whole["llama"], tmp_path / "copy"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    assert len(list(use(engine_on("llama", folder)))) == 1


class Harmful:
    """Unpickling it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("engine", ENGINES)
def test_pickled_weights_are_read_and_not_executed(
    engine: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    folder = Path(shutil.copytree(whole[engine], tmp_path / "copy"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    settings = engine_on(engine, folder)
    settings.check()
    assert len(list(use(settings))) == 1
    made = tmp_path / "made"
    for content in (pickle.dumps({"a": Harmful(made)}), b"", b"junk"):
        (folder / "pytorch_model.bin").write_bytes(content)
        for refused in (settings.check, lambda: list(use(settings))):
            with pytest.raises(UnusableCheckpoint, match="cannot be loaded"):
                refused()
    assert not made.exists()


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA of twelve layers, of which one is less than a tenth."""
    return save_causal(tmp_path_factory.mktemp("deep"), "LlamaForCausalLM", layers=12)


def save_causal(folder: Path, kind: str, layers: int = 2, **options: Any) -> Path:
    import transformers

    from tests.fakes.checkpoints import word_tokenizer

    tokenizer = word_tokenizer()
    config: Any = transformers.BertConfig if kind.startswith("Bert") else transformers.LlamaConfig
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    getattr(transformers, kind)(
        config(vocab_size=len(tokenizer), num_hidden_layers=layers, **sizes, **options)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_configuration_of_one_layer_fewer(deep: Path, tmp_path: Path) -> None:
    engine_on("llama", deep).check()
    folder = Path(shutil.copytree(deep, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 11
    (folder / "config.json").write_text(json.dumps(config))
    settings = engine_on("llama", folder)
    for refused in (settings.check, lambda: list(use(settings))):
        with pytest.raises(UnusableCheckpoint, match=r"no place for 9 .*model\.layers\.11\."):
            refused()


def test_tensors_that_every_version_may_ignore(deep: Path, tmp_path: Path) -> None:
    """Buffers that older versions stored, and a head that is tied to the embeddings."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = save_causal(tmp_path / "tied", "LlamaForCausalLM", tie_word_embeddings=True)
    weights = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in weights
    for layer in range(2):
        weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    settings = engine_on("llama", folder)
    settings.check()
    assert len(list(use(settings))) == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [("BertForMaskedLM", {}), ("LlamaForSequenceClassification", {"tie_word_embeddings": True})],
)
def test_a_model_that_writes_no_text(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    """transformers loads both as causal language models, and lacks no weight of theirs."""
    settings = engine_on("llama", save_causal(tmp_path, kind, **options))
    for refused in (lambda: settings.fingerprint, settings.check):
        with pytest.raises(UnusableCheckpoint, match=f"a checkpoint of {kind}"):
            refused()


@pytest.mark.parametrize("damage", ["none", "one missing", "junk", "no configuration", "rank"])
def test_adapters_of_the_older_form_and_doctor(
    damage: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.utils import load_peft_weights
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(whole["llama"])
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    get_peft_model(model, lora).save_pretrained(tmp_path)
    weights = load_peft_weights(str(tmp_path), device="cpu")
    (tmp_path / "adapter_model.safetensors").unlink()
    if damage == "one missing":
        weights.pop(sorted(weights)[0])
    torch.save(weights, tmp_path / "adapter_model.bin")
    if damage == "junk":
        (tmp_path / "adapter_model.bin").write_bytes(b"junk")
    card = tmp_path / "adapter_config.json"
    if damage == "no configuration":
        card.unlink()
    if damage == "rank":
        card.write_text(json.dumps(json.loads(card.read_text()) | {"r": 4}))
    settings = TransformersSettings(
        model=str(whole["llama"]), adapter=str(tmp_path), device="cpu", dtype="fp32"
    )
    misfit = r"the adapter .* does not fit the model"
    lacks = f"'{tmp_path}' lacks adapter_config.json" if damage == "no configuration" else misfit
    for asked, said in ((settings.check, lacks), (lambda: list(use(settings)), misfit)):
        if damage == "none":
            asked()
            continue
        with pytest.raises(UnusableCheckpoint, match=said):
            asked()


def backbone(folder: Path) -> EncoderSpec:
    return EncoderSpec(name=str(folder), device="cpu")


def test_a_backbone_in_a_pickle_whose_positions_were_stretched(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from models.encoders.loading import load_encoder
    from models.encoders.weight_check import check_weights
    from tests.fakes.small_clip import write_small_clip

    weights = load_file(write_small_clip(tmp_path) / "open_clip_model.safetensors")
    (tmp_path / "open_clip_model.safetensors").unlink()
    file = tmp_path / "open_clip_pytorch_model.bin"
    torch.save(weights, file)
    check_weights(backbone(tmp_path))
    load_encoder(backbone(tmp_path))
    weights["positional_embedding"] = weights["positional_embedding"].repeat(2, 1)
    torch.save(weights, file)
    for refused in (check_weights, load_encoder):
        with pytest.raises(EncoderNotFound, match="positional_embedding"):
            refused(backbone(tmp_path))
    made = tmp_path / "made"
    for content in (pickle.dumps({"state_dict": Harmful(made)}), b"", b"junk"):
        file.write_bytes(content)
        for refused in (check_weights, load_encoder):
            with pytest.raises(EncoderNotFound):
                refused(backbone(tmp_path))
    assert not made.exists()


@pytest.mark.parametrize("damage", ["one more", "transposed", "one layer fewer"])
def test_doctor_sees_what_does_not_fit_a_backbone(damage: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from models.encoders.weight_check import check_weights
    from tests.fakes.small_clip import write_small_clip

    folder = write_small_clip(tmp_path)
    file, card = folder / "open_clip_model.safetensors", folder / "open_clip_config.json"
    weights, config = load_file(file), json.loads(card.read_text())
    if damage == "one more":
        weights["visual.more"] = weights["visual.proj"].clone()
    elif damage == "transposed":
        weights["visual.proj"] = weights["visual.proj"].T.contiguous()
    else:
        config["model_cfg"]["text_cfg"]["layers"] = 2
    save_file(weights, file)
    card.write_text(json.dumps(config))
    with pytest.raises(EncoderNotFound, match=r"no place for|another shape"):
        check_weights(backbone(folder))


def test_a_backbone_of_other_class_names_is_whole(tmp_path: Path) -> None:
    """open_clip renames the text tower of older files; doctor asks for what it makes of them."""
    from models.encoders.loading import load_encoder
    from models.encoders.weight_check import check_weights
    from tests.fakes.small_clip import write_small_clip

    card = write_small_clip(tmp_path) / "open_clip_config.json"
    config = json.loads(card.read_text())
    config["model_cfg"]["custom_text"] = True
    card.write_text(json.dumps(config))
    check_weights(backbone(tmp_path))
    load_encoder(backbone(tmp_path))


def test_running_statistics_that_are_no_numbers(tmp_path: Path) -> None:
    """CLIP's ResNets keep them in buffers, which are not parameters."""
    import open_clip
    from safetensors.torch import save_file

    from models.encoders.loading import load_encoder

    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config: dict[str, Any] = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    state = {n: t.contiguous() for n, t in open_clip.CLIP(**config).state_dict().items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    load_encoder(backbone(tmp_path))
    state["visual.bn1.running_mean"].fill_(float("nan"))
    save_file(state, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(UnusableCheckpoint, match=r"not finite .*visual\.bn1\.running_mean"):
        load_encoder(backbone(tmp_path))


def test_a_backbones_tokenizer_of_more_words(tmp_path: Path) -> None:
    from models.encoders.loading import load_encoder
    from tests.fakes.checkpoints import word_tokenizer
    from tests.fakes.small_clip import write_small_clip

    tokenizer = word_tokenizer()
    write_small_clip(tmp_path, {"hf_tokenizer_name": "x/y", "vocab_size": len(tokenizer)})
    tokenizer.save_pretrained(tmp_path)
    with_words(tmp_path / "tokenizer.json", 2)
    with pytest.raises(UnusableCheckpoint, match="more0, more1"):
        load_encoder(backbone(tmp_path))


@pytest.mark.parametrize("content", ["[]", "{}", '{"model_cfg": []}', '{"model_cfg": {}}', "\x00"])
def test_a_backbone_without_a_description(content: str, tmp_path: Path) -> None:
    from models.encoders.facts import encoder_facts
    from models.encoders.loading import load_encoder
    from models.encoders.weight_check import check_weights
    from tests.fakes.small_clip import write_small_clip

    (write_small_clip(tmp_path) / "open_clip_config.json").write_text(content)
    for refused in (encoder_facts, check_weights, load_encoder):
        with pytest.raises(EncoderNotFound, match="open_clip_config"):
            refused(backbone(tmp_path))


def test_damaged_mapping_networks_are_refused_in_words(tmp_path: Path) -> None:
    """Sixty damages of a published file; torch's reader raises a dozen kinds of errors for them."""
    import torch
    from safetensors.torch import load_file

    from models.textual_inversion.fingerprint import mapping_fingerprint
    from models.textual_inversion.mapping_files import MappingError
    from models.textual_inversion.network import load_mapping

    file = tmp_path / "phi.pt"
    torch.save({"Phi": load_file(EMBEDDED / "lincir" / "model.safetensors")}, file)
    load_mapping(file)
    content, chance = file.read_bytes(), random.Random(0)
    refused = 0
    for turn in range(60):
        broken = bytearray(content[: chance.randrange(len(content))])
        if turn % 3 == 1:
            broken = bytearray(content)
            broken[chance.randrange(1500)] ^= 1 << chance.randrange(8)
        elif turn % 3 == 2:
            broken = bytearray(chance.randbytes(chance.randrange(1, 4000)))
        copy = tmp_path / f"{turn}.pt"
        copy.write_bytes(broken)
        for ask in (load_mapping, mapping_fingerprint):
            try:
                ask(copy)
            except MappingError:
                refused += 1
    assert refused >= 80


@pytest.mark.parametrize("name", ["target.safetensors", "bpe.txt.gz", "combiner.safetensors"])
def test_a_network_that_lacks_a_file(name: str, tmp_path: Path) -> None:
    """Without its moving average or its words another network would be loaded, and say nothing."""
    from models.instructcir.checkpoint import load_network
    from models.instructcir.folder import network_fingerprint
    from models.network_folders import CheckpointError

    folder = Path(shutil.copytree(EMBEDDED / "instructcir", tmp_path / "copy"))
    load_network(folder)
    (folder / name).unlink()
    for refused in (network_fingerprint, load_network):
        with pytest.raises(CheckpointError, match=f"lacks {name}"):
            refused(folder)


@pytest.mark.parametrize("shipped", ["lincir", "instructcir", "clip"])
def test_own_files_that_were_not_written_to_their_end(shipped: str, tmp_path: Path) -> None:
    from models.encoders.loading import load_encoder
    from models.instructcir.checkpoint import load_network
    from models.textual_inversion.network import load_mapping

    folder = Path(shutil.copytree(EMBEDDED / shipped, tmp_path / "copy"))
    load: dict[str, Callable[[], object]] = {
        "lincir": lambda: load_mapping(folder),
        "instructcir": lambda: load_network(folder),
        "clip": lambda: load_encoder(backbone(folder)),
    }
    load[shipped]()
    name = "open_clip_model.safetensors" if shipped == "clip" else "model.safetensors"
    zero_from_the_middle(folder / name)
    with pytest.raises(ValueError, match="all zero"):
        load[shipped]()


@pytest.mark.parametrize("said", ['"num_attention_heads": 0', '"hidden_size": "many"', "deep"])
def test_a_configuration_that_makes_no_model(
    said: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole["llama"], tmp_path / "copy"))
    text = (folder / "config.json").read_text()
    added = text.rstrip().removesuffix("}") + f", {said}}}"
    (folder / "config.json").write_text("[" * 100_000 if said == "deep" else added)
    settings = settings_of("llama", folder)
    for refused in (settings.check, lambda: list(use(settings))):
        with pytest.raises(UnusableCheckpoint, match="cannot be"):
            refused()
