"""From pictures and a teacher behind a server to a tuned adapter, through the flow itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.generators.adapter_card import read_card
from storage.collections.collection import ingest
from storage.locations.location import Location
from tests.fakes.difference_server import fickle_difference, triplet_settings
from tests.fakes.drawn import draw_folder
from tests.fakes.openai_server import MODEL, FakeOpenAIServer

pytestmark = pytest.mark.prefect

TUNING = {"epochs": 1, "batch_size": 8, "rank": 2}


def test_a_teacher_is_asked_once(prefect_results: Path, tmp_path: Path) -> None:
    from flows.finetune_rewriter import finetune_rewriter
    from flows.requests.finetune_rewriter import Teacher
    from tests.fakes.checkpoints import save_llama

    root = tmp_path / "tables"
    draw_folder(tmp_path / "pictures", 8, seed=3)
    ingest(Location(str(root)), tmp_path / "pictures", "drawn")
    base = str(save_llama(tmp_path / "llama", context=256))
    replay = tmp_path / "replay.jsonl"
    replay.write_text(json.dumps({"prompt": "red :", "answer": "blue"}) + "\n")
    with FakeOpenAIServer(then=fickle_difference) as server:
        settings = triplet_settings(root, "http://127.0.0.1:1/v1")  # the teacher is another server
        teacher = Teacher(
            model=MODEL,
            base_url=server.base_url,
            collections=("drawn",),
            within="collection",
            count=12,
        )

        def tune(**changes: object) -> dict[str, object]:
            return finetune_rewriter(
                teacher=teacher,
                replay=str(replay),
                base=base,
                tuning=TUNING | changes,
                device="cpu",
                settings=settings,
            )

        first = tune()
        asked = len(server.requests)
        again, other = tune(), tune(seed=1)
    statuses = first["stages"][-1]
    assert statuses["planned"] == 12
    # Of twelve pairs, some never got an answer that keeps the contract: rows, but nothing to learn.
    learned = first["pairs"][f"teacher {MODEL}"]
    assert learned == 12 - statuses["failed"]
    assert 0 < statuses["failed"] < 12
    assert first["pairs"]["replay"] == 1
    assert asked > 12  # a broken answer was asked for again
    assert len(server.requests) == asked  # and nothing at all in the second and third run
    assert again["adapter"] == first["adapter"] != other["adapter"]
    card = read_card(str(first["adapter"]))
    assert card is not None
    assert card.pairs == first["pairs"]
    assert (card.form, card.saw_benchmark_texts) == ("raw", ())


def test_without_data_it_says_what_to_give(prefect_results: Path, tmp_path: Path) -> None:
    from flows.finetune_rewriter import finetune_rewriter

    with pytest.raises(ValueError, match="give pairs=FILE, a teacher, or gt"):
        finetune_rewriter(settings={"root": str(tmp_path)})
