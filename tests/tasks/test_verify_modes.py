"""METHOD+verify in lists and by questions: rows, reruns, malformed answers, and what is said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from embedded_world.benchmarks import WorldSize, write_world
from flows.profiles import resolve_profile
from models.metering import Spent, current_meter
from models.verifiers.protocol import Choice, GridRequest, Verification, VerificationRequest
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.methods import why_not_ready
from tasks.planner import gallery_stages, plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder, load_query_set
from tasks.scoring.ledger import label_of
from tasks.scoring.making import made_by
from tasks.scoring.scores import score_ranking
from tasks.settings import Profile
from tasks.stages.list_verifications import ListVerificationStage
from tasks.stages.questioned import QuestionedStage
from tasks.stages.rankings import RankingStage, ranking_protocol
from tasks.stages.stage import in_order
from tasks.stages.verified import VerifiedStage
from tests.fakes.drawn import small_settings
from tests.fakes.filled_tables import fill

SIZE = WorldSize(subsets=3, circo_queries=2, fashion_queries=2, distractors=12)
FIRST = 4
METHOD = "image-text-sum+verify"
LISTWISE = {"verify.mode": "listwise"}
QUESTIONS = {"verify.mode": "questions", "verify.questions.source": "rule"}


class CountingVerifier:
    """A verifier whose margins follow from texts and pixels, and which counts what it is asked.

    Attributes:
        broken: Text -> the status of lists about it.
    """

    def __init__(self) -> None:
        self.pairs: list[VerificationRequest] = []
        self.grids: list[GridRequest] = []
        self.broken: Mapping[str, str] = {}

    def verify(self, requests: Iterable[VerificationRequest]) -> Iterator[Verification]:
        """The brightness of a candidate, turned by the text."""
        for request in requests:
            self.pairs.append(request)
            current_meter().add(Spent(questions=1, calls=1, prompt_tokens=7))
            yield Verification(request.key, margin(request.text, request.candidate_id), 1.0, "yes")

    def choose(self, requests: Iterable[GridRequest]) -> Iterator[Choice]:
        """The last mark is best: every list is turned round."""
        for request in requests:
            self.grids.append(request)
            current_meter().add(Spent(questions=1, calls=1, prompt_tokens=11))
            status = self.broken.get(request.text, "ok")
            margins = tuple(float(i) for i in range(len(request.marks)))
            if status == "off_format":
                yield Choice(request.key, (), None, "none", status, "the answer holds no mark")
            else:
                reason = "" if status == "ok" else "1 of 4 marks is missing"
                yield Choice(request.key, margins, 1.0, "1", status, reason)


def margin(text: str, candidate: str) -> float:
    """A number between -3 and 3."""
    return sum(map(ord, text + candidate)) % 601 / 100 - 3


@pytest.fixture
def verifier(monkeypatch: pytest.MonkeyPatch) -> CountingVerifier:
    own = CountingVerifier()
    for name in ("verifications", "list_verifications"):
        monkeypatch.setattr(f"tasks.stages.{name}.load_verifier", lambda settings: own)
    return own


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modes")
    write_world(folder / "world", SIZE, seed=71)
    profile = profile_of(folder, {})
    ref = reference(folder)
    ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
    for stage in in_order(plan_evaluation(profile, ref, ["image-text-sum"]).rankings):
        fill(stage)
    return folder


def profile_of(folder: Path, settings: Mapping[str, Any], count: int = FIRST) -> Profile:
    given = {
        "verify.candidates": count,
        "verify.fusing.rule": "replace",
        "verify.verifier.modes": ("pointwise", "listwise", "questions"),
    }
    return resolve_profile("tiny", small_settings(folder / "tables") | given | dict(settings))


def reference(folder: Path) -> BenchmarkRef:
    return BenchmarkRef(name="cirr", root=str(folder / "world" / "cirr"))


def ranked(profile: Profile, folder: Path, method: str = METHOD) -> tuple[VerifiedStage, int]:
    """A filled ranking, and how many rows its verifier's table got."""
    (stage,) = plan_evaluation(profile, reference(folder), [method]).rankings
    assert isinstance(stage, VerifiedStage)
    made = {type(each): fill(each) for each in in_order([stage])}
    return stage, made[type(stage.verifications)]


def rows_of(stage: RankingStage) -> dict[str, dict[str, Any]]:
    return {row["query_id"]: row for row in stage.table().read(keys=stage.planned()).to_dicts()}


