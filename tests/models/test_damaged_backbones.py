"""Backbones whose files are damaged, missing or were edited: refused, or another identity."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.encoders.backbone_files import EncoderNotFound
from models.encoders.facts import encoder_facts
from models.encoders.spec import EncoderSpec
from tests.models.test_damaged_checkpoints import (
    DAMAGES,
    Weights,
    a_prefix_too_many,
    not_a_number,
    without_half,
)

WEIGHTS = "open_clip_model.safetensors"


def stretched(weights: Weights) -> None:
    """Positions of larger images, which open_clip would interpolate and say nothing."""
    weights["visual.positional_embedding"] = weights["visual.positional_embedding"].repeat(4, 1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with open_clip's own tokenizer."""
    from tests.fakes.small_clip import write_small_clip

    return write_small_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip_with_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with a tokenizer of transformers, as SigLIP's have."""
    from tests.fakes.checkpoints import word_tokenizer
    from tests.fakes.small_clip import write_small_clip

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = word_tokenizer()
    write_small_clip(folder, {"hf_tokenizer_name": "some/where", "vocab_size": len(tokenizer)})
    tokenizer.save_pretrained(folder)
    return folder


def spec_of(folder: Path) -> EncoderSpec:
    """The backbone of a folder."""
    return EncoderSpec(name=str(folder), device="cpu")


@pytest.mark.parametrize("damage", [*DAMAGES, stretched, not_a_number])
def test_weights_that_do_not_fit(
    damage: Callable[[Weights], None], clip: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from models.encoders.loading import load_encoder
    from models.encoders.weight_check import check_weights

    check_weights(spec_of(clip))
    folder = Path(shutil.copytree(clip, tmp_path / "copy"))
    weights = load_file(folder / WEIGHTS)
    damage(weights)
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"clip|weights|copy"):
        load_encoder(spec_of(folder))
    if damage not in (not_a_number, a_prefix_too_many):  # values, and names of another library
        with pytest.raises(EncoderNotFound, match=r"lacks \d|does not fit"):
            check_weights(spec_of(folder))


@pytest.mark.parametrize("length", [0, 5, -100])
def test_a_file_that_is_cut(length: int, clip: Path, tmp_path: Path) -> None:
    from models.encoders.loading import load_encoder
    from models.encoders.weight_check import check_weights

    folder = Path(shutil.copytree(clip, tmp_path / "copy"))
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:length])
    for refused in (load_encoder, check_weights):
        with pytest.raises(EncoderNotFound):
            refused(spec_of(folder))


def test_an_edited_tokenizer_is_another_backbone(clip_with_tokenizer: Path, tmp_path: Path) -> None:
    """Two words change places: the same text has other features, so it must have another key."""
    import numpy as np

    from models.encoders.loading import load_encoder

    folder = Path(shutil.copytree(clip_with_tokenizer, tmp_path / "copy"))
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    words["red"], words["blue"] = words["blue"], words["red"]
    file.write_text(json.dumps(content))
    one, two = (load_encoder(spec_of(place)) for place in (clip_with_tokenizer, folder))
    assert not np.allclose(one.encode_texts(["red"]), two.encode_texts(["red"]))
    assert one.fingerprint != two.fingerprint
    assert encoder_facts(spec_of(folder)).fingerprint == two.fingerprint


def test_every_file_enters_the_identity(clip_with_tokenizer: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(clip_with_tokenizer, tmp_path / "copy"))
    spec = spec_of(folder)
    before = encoder_facts(spec).fingerprint
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        edited: bytes = content + b" "
        if file.name == "open_clip_config.json":  # it is read as JSON, and its values are hashed
            config: dict[str, Any] = json.loads(content)
            config["model_cfg"]["text_cfg"]["no_causal_mask"] = True
            edited = json.dumps(config).encode()
        file.write_bytes(edited)
        assert encoder_facts(spec).fingerprint != before, file.name
        file.write_bytes(content)
    for name in ("merges.txt", "special_tokens_map.json", "spiece.model"):
        (folder / name).write_text("{}")
        assert encoder_facts(spec).fingerprint != before, name
        (folder / name).unlink()
    assert encoder_facts(spec).fingerprint == before


def test_another_release_of_a_tokenizers_library_makes_nothing_again(
    clip_with_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files decide; open_clip's own version is what published tables hold."""
    before = encoder_facts(spec_of(clip_with_tokenizer)).fingerprint
    version = importlib.metadata.version
    changed = ("transformers", "tokenizers")
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "99" if name in changed else version(name)
    )
    assert encoder_facts(spec_of(clip_with_tokenizer)).fingerprint == before


def test_a_tokenizer_that_is_missing_is_named(clip_with_tokenizer: Path, tmp_path: Path) -> None:
    from models.encoders.loading import load_encoder

    folder = Path(shutil.copytree(clip_with_tokenizer, tmp_path / "copy"))
    (folder / "tokenizer.json").unlink()
    for refused in (encoder_facts, load_encoder):
        with pytest.raises(EncoderNotFound, match=r"tokenizer\.json.*next to open_clip_config"):
            refused(spec_of(folder))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderNotFound, match="tokenizer of"):
        load_encoder(spec_of(folder))


def test_a_hubs_tokenizer_that_is_not_on_this_machine_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SigLIP's weights as a file, without a network: its tokenizer lies in a repository."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "weights.safetensors").write_bytes(b"never read")
    spec = EncoderSpec(
        name="ViT-B-16-SigLIP", pretrained=str(tmp_path / "weights.safetensors"), device="cpu"
    )
    with pytest.raises(EncoderNotFound, match=r"tokenizer\.json.*hf download timm/ViT-B-16-SigLIP"):
        encoder_facts(spec)


def test_half_a_backbone_is_told_by_doctor(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    from deployments.cli import main

    folder = Path(shutil.copytree(clip, tmp_path / "copy"))
    weights = load_file(folder / WEIGHTS)
    without_half(weights)
    save_file(weights, folder / WEIGHTS)
    assert main(["doctor", "--json", f"--set=encoder.name={folder}", f"--set=root={tmp_path}"]) == 1
    found = {each["what"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["encoder"]["state"] == "broken"
    assert "lacks" in found["encoder"]["found"]
