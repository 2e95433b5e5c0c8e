"""What all shards of a stage of rewrites share is worked out once a run and not once a shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from models.protocols import TextReply, TextRequest
from storage.tables.plans import Shard
from tasks.profile_stages import caption_stage
from tasks.query_sets import OneQuery
from tasks.stages import earlier, rewrites
from tasks.stages.rewrites import RewriteStage
from tests.fakes.drawn import small_profile

CAPTIONS, SHARD = 20, 4
QUERY = OneQuery(image_id="a" * 64, text="make it blue")


class Writer:
    """Answers each prompt with words of its own."""

    def generate(self, requests: Sequence[TextRequest]) -> Iterator[TextReply]:
        for request in requests:
            yield TextReply(request.key, f"a blue thing {request.key[:8]}")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RewriteStage:
    """Edits of the twenty captions of one picture, in five shards."""
    monkeypatch.setattr(rewrites, "load_generator", lambda settings: Writer())
    profile = small_profile(tmp_path, captions=CAPTIONS, shard=SHARD)
    captions = caption_stage(profile, "drawn")
    texts = [f"a thing of kind {number}" for number in range(CAPTIONS)]
    captions.table().publish(
        Shard.of([QUERY.image_id]),
        captions.table().rows(
            image_id=[QUERY.image_id], captions=[texts], n=[CAPTIONS], raw=[texts]
        ),
    )
    return RewriteStage(
        root=profile.root,
        shard_size=SHARD,
        step="edit",
        queries=QUERY,
        captions=captions,
        content="per_caption",
        prompt="edit",
        generator=profile.generator,
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Calls of what reads captions, the prompt's file, earlier tables' specs, and a reply."""
    calls: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        work = getattr(module, name)

        def counting(*given: Any, **named: Any) -> Any:
            calls[name] += 1
            return work(*given, **named)

        monkeypatch.setattr(module, name, counting)

    for name in ("captions_of", "load_prompt", "read_reply"):
        count(rewrites, name)
    count(earlier, "_spec_keys")
    return calls


def test_captions_prompt_and_earlier_tables_are_read_once_a_run(
    stage: RewriteStage, counted: Counter[str]
) -> None:
    table = stage.table()
    shards = table.plan(stage.planned_keys(), SHARD).shards
    assert len(shards) == CAPTIONS / SHARD
    for shard in shards:
        table.publish(shard, stage.rows(shard.members, lambda count: None))
    assert counted == {
        "captions_of": 1,
        "load_prompt": 1,
        "_spec_keys": 1,
        "read_reply": CAPTIONS,
    }
    rows = table.read()
    assert rows["answer"].to_list() == [f"a blue thing {key[:8]}" for key in rows["request_key"]]
    assert set(rows["caption"]) == {f"a thing of kind {number}" for number in range(CAPTIONS)}


def test_captions_that_came_after_the_plan_are_read(stage: RewriteStage) -> None:
    """A stage value may live longer than a run, as the service's do."""
    image, texts = "b" * 64, ["a late thing", "another late thing"]
    early = stage.model_copy(update={"queries": OneQuery(image_id=image, text="make it red")})
    assert early.planned() == []
    captions = stage.captions.table()
    captions.publish(
        Shard.of([image]),
        captions.rows(image_id=[image], captions=[texts], n=[2], raw=[texts]),
    )
    keys = early.model_copy().planned()
    assert {each.content for each in early.inputs_of(keys).values()} == set(texts)
