"""The embedded verifier's training: its batches, resuming, and what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from embedded_world.drawing import draw_batch
from embedded_world.recipes.verifier_queries import CANDIDATES, VerifierQuery, draw_query
from tests.fakes.plain_chat import chat_inputs

if TYPE_CHECKING:
    from embedded_world.recipes.verifier_training import VerifierLearner


def new_learner(steps: int = 2000, seed: int = 1) -> VerifierLearner:
    from embedded_world.recipes.verifier_model import build_verifier_tokenizer, new_verifier
    from embedded_world.recipes.verifier_training import VerifierLearner

    tokenizer = build_verifier_tokenizer()
    model = new_verifier(tokenizer, seed)
    return VerifierLearner(model, tokenizer, seed=seed, steps=steps, batch=2, held_out=2)


def plain_logits(learner: VerifierLearner, queries: Sequence[VerifierQuery], seed: int) -> Any:
    """Logits (B, CANDIDATES, vocabulary) by the library's processor, one pair a row."""
    import torch

    from embedded_world.recipes.verifier_model import verifier_processor

    processor = verifier_processor(learner.tokenizer)
    drawn = draw_batch([s for q in queries for s in q.scenes], np.random.default_rng(seed))
    pictures = iter([Image.fromarray(each) for each in drawn])
    rows = []
    for query in queries:
        reference = next(pictures)
        for _ in range(CANDIDATES):
            content = [
                {"type": "text", "text": query.text},
                {"type": "image", "image": reference},
                {"type": "image", "image": next(pictures)},
            ]
            inputs = chat_inputs(processor, content)
            rows.append(learner.model(**inputs).logits[0, -1])
    return torch.stack(rows).unflatten(0, (len(queries), CANDIDATES))


def test_packed_batches_are_the_library_s_rows() -> None:
    import torch

    learner = new_learner()
    rng = Random(2)
    queries = [draw_query(rng, held_out=False, two_edits=share) for share in (0.0, 1.0)]
    assert len(queries[0].text.split()) != len(queries[1].text.split())  # one row is padded
    with torch.no_grad():
        seen = learner._see(queries, np.random.default_rng(7))
        found = learner.model.lm_head(seen.last)
        expected = plain_logits(learner, queries, 7)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert expected.std(dim=1).max() > 0.01, "the candidates are ignored"


@pytest.mark.slow
def test_a_resumed_run_equals_an_undisturbed_one() -> None:
    import torch

    whole = new_learner()
    losses = [whole.advance() for _ in range(4)]
    first = new_learner()
    early = [first.advance() for _ in range(2)]
    second = new_learner()
    second.load(first.save())
    assert early + [second.advance() for _ in range(2)] == losses
    for (name, ours), theirs in zip(
        second.model.state_dict().items(), whole.model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    for name, ours in first.model.model.visual.state_dict().items():
        assert torch.equal(ours, new_learner().model.model.visual.state_dict()[name]), name


def test_a_run_may_change_its_length_before_the_rate_falls() -> None:
    from embedded_world.recipes.verifier_training import DECAY

    shorter, longer = DECAY + 3, DECAY + 9
    first = new_learner(longer)
    first.step = 3
    saved = first.save()
    at = new_learner(shorter)
    at.load(saved)
    assert at.schedule.at(2) == first.schedule.at(2)
    first.step = 4
    with pytest.raises(ValueError, match=f"step 4 of {longer}"):
        new_learner(shorter).load(first.save())
    new_learner(longer).load(first.save())


@pytest.mark.slow
def test_the_command_trains_writes_and_resumes(tmp_path: Path, repository: Path) -> None:
    """Two steps of either stage; the vision tower's tokens have the size that is wanted."""
    import json
    import subprocess
    import sys

    command = [
        *(sys.executable, "-m", "embedded_world.recipes.verifier", "--vision-steps", "2"),
        *("--steps", "2", "--batch", "1", "--work", str(tmp_path / "work")),
        *("--out", str(tmp_path / "out"), "--gate-share", "0.02"),
    ]
    for _ in range(2):
        run = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.count("resumed at step 2") == 2
    record = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert record["steps"] == 2
    assert record["largest_change_by_fp16"] <= 0.05
    assert {row["name"] for row in record["gates"]["measures"]} >= {"two edits: AUC"}


@pytest.mark.slow
def test_picture_tokens_are_scaled_to_the_texts() -> None:
    from embedded_world.recipes.verifier_model import build_verifier_tokenizer, new_verifier
    from embedded_world.recipes.verifier_training import PICTURE_SIZE, VisionWarmUp
    from embedded_world.scenes import sample_scenes

    model = new_verifier(build_verifier_tokenizer(), 3)
    warm_up = VisionWarmUp(model.model.visual)
    model.model.visual.merger.linear_fc2.weight.data.mul_(40)
    warm_up.rescale()
    scenes = sample_scenes(Random(1), 50, held_out=True)
    for tokens in warm_up.tokens(scenes, np.random.default_rng(2)):
        size = float(tokens.detach().pow(2).mean().sqrt())
        assert size == pytest.approx(PICTURE_SIZE, rel=0.1)
