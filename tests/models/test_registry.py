"""Engines are loaded by name, with settings refused by name."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest

from models.protocols import TextRequest
from models.registry import CAPTIONERS, ENCODERS, GENERATORS, load_captioner, load_generator
from tests.fakes.checkpoints import save_llama


@pytest.mark.parametrize(
    "engine", [*CAPTIONERS.values(), *GENERATORS.values(), *ENCODERS.values()], ids=str
)
def test_every_line_names_something_that_exists(engine) -> None:
    module = importlib.import_module(engine.module)
    assert callable(getattr(module, engine.factory))
    assert is_dataclass(getattr(module, engine.settings))


def test_an_engine_is_loaded_by_name(tmp_path: Path) -> None:
    folder = save_llama(tmp_path)
    generator = load_generator("transformers", model=str(folder), device="cpu")
    (reply,) = generator.generate([TextRequest("k", "w1")])
    assert reply.key == "k"


def test_unknown_names_list_the_known_ones() -> None:
    known = "known: blip2, llava, openai_images"
    with pytest.raises(ValueError, match=f"unknown captioner 'blip3'; {known}"):
        load_captioner("blip3")
    with pytest.raises(ValueError, match="no setting temprature; known: model, revision"):
        load_generator("transformers", model="x", temprature=1)
    with pytest.raises(ValueError, match="'openai_server' needs the setting base_url, model"):
        load_generator("openai_server")


def test_the_registry_imports_nothing_heavy() -> None:
    code = (
        "import sys, models.registry; sys.exit('torch' in sys.modules or 'openai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
