"""The shipped verifier: it loads by the library's own means and is as good as its card says."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SLACK = 0.03
"""Reduced samples may fall this far below a gate without the model being worse."""


@pytest.fixture(scope="module")
def shipped(repository: Path) -> Path:
    return repository / "models" / "embedded" / "verifier"


def test_its_processor_is_the_recipe_s(shipped: Path) -> None:
    from transformers import AutoProcessor

    from embedded_world.recipes.verifier_model import build_verifier_tokenizer, verifier_processor

    loaded = AutoProcessor.from_pretrained(shipped)
    made = verifier_processor(build_verifier_tokenizer())
    assert loaded.tokenizer.get_vocab() == made.tokenizer.get_vocab()
    assert loaded.chat_template == made.chat_template
    assert loaded.image_processor.to_dict() == made.image_processor.to_dict()


def test_it_meets_its_gates(shipped: Path, repository: Path) -> None:
    from embedded_world.recipes.verifier_measures import verifier_gates

    clip = repository / "models" / "embedded" / "clip"
    gates = verifier_gates(shipped, 0.08, clip)
    for measure in gates.measures:
        if measure.gate is not None:
            slack = 0 if "agree" in measure.name else SLACK
            assert measure.share >= measure.gate - slack, measure.line
