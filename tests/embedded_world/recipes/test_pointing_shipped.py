"""The shipped text generator that points: its words and its start."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shipped(repository: Path) -> Path:
    return repository / "models" / "embedded" / "llama_pointing"


def test_it_starts_as_the_other_generator_with_rows_for_new_words(shipped: Path) -> None:
    import torch

    from embedded_world.recipes.pointing_model import extend
    from embedded_world.recipes.text_model import answer, load
    from embedded_world.recipes.text_prompts import edit_prompt

    old, known = load(shipped.parent / "llama")
    new, tokenizer = extend(shipped.parent / "llama")
    rows = new.get_input_embeddings().weight
    assert torch.equal(rows[: len(known)], old.get_input_embeddings().weight)
    assert new.lm_head.weight is rows
    ids = tokenizer.convert_tokens_to_ids(["stars", "star"])
    assert torch.equal(rows[ids[0]], rows[ids[1]] / 2)
    prompts = [edit_prompt("on the left a large striped pink heart", "make the heart small")]
    assert answer(new, tokenizer, prompts) == answer(old, known, prompts)