def test_a_list_is_one_call_and_its_order_is_taken(world: Path, verifier: CountingVerifier) -> None:
    stage, made = ranked(profile_of(world, LISTWISE), world)
    before, after = rows_of(stage.verifications.first), rows_of(stage)
    query_set = load_query_set(stage.root, stage.benchmark)
    distinct = set()
    for query in query_set.benchmark.queries:
        old, new = before[query.query_id], after[query.query_id]
        assert new["names"] == old["names"][:FIRST][::-1] + old["names"][FIRST:]
        assert new["subset_names"] == old["subset_names"][::-1]
        assert new["scores"][:FIRST] == [3.0, 2.0, 1.0, 0.0]
        for names in (old["names"][:FIRST], old["subset_names"]):
            distinct.add((query.reference, query.text, tuple(names)))
    assert made == len(verifier.grids) == len(distinct)
    assert not verifier.pairs
    assert {len(grid.marks) for grid in verifier.grids} == {FIRST, len(old["subset_names"])}
    assert ranked(profile_of(world, LISTWISE), world)[1] == 0
    assert len(verifier.grids) == made


def test_another_k_asks_about_other_lists_alone(world: Path, verifier: CountingVerifier) -> None:
    few = profile_of(world, LISTWISE | {"verify.listwise.cell": 40})
    first, made = ranked(few, world)
    more = profile_of(world, LISTWISE | {"verify.listwise.cell": 40}, FIRST + 2)
    deeper, new = ranked(more, world)
    assert isinstance(first.verifications, ListVerificationStage)
    groups = {own for own in first.verifications.lists() if own in deeper.verifications.lists()}
    assert new == made - len(groups)  # lists of groups are known
    assert groups
    assert first.verifications.spec_key == deeper.verifications.spec_key
    assert ranked(few, world)[1] == ranked(more, world)[1] == 0
    pointwise = profile_of(world, {}, FIRST)
    assert pointwise.verify.mode == "pointwise"
    ranked(pointwise, world)
    assert len(verifier.grids) == made + new


def test_seeded_orders_are_averaged_and_flips_are_counted(
    world: Path, verifier: CountingVerifier
) -> None:
    settings = LISTWISE | {"verify.listwise.orders": 3, "verify.listwise.cell": 44}
    stage, made = ranked(profile_of(world, settings), world)
    lists = stage.verifications.lists()
    drawn = {each.key: each for own in lists for each in own.drawn(3)}
    assert {frozenset(each.candidates) for each in drawn.values()} == {
        frozenset(own.candidates) for own in lists
    }
    own = lists[0]
    verdicts = stage.verifications.read().margins_of(own.reference, own.text, own.candidates)
    for name in own.candidates:
        places = [each.candidates.index(name) for each in own.drawn(3)]
        assert verdicts[name] == pytest.approx(fmean(places))
    flipped = sum(len({each.candidates[-1] for each in own.drawn(3)}) > 1 for own in lists)
    assert ranking_protocol(stage)["order_flips"] == {"lists": len(lists), "flipped": flipped}
    assert flipped
    said = f"another first candidate in {flipped} of {len(lists)} lists"
    assert said in label_of(ranking_protocol(stage))
    assert made == len(drawn)
    assert "listwise in 3 orders over the first 4, replace" in made_by(stage)["verifier"]


def test_a_malformed_list_keeps_the_first_stage_and_is_counted(
    world: Path, verifier: CountingVerifier
) -> None:
    profile = profile_of(world, LISTWISE | {"verify.listwise.cell": 48})
    queries = load_query_set(profile.root, reference(world)).benchmark.queries
    bad, part = queries[0].text, next(q.text for q in queries if q.text != queries[0].text)
    verifier.broken = {bad: "off_format", part: "incomplete"}
    stage, _ = ranked(profile, world)
    before, after = rows_of(stage.verifications.first), rows_of(stage)
    lacking = 0
    for query in queries:
        old, new = before[query.query_id], after[query.query_id]
        if query.text == bad:
            assert new["names"] == old["names"]
            assert new["subset_names"] == old["subset_names"]
        else:
            assert new["names"][:FIRST] == old["names"][:FIRST][::-1]
    protocol = ranking_protocol(stage)
    verdicts = stage.verifications.read().by_pair
    lacking = sum(text == bad for _, text, _ in verdicts)
    assert protocol["not_verified"] == {"pairs": len(verdicts), "lacking": lacking}
    assert lacking
    own = [each for each in stage.verifications.lists() if each.text == part]
    assert protocol["incomplete_lists"] == len(own)
    assert f"{len(own)} lists of candidates were answered in part" in label_of(protocol)
    assert f"{lacking} of {len(verdicts)} candidates were not verified" in label_of(protocol)


