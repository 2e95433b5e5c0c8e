"""The shipped text generator that points: its words, its start, and its gates."""

from __future__ import annotations

import json
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


def test_reduced_gates(shipped: Path) -> None:
    from embedded_world.recipes.pointing_measures import GATES, POINTING_SETS
    from embedded_world.recipes.text_measures import TEST_SETS, score
    from embedded_world.recipes.text_model import load

    model, tokenizer = load(shipped)
    tests = {test.name: test for test in (*TEST_SETS, *POINTING_SETS)}
    for name, least in GATES.items():
        share = score(model, tokenizer, tests[name], 100).share
        # Three standard errors of slack for the small sample.
        assert share >= least - 3 * (least * (1 - least) / 100) ** 0.5, name


def test_the_record_says_how_it_was_made_and_that_the_gates_were_passed(shipped: Path) -> None:
    from embedded_world.recipes.pointing_generator import COMMAND
    from embedded_world.recipes.pointing_measures import GATES
    from embedded_world.recipes.text_measures import SAMPLES

    recipe = json.loads((shipped / "recipe.json").read_text())
    assert recipe["command"] == COMMAND
    assert recipe["gates"]["passed"] is True
    rows = {row["name"]: row for row in recipe["gates"]["measures"]}
    assert {name for name, row in rows.items() if row["gate"] is not None} == set(GATES)
    for name, least in GATES.items():
        assert rows[name]["share"] >= rows[name]["gate"] == least
        assert rows[name]["n"] >= SAMPLES
