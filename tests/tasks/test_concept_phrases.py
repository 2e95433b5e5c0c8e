"""Phrases that a text generator writes about concepts: asked once, kept raw, filtered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.profiles import resolve_profile
from models.protocols import EngineUnavailable, TextReply, TextRequest
from models.textual_inversion.phrases import concept_of, phrases_in
from tasks.profile_stages import word_stages
from tasks.stages import concepts as stage_file
from tasks.stages.concepts import ConceptPhraseStage, known_phrases, usable_concepts


class Writer:
    """Continues each prompt with its number; it refuses hats, and never names dogs."""

    def __init__(self, gives_up: bool = False) -> None:
        self.asked: list[TextRequest] = []
        self.gives_up = gives_up

    def generate(self, requests: Iterable[TextRequest]) -> Iterator[TextReply]:
        for request in reversed(list(requests)):  # in any order
            self.asked.append(request)
            concept = concept_of(request.key)
            number = request.key.rpartition("\n")[2]
            if self.gives_up:
                yield TextReply(request.key, "", "engine_error", "no server", gave_up=True)
            elif concept == "hat":
                yield TextReply(request.key, "", "timeout", "too slow")
            else:
                yield TextReply(request.key, f"is {number}\n\nold" if concept == "cat" else "")


def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Writer) -> ConceptPhraseStage:
    names = tmp_path / "names.txt"
    names.write_text("cat\nhat\ndog\n")
    settings: dict[str, Any] = {
        "root": str(tmp_path / "root"),
        "inversion.concepts": str(names),
        "inversion.phrases": "",
        "inversion.writing.count": 3,
    }
    profile = resolve_profile("tiny", settings)
    monkeypatch.setattr(stage_file, "load_generator", lambda settings: writer)
    vectors, written = word_stages(profile, profile.query_encoder.changed(dtype="fp32"))
    assert written is not None
    assert vectors.planned() == written.planned() == ["cat", "dog", "hat"]
    return written


def test_replies_are_continuations_or_whole_sentences() -> None:
    given = ["is old.", "Sure: A photo of cat that runs", " ", "is old.", "a photo of dog that"]
    assert phrases_in("cat", given) == (
        "a photo of cat that is old.",
        "A photo of cat that runs",
        "a photo of cat that a photo of dog that",
    )


def test_every_concept_gets_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer()
    own = stage(tmp_path, monkeypatch, writer)
    table = own.table()
    ticks: list[int] = []
    for shard in table.plan(own.planned(), own.shard_size).shards:
        table.publish(shard, own.rows(shard.members, ticks.append))
    assert sum(ticks) == 3
    rows = {row["concept"]: row for row in table.read().iter_rows(named=True)}
    assert rows["cat"]["phrases"] == [f"a photo of cat that is {n}. old" for n in range(3)]
    assert len(rows["cat"]["raw"]) == 3
    assert (rows["hat"]["status"], rows["hat"]["reason"]) == ("timeout", "too slow")
    assert (rows["dog"]["status"], rows["dog"]["phrases"]) == ("rejected", None)
    phrases = known_phrases("", own)
    assert set(phrases) == {"cat"}
    # Each request has a stream of its own, and asks what the prompt says.
    assert len({request.seed for request in writer.asked}) == 9
    assert {r.prompt for r in writer.asked if "cat" in r.key} == {"a photo of cat that"}
    assert {request.temperature for request in writer.asked} == {0.5}
    profile = resolve_profile("tiny", {"inversion.concepts": str(tmp_path / "names.txt")})
    vectors, _ = word_stages(profile, profile.query_encoder)
    assert usable_concepts(vectors, phrases) == ["cat"]


def test_a_writer_that_gave_up_leaves_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = stage(tmp_path, monkeypatch, Writer(gives_up=True))
    with pytest.raises(EngineUnavailable, match="no server"):
        own.rows(own.planned(), lambda count: None)


def test_the_key_does_not_depend_on_the_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = stage(tmp_path, monkeypatch, Writer())
    (tmp_path / "names.txt").write_text("cat\nhat\ndog\ncup\n")
    again = own.model_copy()
    assert again.spec_key == own.spec_key
    assert "cup" in again.planned()
    hotter = own.model_copy(update={"writing": own.writing.changed(temperature=0.9)})
    assert hotter.spec_key != own.spec_key