def test_questions_by_rule_are_asked_of_each_candidate(
    world: Path, verifier: CountingVerifier
) -> None:
    from models.prompts.library import load_prompt
    from models.verifiers.questions import changes_of

    stage, made = ranked(profile_of(world, QUESTIONS), world)
    rule, kept = (load_prompt(name, ("text",)) for name in ("verify_rule", "verify_kept"))
    query_set = load_query_set(stage.root, stage.benchmark)
    before, after = rows_of(stage.verifications.first), rows_of(stage)
    asked = set()
    for query in query_set.benchmark.queries:
        old, new = before[query.query_id], after[query.query_id]
        questions = [rule.render(text=change) for change in changes_of(query.text)]
        questions.append(kept.render(text=query.text))
        ids = {n: query_set.image_ids[n] for n in (*old["names"][:FIRST], *old["subset_names"])}
        own = {n: fmean(margin(q, i) for q in questions) for n, i in ids.items()}
        first = old["names"][:FIRST]
        assert new["names"] == sorted(first, key=lambda n: -own[n]) + old["names"][FIRST:]
        asked |= {(query.reference, q, i) for q in questions for i in ids.values()}
    assert made == len(asked) == len(verifier.pairs)
    assert ranked(profile_of(world, QUESTIONS), world)[1] == 0
    # How answers become a score asks nothing; another K asks about candidates that are new.
    changed = QUESTIONS | {"verify.questions.score": "product"}
    other, again = ranked(profile_of(world, changed), world)
    assert again == 0
    assert other.spec_key != stage.spec_key
    assert "questions of rule" in made_by(other)["verifier"]
    assert "product, over the first 4" in made_by(other)["verifier"]
    deeper, new = ranked(profile_of(world, changed, FIRST + 2), world)
    assert new == len(deeper.verifications.planned()) - made > 0
    assert score_ranking(other).metrics.keys() == score_ranking(stage).metrics.keys()


