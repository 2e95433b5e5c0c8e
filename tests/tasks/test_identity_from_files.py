"""Identities are read from files alone, and are those that earlier versions wrote into tables."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.generators.prompt_tokens import has_chat_template
from models.loaded_checkpoint import images_scaled_by
from tests.fakes.checkpoints import save_llama

EARLIER = Path(__file__).parents[1] / "fakes" / "earlier_fingerprints.json"
HEAVY = ("torch", "torchvision", "transformers", "open_clip", "peft", "lightning", "openai")

TINY = """
import json, sys
from flows.profiles import resolve_profile
from tasks.engines import (
    captioner_fingerprint, encoder_dim, encoder_fingerprint, generator_fingerprint,
    mapping_fingerprint,
)
from tasks.networks import features_identity, network_facts
profile = resolve_profile("tiny")
own = profile.instructcir
served = {"model": "llava-hf/llava-1.5-13b-hf", "identity": "x@1 float16"}
writer = {"model": "lmsys/vicuna-33b-v1.3", "api": "completions"}
servers = resolve_profile("tiny", {
    "captioner.engine": "openai", "generator.engine": "openai",
    "captioner.base_url": "http://a/v1", "generator.base_url": "http://a/v1",
    **{f"captioner.{name}": value for name, value in served.items()},
    **{f"generator.{name}": value for name, value in writer.items()},
})
found = {
    "captioner": captioner_fingerprint(profile.captioner),
    "llava": captioner_fingerprint(own.captioner),
    "generator": generator_fingerprint(profile.generator),
    "query_encoder": encoder_fingerprint(profile.query_encoder),
    "gallery_encoder": encoder_fingerprint(profile.gallery_encoder),
    "dim": encoder_dim(profile.encoder),
    "mapping": mapping_fingerprint(profile.mapping.checkpoint),
    "network": network_facts(own.checkpoint).identity,
    "network_online": features_identity(profile.network, "online"),
    "network_ema": features_identity(profile.network, "ema"),
    "served_captioner": captioner_fingerprint(servers.captioner),
    "served_generator": generator_fingerprint(servers.generator),
}
print(json.dumps({"found": found, "modules": list(sys.modules)}))
"""

PRODUCTION = """
import json, sys
from flows.profiles import resolve_profile
from tasks.engines import (
    captioner_fingerprint, encoder_dim, encoder_fingerprint, generator_fingerprint,
    mapping_fingerprint,
)
blip2, llava, clip, mapping = sys.argv[1:]
profile = resolve_profile("production", {
    "captioner.model": blip2,
    "instructcir.captioner.model": llava,
    "encoder.pretrained": clip,
    "mapping.checkpoint": mapping,
})
found = [
    captioner_fingerprint(profile.captioner),
    captioner_fingerprint(profile.instructcir.captioner),
    generator_fingerprint(profile.generator),
    generator_fingerprint(profile.instructcir.rewriter),
    encoder_fingerprint(profile.query_encoder),
    encoder_fingerprint(profile.gallery_encoder),
    encoder_dim(profile.encoder),
    mapping_fingerprint(profile.mapping.checkpoint),
]
print(json.dumps({"found": found, "modules": list(sys.modules)}))
"""


def run(code: str, cache: Path, *arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def as_installed(values: Any) -> Any:
    """Stored fingerprints with the versions of the libraries that are installed here."""
    libraries = {
        "transformers-blip2": "transformers",
        "transformers-llava": "transformers",
        "transformers": "transformers",
        "openai-server": "openai",
        "openai-server-images": "openai",
    }
    if not isinstance(values, dict):
        return values
    found = {name: as_installed(value) for name, value in values.items()}
    engine = str(found.get("engine", ""))
    if engine.startswith("open_clip "):
        found["engine"] = f"open_clip {importlib.metadata.version('open_clip_torch')}"
    elif engine:
        found["engine_version"] = importlib.metadata.version(libraries[engine])
    return found


def test_the_shipped_models_are_known_as_before_and_without_a_framework(tmp_path: Path) -> None:
    told = run(TINY, tmp_path)
    assert told["found"] == as_installed(json.loads(EARLIER.read_text()))
    assert not set(HEAVY) & set(told["modules"])


@pytest.fixture
def checkpoints(tmp_path: Path) -> list[Path]:
    """Stand-ins of the papers' models: identity asks for bytes, not for networks."""
    import torch

    folders = []
    for name in ("blip2", "llava"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(name.encode() * 300_000)
        kind = {"blip2": "blip-2"}.get(name, name)
        (folder / "config.json").write_text(json.dumps({"model_type": kind}))
        for other in ("tokenizer.json", "preprocessor_config.json"):
            (folder / other).write_text("{}")
        folders.append(folder)
    (tmp_path / "ViT-L-14.pt").write_bytes(b"clip" * 400_000)
    torch.manual_seed(0)
    sizes = {0: (8, 4), 3: (8, 8), 6: (5, 8)}
    phi = {f"layers.{i}.weight": torch.randn(size) for i, size in sizes.items()}
    torch.save({"epoch": 1, "Phi": phi}, tmp_path / "lincir_large.pt")
    return [*folders, tmp_path / "ViT-L-14.pt", tmp_path / "lincir_large.pt"]


def test_the_papers_models_are_known_without_a_framework(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = run(PRODUCTION, cache, *checkpoints)
    again = run(PRODUCTION, cache, *checkpoints)
    assert again["found"] == first["found"]
    assert again["found"][6] == 768
    assert not set(HEAVY) & set(again["modules"])  # torch read the pickled mapping network once


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"chat_template.jinja": "{{ messages }}"},
        {"chat_template.jinja": ""},
        {"additional_chat_templates/rag.jinja": "{{ messages }}"},
        {"chat_template.jinja": "", "additional_chat_templates/rag.jinja": "x"},
        {"tokenizer_config.json": {"chat_template": "{{ messages }}"}},
        {"tokenizer_config.json": {"chat_template": [{"name": "default", "template": "x"}]}},
        {"tokenizer_config.json": {"chat_template": ""}},
        {"chat_template.jinja": "", "tokenizer_config.json": {"chat_template": "x"}},
    ],
)
def test_chat_templates_are_seen_as_transformers_sees_them(
    tmp_path: Path, files: dict[str, Any]
) -> None:
    from transformers import AutoTokenizer

    folder = save_llama(tmp_path)
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(json.loads(file.read_text()) | content)
        file.write_text(content)
    expected = bool(AutoTokenizer.from_pretrained(folder).chat_template)
    assert has_chat_template(folder) == expected


def test_the_library_that_scales_images_is_the_one_that_transformers_takes() -> None:
    from transformers.utils import is_torchvision_available

    assert images_scaled_by() == ("torchvision" if is_torchvision_available() else "pillow")
