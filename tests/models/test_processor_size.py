"""What a captioner's processor makes of pictures, as its files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import models
from models.captioners.processor_size import processor_side

EMBEDDED = Path(models.__file__).parent / "embedded"


@pytest.mark.parametrize(
    ("files", "side"),
    [
        ({"preprocessor_config.json": {"size": {"height": 224, "width": 364}}}, 364),
        ({"preprocessor_config.json": {"size": 224, "crop_size": {"shortest_edge": 336}}}, 336),
        ({"processor_config.json": {"image_processor": {"size": {"shortest_edge": 336}}}}, 336),
        (
            {
                "preprocessor_config.json": {"size": 448},
                "processor_config.json": {"num_query_tokens": 32},
            },
            448,
        ),
        ({"preprocessor_config.json": {"do_resize": False, "size": 224}}, None),
        ({"preprocessor_config.json": {"image_mean": [0.5]}}, None),
        ({}, None),
    ],
)
def test_forms_of_hubs(files: dict[str, Any], side: int | None, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert processor_side(str(tmp_path), "") == side


@pytest.mark.parametrize("engine", ["blip2", "llava"])
def test_the_processor_that_is_loaded_makes_pictures_of_that_size(engine: str) -> None:
    from PIL import Image
    from transformers import AutoProcessor

    folder = str(EMBEDDED / engine)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    pixels = processor.image_processor(images=Image.new("RGB", (300, 200)), return_tensors="pt")
    assert max(pixels["pixel_values"].shape[-2:]) == processor_side(folder, "")