def test_questions_that_could_not_be_drawn_leave_the_first_stage(
    world: Path, verifier: CountingVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.protocols import TextReply, TextRequest

    queries = load_query_set(profile_of(world, {}).root, reference(world)).benchmark.queries
    bad = queries[0].text
    prompts = []

    class Writer:
        def generate(self, requests: Iterable[TextRequest]) -> Iterator[TextReply]:
            for request in requests:
                prompts.append(request.prompt)
                current_meter().add(Spent(questions=1, calls=1, prompt_tokens=5, answer_tokens=3))
                said = (
                    "I cannot say."
                    if f"Change: {bad}\n" in request.prompt
                    else "1. Is it?\n2. Has it?"
                )
                yield TextReply(request.key, said, finish_reason="stop")

    monkeypatch.setattr("tasks.stages.questions.load_generator", lambda settings: Writer())
    profile = profile_of(world, {"verify.mode": "questions", "verify.questions.kept": ""})
    stage, _ = ranked(profile, world)
    texts = {query.text for query in queries}
    assert len(prompts) == len(texts)
    before, after = rows_of(stage.verifications.first), rows_of(stage)
    assert after[queries[0].query_id]["names"] == before[queries[0].query_id]["names"]
    assert {request.text for request in verifier.pairs} == {"Is it?", "Has it?"}
    assert isinstance(stage.verifications, QuestionedStage)
    rows = stage.verifications.asked.table().read(keys=stage.verifications.asked.planned())
    assert {tuple(r or ()) for r in rows["questions"].to_list()} == {("Is it?", "Has it?"), ()}
    verdicts = stage.verifications.read().by_pair
    lacking = {pair: why for pair, (own, why) in verdicts.items() if own is None}
    assert {text for _, text, _ in lacking} == {bad}
    assert all("no line of the reply is a question" in why for why in lacking.values())
    assert ranking_protocol(stage)["not_verified"]["lacking"] == len(lacking)
    assert ranked(profile, world)[1] == 0
    assert len(prompts) == len(texts)


def test_costs_count_calls_and_tokens(world: Path, verifier: CountingVerifier) -> None:
    from models.metering import measuring
    from storage.tables.costs import Cost
    from tasks.scoring.costs import query_cost, table_costs

    profile = profile_of(world, LISTWISE | {"verify.listwise.cell": 56})
    (stage,) = plan_evaluation(profile, reference(world), [METHOD]).rankings
    for each in in_order([stage]):
        table = each.table()
        shards = table.plan(each.planned_keys(), each.shard_size, False, each.read_order).shards
        for shard in shards:
            with measuring() as meter:
                rows = each.rows(shard.members, lambda count: None)
            table.publish(shard, rows)
            spent = {"questions": meter.spent.questions, "calls": meter.spent.calls}
            tokens = {"prompt_tokens": meter.spent.prompt_tokens}
            table.note(shard, Cost(len(shard.members), **spent, **tokens), published=True)
    cost = query_cost(stage, table_costs([stage]))
    assert isinstance(stage, VerifiedStage)
    queries = {(own.reference, own.text) for own in stage.verifications.lists()}
    calls = len(stage.verifications.lists()) / len(queries)
    assert cost.calls == pytest.approx(calls)
    assert cost.prompt_tokens == pytest.approx(11 * calls)


@pytest.mark.parametrize(
    "mode", [LISTWISE | {"verify.listwise.cell": 60}, QUESTIONS | {"verify.verifier.max_pixels": 9}]
)
def test_a_search_orders_as_the_benchmark_does(
    world: Path, verifier: CountingVerifier, mode: Mapping[str, Any]
) -> None:
    from tasks.search_gallery import search_gallery

    profile = profile_of(world, mode)
    stage, _ = ranked(profile, world)
    query_set = load_query_set(profile.root, reference(world))
    query = query_set.benchmark.queries[0]
    gallery = gallery_stages(profile, "cirr-val", METHOD)
    for each in in_order(gallery.values()):
        fill(each)
    image = Path(query_set.benchmark.image_paths[query.reference]).read_bytes()
    result = search_gallery(profile, "cirr-val", gallery, image, query.text, method=METHOD, k=6)
    wanted = rows_of(stage)[query.query_id]["names"][:6]
    assert [hit.image_id for hit in result.hits] == [query_set.image_ids[name] for name in wanted]
    assert [hit.verdict is not None for hit in result.hits] == [True] * FIRST + [False] * 2


def test_the_embedded_verifier_refuses_both_modes(world: Path) -> None:
    own = small_settings(world / "tables")
    for mode in ("listwise", "questions"):
        profile = resolve_profile("tiny", own | {"verify.mode": mode})
        said = why_not_ready(METHOD, profile)
        assert f"verify.mode={mode}" in said
        assert "answers pointwise alone" in said
        assert "verify.mode=pointwise" in said
        with pytest.raises(ValueError, match="answers pointwise alone"):
            plan_evaluation(profile, reference(world), [METHOD])
    assert why_not_ready(METHOD, resolve_profile("tiny", own)) == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (LISTWISE | {"verify.candidates": 27}, "at most 26 candidates"),
        (LISTWISE | {"verify.listwise.answer": "order"}, "asked of a server alone"),
        (
            LISTWISE | {"verify.verifier.engine": "blip-itm", "verify.verifier.model": "x"},
            "blip-itm x answers pointwise alone",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(
    world: Path, settings: Mapping[str, Any], said: str
) -> None:
    assert said in profile_of(world, settings).verify.why_not


def test_the_modes_have_tables_of_their_own_and_pointwise_keeps_its_key(world: Path) -> None:
    from tasks.stages.verifications import VerificationStage

    keys = {}
    for name, settings in {"pointwise": {}, "listwise": LISTWISE, "questions": QUESTIONS}.items():
        (stage,) = plan_evaluation(profile_of(world, settings), reference(world), [METHOD]).rankings
        assert isinstance(stage, VerifiedStage)
        keys[name] = stage.verifications.spec_key
        if name == "pointwise":
            assert isinstance(stage.verifications, VerificationStage)
            assert set(stage.verifications.spec) == {"producer", "verifier"}
            assert set(stage.identity()) & {"mode", "orders", "score", "questions"} == set()
    assert len(set(keys.values())) == 3
