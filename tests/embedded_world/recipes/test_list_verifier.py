"""The verifier of grids: what it is trained on is what the product asks, and where tokens lie."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from embedded_world.recipes.list_queries import draw_list
from embedded_world.recipes.verifier_queries import cells_off
from embedded_world.scenes import is_held_out
from models.verifiers.grid import MOST


@pytest.mark.parametrize("held_out", [True, False])
def test_lists_have_one_right_candidate_or_two(held_out: bool) -> None:
    rng = Random(held_out)
    places, two = [], 0
    for number in range(120):
        count = 2 + number % 9
        own = draw_list(rng, count, held_out=held_out)
        assert len(own.candidates) == count
        assert own.fits == tuple(cells_off(own.query.wanted, c) == 0 for c in own.candidates)
        right = own.fits.count(True)
        assert right == 1 or (right == 2 and count > 3)
        two += right == 2
        places.append(own.fits.index(True) / (count - 1))
        assert {is_held_out(scene) for scene in own.candidates} == {held_out}
    assert 5 < two < 30
    assert 0.3 < np.mean(places) < 0.7, "the right one stands at any place"


def test_the_token_of_a_cell_is_the_one_that_it_fills_most() -> None:
    """One black cell in a white list darkens its own token more than any other one."""
    from PIL import Image

    from embedded_world.recipes.list_model import grid_processor, marked_tokenizer
    from embedded_world.recipes.list_pictures import CELL, places_in, read_pictures
    from models.verifiers.grid import draw_grid

    processor = grid_processor(marked_tokenizer(), CELL)
    white = Image.new("RGB", (96, 96), "white")
    for count in (2, 5, MOST):
        plain = read_pictures(processor, [draw_grid([white] * count, CELL)])
        for place, cell in ((0, 0), (count - 1, 8), (count // 2, 5)):
            left, top = 32 * (cell % 3), 32 * (cell // 3)
            black = white.copy()
            black.paste("black", (left, top, left + 32, top + 32))
            row = [black if i == place else white for i in range(count)]
            drawn = read_pictures(processor, [draw_grid(row, CELL)])
            # Four patches of a token follow each other.
            change = (plain.patches - drawn.patches).mean(dim=1).unflatten(0, (-1, 4)).mean(dim=1)
            token = int(places_in(count, drawn.grids[0])[place, cell])
            assert float(change[token]) >= 0.95 * float(change.max()), (count, place, cell)


@pytest.fixture(scope="module")
def started(repository: Path) -> Any:
    """The learner at step 0, from the shipped verifier."""
    from embedded_world.recipes.list_model import grid_processor, grown, marked_tokenizer
    from embedded_world.recipes.list_pictures import CELL
    from embedded_world.recipes.list_training import ListLearner

    tokenizer = marked_tokenizer()
    model = grown(repository / "models" / "embedded" / "verifier", tokenizer, seed=1)
    return ListLearner(
        model, grid_processor(tokenizer, CELL), seed=1, steps=4, length=5, held_out=2
    )


def test_it_learns_what_the_product_asks(started: Any, tmp_path: Path) -> None:
    """The learner's logits are those of `choose`, from its own chat and pictures."""
    from embedded_world.recipes.list_pictures import grids_of
    from embedded_world.recipes.verifier_model import ship
    from models.verifiers.choices import log_odds
    from models.verifiers.grid import marks_of
    from models.verifiers.prompt import SHORT_PROMPTS
    from models.verifiers.protocol import GridRequest
    from models.verifiers.qwen3_vl import VlmVerifierSettings

    ship(started.model, started.processor, tmp_path)
    settings = VlmVerifierSettings(
        model=str(tmp_path), device="cpu", dtype="fp32", prompts=SHORT_PROMPTS
    )
    verifier = settings.load()
    for count in (3, 10):
        lists = [draw_list(Random(n), count, held_out=True) for n in range(2)]
        references, _, grids = grids_of(lists, np.random.default_rng(99))
        asked = [
            GridRequest(
                key=f"{n}",
                reference=references[n],
                text=own.query.text,
                grid=grids[n],
                marks=marks_of(count),
            )
            for n, own in enumerate(lists)
        ]
        chosen = [choice.margins for choice in verifier.choose(asked)]
        own = [log_odds(row.tolist()) for row in started.logits(lists)]
        assert np.abs(np.array(chosen) - np.array(own)).max() < 0.02, "fp16 alone"
        assert np.ptp(own) > 0.1


def test_at_first_it_is_the_shipped_verifier(started: Any, repository: Path) -> None:
    """A finer table of positions, a layer and marks change hardly anything it says about a pair."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    from embedded_world.recipes.list_pictures import drawings, read_pictures
    from embedded_world.scenes import sample_scenes

    shipped = Qwen3VLForConditionalGeneration.from_pretrained(
        repository / "models" / "embedded" / "verifier", dtype=torch.float32
    )
    token = started.processor.tokenizer.convert_tokens_to_ids
    picture = [token("<|vision_start|>"), *[5] * 9, token("<|vision_end|>")]
    ids = torch.tensor([[1, *picture, *picture, token("<ask>")]])
    images = drawings(sample_scenes(Random(0), 2, held_out=True), np.random.default_rng(0))
    read = read_pictures(started.processor, images)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == 5).int(),
        "pixel_values": read.patches,
        "image_grid_thw": read.grids,
    }
    with torch.inference_mode():
        old, new = (model(**inputs).logits[0, -1] for model in (shipped, started.model))
    assert len(new) == len(old) + 9 + 26
    assert float((new[: len(old)] - old).abs().max()) < 0.2
    assert float(old.max() - old.min()) > 5


def test_a_resumed_run_goes_on_as_it_was(started: Any, repository: Path) -> None:
    from embedded_world.recipes.list_model import grown
    from embedded_world.recipes.list_training import ListLearner

    first = started.advance()
    assert set(first) == {"answer", "whole", "wish", "verdict"}
    saved = started.save()
    here = started.advance()
    folder = repository / "models" / "embedded" / "verifier"
    model = grown(folder, started.processor.tokenizer, seed=2)
    other = ListLearner(model, started.processor, seed=1, steps=4, length=5, held_out=2)
    other.load(saved)
    assert other.advance() == here


def test_the_tower_is_drawn_towards_the_shipped_one(repository: Path) -> None:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    from embedded_world.recipes.list_model import grid_processor, grown, marked_tokenizer
    from embedded_world.recipes.list_pictures import CELL
    from embedded_world.recipes.list_vision import GridTower, vision_scenes

    folder = repository / "models" / "embedded" / "verifier"
    tokenizer = marked_tokenizer()
    model = grown(folder, tokenizer, seed=1)
    shipped = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    tower = GridTower(model, shipped, grid_processor(tokenizer, CELL))
    scenes = vision_scenes(Random(1), 3, 6)
    optimiser = torch.optim.AdamW(tower.parameters(), 1e-3)
    found = []
    for _ in range(8):
        losses = tower.losses(scenes, 3, np.random.default_rng(1))
        found.append(float(losses["merged"].detach()))
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    assert found[-1] < 0.95 * found[0]
