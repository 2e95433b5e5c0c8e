"""Queries asked in other words: written once, cached, scored, and shown with their spread."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flows.profiles import resolve_profile
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.planner import plan_evaluation
from tasks.profile_stages import paraphrase_stage
from tasks.query_sets import BenchmarkRef, found_texts, image_folder, load_query_set
from tasks.query_texts import QueryTexts
from tasks.report.artifact import section_markdown
from tasks.report.build import EvaluatedBenchmark, report_data, write_report
from tasks.scoring.scores import score_ranking
from tasks.scoring.wordings import Wording
from tasks.settings import Profile
from tasks.stages.stage import in_order
from tests.fakes.benchmark_layouts import CIRR_NAMES, write_cirr
from tests.fakes.drawn import draw_folder, small_settings
from tests.fakes.filled_tables import fill
from tests.fakes.openai_server import MODEL, FakeOpenAIServer, Reply, chat


def other_words(request: Mapping[str, Any]) -> Reply:
    """Each wording of the first text, and of the second one the second wording only."""
    prompt = request["messages"][0]["content"]
    number = prompt.partition("Wording ")[2].partition(" ")[0]
    text = prompt.partition("Instruction: ")[2].partition("\n")[0]
    return chat(text if (text, number) == ("caption 1", "1") else f"{text} in words {number}")


def profile_of(root: Path, base_url: str) -> Profile:
    server = {"engine": "openai", "model": MODEL, "base_url": base_url, "timeout": 60.0}
    own = {f"generator.{name}": value for name, value in server.items()}
    return resolve_profile("tiny", small_settings(root) | own)


def test_paraphrases_are_written_once_and_scores_spread_over_them(tmp_path: Path) -> None:
    folder = write_cirr(tmp_path / "cirr")
    for name, picture in zip(CIRR_NAMES, draw_folder(folder / "dev", 8, seed=5), strict=True):
        picture.rename(picture.with_name(f"{name}.png"))
    ref = BenchmarkRef(name="cirr", root=str(folder), split="val")
    with FakeOpenAIServer(then=other_words) as server:
        profile = profile_of(tmp_path / "tables", server.base_url)
        ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
        stage = paraphrase_stage(profile, ref, 1)
        fill(stage)
        asked = len(server.requests)
        more = paraphrase_stage(profile, ref, 2)
        assert more.spec_key == stage.spec_key
        fill(more)
        # Two texts in one wording, then only their second wordings.
        assert (asked, len(server.requests)) == (2, 4)

    own = load_query_set(profile.root, ref)
    wordings = []
    scores = {}
    for number in (0, 1, 2):
        place = f"{stage.spec_key}/{number}"
        texts = QueryTexts(source="paraphrased", place=place, label="others")
        if number:
            found = found_texts(profile.root, texts, own.benchmark, own.image_ids)
            texts = texts.model_copy(update={"content": found.content})
        chosen = ref.with_texts(texts) if number else ref
        (ranking,) = plan_evaluation(profile, chosen, ["text-only"]).rankings
        for each in in_order([ranking]):
            fill(each)
        made = {"text-only": score_ranking(ranking, resamples=20)}
        if number:
            wordings.append(Wording.of(profile.root, chosen, made))
        else:
            scores, first = made, ranking
    told = [
        {q.query_id: q.text for q in load_query_set(profile.root, w.ref).benchmark.queries}
        for w in wordings
    ]
    assert told == [
        {"100": "caption 0 in words 1", "101": ""},
        {"100": "caption 0 in words 2", "101": "caption 1 in words 2"},
    ]
    assert [w.untold for w in wordings] == [frozenset({("", "101")}), frozenset()]

    item = EvaluatedBenchmark(ref, (first,), scores, wordings=tuple(wordings))
    data = report_data(profile, [item], (), "title", ())
    (section,) = data.sections
    assert section.spreads is not None
    spread = section.spreads.methods["text-only"]
    assert spread is not None
    values = [100 * own["text-only"].single[0]["recall@1"][0]
              for own in (scores, *(w.scores for w in wordings))]  # fmt: skip
    assert spread.queries == 1
    assert spread.wordings == pytest.approx(values)
    assert spread.range == pytest.approx(max(values) - min(values))
    page = write_report(data, tmp_path).read_text("utf-8")
    for said in ("Other words", "in its own words and in 2 paraphrases (others)"):
        assert said in page
        assert said in section_markdown(section, tmp_path / "report.html", True)


def test_paraphrases_of_replaced_texts_are_refused() -> None:
    from flows.requests.score_benchmark import score_benchmark

    with pytest.raises(ValueError, match="paraphrases are made of the benchmark's own texts"):
        score_benchmark("cirr", "nowhere", texts="generated", paraphrases=2)
