"""Every file that an engine opens while it loads and answers changes the engine's identity.

Python's audit hook sees what Python opens. The Rust readers of safetensors and tokenizers open
their files unseen: `test_damaged_checkpoints` and `test_damaged_backbones` edit those one by one.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from models.encoders.facts import encoder_facts
from models.encoders.spec import EncoderSpec
from models.generators.transformers import TransformersSettings
from tests.models.test_damaged_checkpoints import settings_of, use

FURTHER = (
    *("added_tokens.json", "special_tokens_map.json", "additional_chat_templates/rag.jinja"),
    *("chat_template.jinja", "generation_config.json", "merges.txt", "vocab.json"),
    *("preprocessor_config.json", "video_preprocessor_config.json", "README.md"),
)
"""Files that published checkpoints have beside those of the small ones; each holds `{}`."""
_SEEN: list[list[str]] = []


def _remember(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _SEEN and isinstance(arguments[0], str):
        _SEEN[-1].append(arguments[0])


sys.addaudithook(_remember)


@contextmanager
def opened(below: Path) -> Iterator[set[Path]]:
    """The files below a folder that Python opens meanwhile."""
    found: set[Path] = set()
    _SEEN.append([])
    try:
        yield found
    finally:
        names = (Path(name) for name in _SEEN.pop())
        found.update(name for name in names if name.is_relative_to(below) and name.is_file())


def edited(file: Path) -> bytes:
    """Other content: a space more, and in JSON another value where one may be added."""
    content = file.read_bytes()
    if file.name == "open_clip_config.json":  # read as JSON, and its values are hashed
        config: dict[str, Any] = json.loads(content)
        config["model_cfg"]["text_cfg"]["no_causal_mask"] = True
        return json.dumps(config).encode()
    return content + b" "


def require_told(files: set[Path], identity: Callable[[], object]) -> None:
    """Each file, edited, gives another identity."""
    before = identity()
    for file in sorted(files):
        content = file.read_bytes()
        file.write_bytes(edited(file))
        assert identity() != before, f"{file.name} is read and is not in the identity"
        file.write_bytes(content)
    assert identity() == before


@pytest.mark.parametrize("engine", ["blip2", "t5", "llava", "llama"])
@pytest.mark.parametrize("more", [(), FURTHER])
def test_what_engines_of_transformers_open(
    engine: str, more: tuple[str, ...], tmp_path: Path
) -> None:
    from tests.fakes.checkpoints import save_blip2, save_llama, save_llava

    folder = tmp_path / "model"
    if engine == "t5":
        save_blip2(folder, t5=True)
    else:
        {"blip2": save_blip2, "llava": save_llava, "llama": save_llama}[engine](folder)
    for name in more:
        if engine == "llava" and name.endswith(".jinja"):
            continue
        if not (folder / name).exists():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("{}")
    settings: Any = settings_of({"t5": "blip2"}.get(engine, engine), folder)
    with opened(tmp_path) as files:
        assert len(list(use(settings))) == 1
    names = {file.name for file in files}
    assert names >= {"config.json", "tokenizer_config.json"}
    assert "README.md" not in names
    require_told(files, lambda: settings.fingerprint)


def test_what_an_adapter_opens(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tests.fakes.checkpoints import save_llama

    base, adapter = save_llama(tmp_path / "model"), tmp_path / "adapter"
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(adapter)
    settings = TransformersSettings(
        model=str(base), adapter=str(adapter), device="cpu", dtype="fp32"
    )
    with opened(tmp_path) as files:
        assert len(list(use(settings))) == 1
    assert adapter / "adapter_config.json" in files
    require_told(files, lambda: settings.fingerprint)


@pytest.mark.parametrize("kind", ["own tokenizer", "tokenizer of transformers", "bytes of its own"])
def test_what_a_backbone_opens(kind: str, tmp_path: Path) -> None:
    from models.encoders.loading import load_encoder
    from tests.fakes.checkpoints import word_tokenizer
    from tests.fakes.small_clip import write_small_clip

    if kind == "own tokenizer":
        write_small_clip(tmp_path)
    elif kind == "bytes of its own":
        write_small_clip(tmp_path, merges=["r e", "re d</w>"])
    else:
        tokenizer = word_tokenizer()
        write_small_clip(
            tmp_path, {"hf_tokenizer_name": "some/where", "vocab_size": len(tokenizer)}
        )
        tokenizer.save_pretrained(tmp_path)
    for name in FURTHER:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if not (tmp_path / name).exists():
            (tmp_path / name).write_text("{}")
    spec = EncoderSpec(name=str(tmp_path), device="cpu")
    with opened(tmp_path) as files:
        load_encoder(spec).encode_texts(["red"])
    assert tmp_path / "open_clip_config.json" in files
    require_told(files, lambda: encoder_facts(spec).fingerprint)


def test_what_a_text_tower_of_transformers_opens(tmp_path: Path) -> None:
    """Its configuration lies in a folder of its own, and says how the text tower computes."""
    import open_clip
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    from models.encoders.backbone_files import EncoderNotFound
    from models.encoders.loading import load_encoder
    from tests.fakes.checkpoints import word_tokenizer
    from tests.fakes.small_clip import CONFIG

    tower, folder, tokenizer = tmp_path / "tower", tmp_path / "clip", word_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    BertModel(
        BertConfig(vocab_size=len(tokenizer), num_attention_heads=2, **sizes)
    ).save_pretrained(tower)
    tokenizer.save_pretrained(folder)
    text = {"hf_model_name": str(tower), "hf_tokenizer_name": "x/y", "hf_model_pretrained": False}
    text["hf_pooler_type"] = "mean_pooler"
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    config["model_cfg"]["text_cfg"] = text
    model = open_clip.CustomTextCLIP(**json.loads(json.dumps(config["model_cfg"])))
    config["model_cfg"]["custom_text"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    spec = EncoderSpec(name=str(folder), device="cpu")
    with opened(tmp_path) as files:
        load_encoder(spec).encode_texts(["red"])
    assert tower / "config.json" in files
    require_told(files, lambda: encoder_facts(spec).fingerprint)
    shutil.rmtree(tower)
    with pytest.raises(EncoderNotFound, match=r"lacks config\.json of its text tower"):
        encoder_facts(spec)


@pytest.mark.parametrize("shipped", ["lincir", "instructcir"])
def test_what_own_networks_open(shipped: str, tmp_path: Path) -> None:
    from models.instructcir.checkpoint import load_network
    from models.instructcir.folder import network_fingerprint
    from models.textual_inversion.fingerprint import mapping_fingerprint
    from models.textual_inversion.network import load_mapping

    folder = tmp_path / shipped
    shutil.copytree(Path(__file__).parents[2] / "models" / "embedded" / shipped, folder)
    load: Any = load_mapping if shipped == "lincir" else load_network
    identity: Any = mapping_fingerprint if shipped == "lincir" else network_fingerprint
    with opened(tmp_path) as files:
        load(folder)
    # A configuration is hashed by its values, which `test_identity_from_files` holds.
    binary = {file for file in files if file.suffix == ".gz"}
    assert folder / "config.json" in files
    assert bool(binary) == (shipped == "instructcir")
    require_told(binary, lambda: identity(folder))
