"""Notes of costs against the books of the server that was asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.protocols import EngineUnavailable
from storage.checks.findings import Findings, Listed
from storage.checks.tables import check_tables
from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.costs import TableCost
from storage.tables.plans import Shard
from storage.tables.table import Table
from tasks.stages.triplets import TripletStage
from tests.fakes.difference_server import difference, fickle_difference
from tests.fakes.drawn import draw_folder
from tests.fakes.metered_server import Books
from tests.fakes.openai_server import FakeOpenAIServer, error
from tests.tasks.test_triplet_stage import caption, stage_of

PAIRS = 20


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A collection of ten pictures."""
    draw_folder(tmp_path / "pictures" / "north", 10, seed=41)
    place = str(tmp_path / "root")
    ingest(Location(place), tmp_path / "pictures", "drawn")
    return place


@pytest.fixture
def books() -> Books:
    """Of a server that is busy at times, half of whose answers have to be asked for again."""
    return Books(fickle_difference, fails=7)


@pytest.fixture
def stage(root: str, books: Books) -> Iterator[TripletStage]:
    """Triplets that such a server writes."""
    with FakeOpenAIServer(then=books) as server:
        made = stage_of(root, server, PAIRS)
        caption(made)
        yield made


def work(stage: TripletStage) -> list[Shard]:
    """Make the missing shards as a flow does; returns them."""
    from tasks.stages.run import run_shard

    shards = stage.table().plan(stage.planned(), stage.shard_size).shards
    for shard in shards:
        run_shard.fn(stage, vars(shard))
    return list(shards)


def totals(cost: TableCost) -> tuple[int, int, int]:
    """All that was spent, as the server's books have it."""
    return cost.spent.calls, cost.spent.prompt_tokens, cost.spent.answer_tokens


def test_calls_and_tokens_are_those_that_the_server_saw(stage: TripletStage, books: Books) -> None:
    shards = work(stage)
    cost = stage.table().cost()
    assert totals(cost) == (books.calls, books.prompt_tokens, books.answer_tokens)
    assert len(shards) == 3
    assert cost.made.rows == PAIRS
    # Questions are asked again in other words: two attempts at one pair are two questions.
    assert PAIRS < cost.made.questions < books.calls
    assert cost.made.waiting_seconds > 0
    assert cost.made.device_seconds == 0
    assert cost.wasted.calls == 0
    # A plan with nothing to do says the same, and doing nothing costs nothing.
    assert stage.table().plan(stage.planned(), stage.shard_size).cost == cost
    assert not work(stage)
    assert stage.table().cost() == cost


def test_a_lost_race_is_wasted_and_not_counted_as_made(
    stage: TripletStage, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.stages.run import run_shard

    shards = work(stage)
    before, asked = stage.table().cost(), books.calls
    monkeypatch.setattr(Table, "holds", lambda self, shard: False)
    run_shard.fn(stage, vars(shards[0]))
    cost = stage.table().cost()
    assert cost.made == before.made
    assert (cost.wasted.rows, cost.wasted.calls) == (0, books.calls - asked)
    assert totals(cost) == (books.calls, books.prompt_tokens, books.answer_tokens)


def test_calls_of_a_shard_that_fails_are_wasted(root: str) -> None:
    with FakeOpenAIServer(then=lambda request: error(400, "no")) as server:
        stage = stage_of(root, server, PAIRS)
        caption(stage)
        with pytest.raises(EngineUnavailable):
            work(stage)
        lost = len(server.requests)
    cost = stage.table().cost()
    assert lost
    assert totals(cost) == (lost, 0, 0)
    assert cost.made.calls == 0
    assert 0 < cost.wasted.questions <= lost  # what was given up unasked is not a question
    books = Books(difference)
    with FakeOpenAIServer(then=books) as server:
        again = stage_of(root, server, PAIRS)
        work(again)
    assert again.table().cost().wasted == cost.wasted
    assert again.table().cost().made.calls == books.calls


def test_a_check_of_the_root_knows_notes(stage: TripletStage, root: str) -> None:
    work(stage)
    found = Findings()
    check_tables(Listed(Location(root), tuple(Location(root).entries())), {}, found)
    assert not [path for path in found.others if "cost-" in path]
    assert not found.faults
    note = next(p for p in Path(root, stage.table().folder).iterdir() if p.name.startswith("cost-"))
    note.write_bytes(b"x")
    found = Findings()
    check_tables(Listed(Location(root), tuple(Location(root).entries())), {}, found)
    assert [fault.path.rpartition("/")[2] for fault in found.faults] == [note.name]


def test_images_and_tokens_of_a_captioner_in_this_process(root: str) -> None:
    """Each image is one call; tokens of prompt and answers as the checkpoint's own processor."""
    from tasks.engines import load_captioner

    with FakeOpenAIServer() as server:
        stage = stage_of(root, server, PAIRS).captions
    from tasks.stages.run import run_shard

    for shard in stage.table().plan(stage.planned(), stage.shard_size).shards:
        run_shard.fn(stage, vars(shard))
    made = stage.table().cost().made
    captioner = load_captioner(stage.captioner)
    tokenizer = captioner._processor.tokenizer  # type: ignore[attr-defined]
    texts = [own[0] for own in stage.table().read(["captions"])["captions"].to_list()]
    words = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert (made.rows, made.questions, made.calls) == (10, 10, 10)
    assert made.answer_tokens == sum(map(len, words))
    config = captioner._model.config  # type: ignore[attr-defined]
    assert made.prompt_tokens == 10 * (config.num_query_tokens + 1)
    assert 0 < made.device_seconds <= made.seconds
    assert made.waiting_seconds == 0
