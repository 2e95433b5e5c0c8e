"""What is read from files is what open_clip says of the same models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from models.encoders import backbone_files, open_clip_tags
from models.encoders.backbone_files import (
    PREPROCESS,
    architecture,
    library_name,
    preprocess_settings,
    tag_settings,
    weights_file,
)
from models.encoders.open_clip_tags import tag_entry, tags_of
from models.encoders.spec import EncoderSpec
from models.encoders.tokenizer_files import tokenizer_kind


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def named(name: str, pretrained: str = "random:0") -> EncoderSpec:
    return EncoderSpec(name=name, pretrained=pretrained)


def test_the_library_calls_itself_so() -> None:
    import open_clip

    assert library_name() == f"open_clip {open_clip.__version__}"


def test_every_architecture_is_read_as_open_clip_reads_it() -> None:
    import open_clip

    for name in open_clip.list_models():
        assert architecture(named(name)) == open_clip.get_model_config(name), name


def test_every_tokenizer_is_of_the_class_that_open_clip_chooses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import open_clip
    from open_clip import factory

    def kind(name: str) -> Callable[..., str]:
        return lambda *args, **options: name

    for name in ("HFTokenizer", "SigLipTokenizer", "SimpleTokenizer"):
        monkeypatch.setattr(factory, name, kind(name))  # the real ones need files of the hub
    for name in open_clip.list_models():
        assert tokenizer_kind(named(name)) == open_clip.get_tokenizer(name), name


def test_every_tag_is_read_as_open_clip_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    pairs = [*open_clip.list_pretrained(), ("ViT-B-32", "none"), ("ViT-B-32", "LAION2B-e16")]
    expected = [open_clip.get_pretrained_cfg(*pair) for pair in pairs]
    assert [tag_entry(*pair) for pair in pairs] == expected
    assert tags_of("ViT-B-32") == open_clip.list_pretrained_tags_by_model("ViT-B-32")
    monkeypatch.setattr(open_clip_tags, "tag_module", None)  # nobody is asked twice
    found = [tag_settings(named(*pair)) for pair in pairs]
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(expected))


def test_the_table_of_tags_is_read_without_torch() -> None:
    """What it does to files is open_clip's own, too: it looks for safetensors first."""
    code = (
        "import sys; from models.encoders.open_clip_tags import tag_module; m = tag_module(); "
        "assert m._has_safetensors and m._has_hf_hub and m.list_pretrained(); "
        "print([n for n in ('torch', 'open_clip', 'transformers', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pictures_are_prepared_as_open_clip_would() -> None:
    from open_clip.transform import PreprocessCfg

    assert asdict(PreprocessCfg()) == PREPROCESS
    siglip = preprocess_settings(named("ViT-B-16-SigLIP", "webli"))
    assert (siglip["mean"], siglip["resize_mode"]) == ((0.5, 0.5, 0.5), "squash")
    assert siglip["size"] == (224, 224)


@pytest.mark.parametrize(
    "names",
    [
        ("b.safetensors", "a.bin", "model.pth"),
        ("b.safetensors", "a.bin"),
        ("c.pth", "a.bin"),
        ("open_clip_pytorch_model.bin", "model.safetensors"),
        ("z.safetensors", "y.safetensors"),
    ],
)
def test_the_weights_of_a_folder_are_those_that_open_clip_takes(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    from open_clip import factory

    (tmp_path / "open_clip_config.json").write_text("{}")
    for name in names:
        (tmp_path / name).write_bytes(b"")
    found = weights_file(EncoderSpec(name=str(tmp_path)))
    assert str(found) == factory._find_checkpoint_in_dir(tmp_path)


def test_files_of_the_hub_are_found_where_it_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(backbone_files, "download_tagged", calls.append)
    repository = tmp_path / "models--timm--vit_large_patch14_clip_224.openai"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    for name in ("open_clip_pytorch_model.bin", "open_clip_model.safetensors"):
        (snapshot / name).write_bytes(b"")
        found = weights_file(named("ViT-L-14-quickgelu", "openai"))
        assert found == snapshot / name  # safetensors where there are both
    assert calls == []
