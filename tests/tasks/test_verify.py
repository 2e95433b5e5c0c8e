"""METHOD+verify on a drawn world: margins by the model itself, orders by sorting them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedded_world.benchmarks import WorldSize, write_world
from flows.profiles import resolve_profile
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.methods import label_of, why_not_ready
from tasks.planner import gallery_stages, plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder, load_query_set
from tasks.scoring.making import made_by
from tasks.scoring.scores import score_ranking
from tasks.settings import Profile
from tasks.stages.rankings import RankingStage, ranking_protocol
from tasks.stages.stage import Stage, in_order
from tasks.stages.verifications import VerificationStage
from tasks.stages.verified import VerifiedStage
from tests.fakes.drawn import small_settings
from tests.fakes.filled_tables import fill
from tests.fakes.verifiers import save_blip_itm, save_qwen3_vl

SIZE = WorldSize(subsets=3, circo_queries=2, fashion_queries=2, distractors=12)
FIRST = 4
"""Images that are verified."""
METHOD = "image-text-sum+verify"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world and a verifier with random weights."""
    folder = tmp_path_factory.mktemp("verify")
    write_world(folder / "world", SIZE, seed=71)
    save_qwen3_vl(folder / "verifier")
    return folder


@pytest.fixture(scope="module")
def profile(folder: Path) -> Profile:
    """The tiny profile with it, whose world is ingested."""
    profile = resolve_profile("tiny", settings_of(folder))
    ref = reference(folder)
    ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
    return profile


def settings_of(folder: Path) -> dict[str, Any]:
    return small_settings(folder / "tables") | {
        "verify.verifier.model": str(folder / "verifier"),
        "verify.candidates": FIRST,
        "verify.fusing.rule": "replace",
        "shards.verifications": 9,
    }


def reference(folder: Path) -> BenchmarkRef:
    return BenchmarkRef(name="cirr", root=str(folder / "world" / "cirr"))


def ranked(profile: Profile, folder: Path, *methods: str) -> tuple[list[RankingStage], int]:
    """The rankings of some methods, filled; and how many pairs were verified for them."""
    plan = plan_evaluation(profile, reference(folder), methods)
    made = [(stage, fill(stage)) for stage in in_order(plan.rankings)]
    return list(plan.rankings), sum(n for s, n in made if isinstance(s, VerificationStage))


def rows_of(stage: Stage) -> dict[str, dict[str, Any]]:
    return {row["query_id"]: row for row in stage.table().read(keys=stage.planned()).to_dicts()}


@pytest.fixture(scope="module")
def both(profile: Profile, folder: Path) -> tuple[RankingStage, VerifiedStage]:
    """The ranking of the sum, and with the verifier."""
    (first, second), made = ranked(profile, folder, "image-text-sum", METHOD)
    assert isinstance(second, VerifiedStage)
    assert made == len(second.verifications.pairs()) > 0
    return first, second


def test_the_best_images_are_ordered_by_the_model_itself(
    both: tuple[RankingStage, VerifiedStage], profile: Profile, folder: Path
) -> None:
    """Margins one pair at a time through transformers; the images behind the first K stay."""
    first, second = both
    assert second.verifications.first.spec_key == first.spec_key
    margins = _margins_of_the_library(profile, folder, first, second)
    before, after = rows_of(first), rows_of(second)
    moved = 0
    for query in load_query_set(profile.root, reference(folder)).benchmark.queries:
        old, new = before[query.query_id], after[query.query_id]
        own = margins[query.query_id]
        wanted = sorted(old["names"][:FIRST], key=lambda name: -own[name])
        assert new["names"] == wanted + old["names"][FIRST:]
        assert new["scores"][FIRST:] == old["scores"][FIRST:]
        np.testing.assert_allclose(new["scores"][:FIRST], [own[n] for n in wanted], atol=1e-3)
        assert new["subset_names"] == sorted(old["subset_names"], key=lambda name: -own[name])
        moved += new["names"] != old["names"]
    assert moved


def _margins_of_the_library(
    profile: Profile, folder: Path, first: RankingStage, second: VerifiedStage
) -> dict[str, dict[str, float]]:
    """Query id -> image name -> logit(yes) - logit(no) by the library's own forward pass."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder / "verifier").eval()
    processor = AutoProcessor.from_pretrained(folder / "verifier")
    yes, no = (processor.tokenizer(f" {w}").input_ids[-1] for w in ("yes", "no"))
    query_set = load_query_set(profile.root, reference(folder))
    paths = query_set.benchmark.image_paths
    found: dict[str, dict[str, float]] = {}
    for query in query_set.benchmark.queries:
        row = rows_of(first)[query.query_id]
        found[query.query_id] = {}
        for name in {*row["names"][:FIRST], *row["subset_names"]}:
            pictures = [Image.open(paths[each]).convert("RGB") for each in (query.reference, name)]
            parts = [{"type": "text", "text": query.texts[0]}, {"type": "image"}, {"type": "image"}]
            chat = processor.apply_chat_template(
                [{"role": "user", "content": parts}], add_generation_prompt=True
            )
            inputs = processor(
                text=[chat], images=pictures, add_special_tokens=False, return_tensors="pt"
            )
            with torch.no_grad():
                logits = model(**inputs).logits[0, -1].float()
            found[query.query_id][name] = float(logits[yes] - logits[no])
    return found


def test_a_rerun_makes_nothing_and_another_k_what_is_new(
    both: tuple[RankingStage, VerifiedStage], profile: Profile, folder: Path
) -> None:
    _, second = both
    assert ranked(profile, folder, METHOD)[1] == 0
    more = profile.changed(verify=profile.verify.changed(candidates=FIRST + 2))
    (deeper,), made = ranked(more, folder, METHOD)
    assert isinstance(deeper, VerifiedStage)
    new = deeper.verifications.pairs().keys() - second.verifications.pairs().keys()
    assert made == len(new) > 0
    # Another method asks for the pairs that neither has asked for.
    known = {*deeper.verifications.pairs(), *second.verifications.pairs()}
    (other,), made = ranked(profile, folder, "text-only+verify")
    assert isinstance(other, VerifiedStage)
    assert made == len(other.verifications.pairs().keys() - known)
    assert other.verifications.spec_key == second.verifications.spec_key


def test_another_rule_asks_nothing(profile: Profile, folder: Path) -> None:
    fusing = profile.verify.fusing.changed(rule="minmax", weight=0.0)
    own = profile.changed(verify=profile.verify.changed(fusing=fusing))
    (first, same), made = ranked(own, folder, "image-text-sum", METHOD)
    assert made == 0
    assert [r["names"] for r in rows_of(same).values()] == [
        r["names"] for r in rows_of(first).values()
    ]


def test_the_pairs_of_a_query_are_made_together(
    both: tuple[RankingStage, VerifiedStage],
) -> None:
    stage = both[1].verifications
    pairs = stage.pairs()
    order = [pairs[key].query for key in stage.read_order(sorted(pairs))]
    changes = sum(a != b for a, b in pairwise(order))
    assert changes == len(set(order)) - 1


def test_what_a_result_says(
    both: tuple[RankingStage, VerifiedStage], profile: Profile, folder: Path
) -> None:
    from tasks.report.example_queries import example_queries
    from tasks.scoring.costs import query_cost, table_costs

    first, second = both
    protocol = ranking_protocol(second)
    assert protocol["verification"]["candidates"] == FIRST
    assert protocol["verification"]["rule"] == "replace"
    assert "not_verified" not in protocol
    assert made_by(second)["verifier"].endswith(f"over the first {FIRST}, replace")
    assert score_ranking(second).metrics["recall@50"] == score_ranking(first).metrics["recall@50"]
    assert why_not_ready(METHOD, profile) == label_of(METHOD, profile) == ""
    (strip, *_) = example_queries(second)
    assert strip.method == "Image + text sum + verify"
    assert all(isinstance(r.verdict, float) for r in strip.results[:FIRST])
    assert [r.verdict for r in example_queries(first)[0].results] == [None] * 6
    assert query_cost(second, table_costs([second])).calls is None  # filled here without notes


def test_a_pair_without_a_verdict_keeps_its_place_and_is_counted(
    profile: Profile, folder: Path, tmp_path: Path
) -> None:
    """A text that names the picture's token is refused by the verifier, and nothing else is."""
    from tasks.scoring.ledger import label_of as label

    own = profile.changed(root=str(tmp_path / "tables"))
    ref = reference(folder)
    ingest(Location(own.root), image_folder(ref.load()), ref.collection_name)
    plan = plan_evaluation(own, ref, [METHOD])
    (second,) = plan.rankings
    assert isinstance(second, VerifiedStage)
    *upstream, verifications = plan.upstream
    assert isinstance(verifications, VerificationStage)
    for stage in upstream:
        fill(stage)
    pairs = verifications.pairs()
    asked = sorted({pair.query for pair in pairs.values()})
    table = verifications.table()
    for shard in table.plan(verifications.planned(), 1000).shards:
        rows = verifications.rows(shard.members, lambda count: None).to_pylist()
        for row in rows:
            if (row["reference"], row["text"]) == asked[0]:
                row |= {"margin": None, "mass": None, "status": "rejected", "reason": "refused"}
        names = table.schema.columns
        table.publish(shard, table.rows(**{n: [row[n] for row in rows] for n in names}))
    fill(second)
    before, after = rows_of(verifications.first), rows_of(second)
    items = load_query_set(own.root, ref).items
    (untouched,) = [
        key for (_, key), item in items.items() if (item.image_id, item.texts[0]) == asked[0]
    ]
    assert after[untouched]["names"] == before[untouched]["names"]
    lacking = sum(pair.query == asked[0] for pair in pairs.values())
    protocol = ranking_protocol(second)
    assert protocol["not_verified"] == {"pairs": len(pairs), "lacking": lacking}
    assert f"{lacking} of {len(pairs)} candidates were not verified" in label(protocol)


def test_a_sweep_scores_every_order_as_the_stage_does(
    both: tuple[RankingStage, VerifiedStage], profile: Profile, folder: Path
) -> None:
    from tasks.scoring.verify_sweeps import sweep_verified, verify_grid

    first, second = both
    grid = verify_grid(FIRST, [0.0, 0.5, 1.0])
    rows = sweep_verified(second, grid)
    assert len(rows) == len(grid)
    (alone,) = [row for row in rows if row["candidates"] == 0]
    assert alone["recall@1"] == pytest.approx(score_ranking(first).metrics["recall@1"], abs=1e-3)
    (own,) = [r for r in rows if r["candidates"] == FIRST and r["rule"] == "replace"]
    metrics = score_ranking(second).metrics
    shown = {n: v for n, v in own.items() if n in metrics}
    assert shown == pytest.approx({n: metrics[n] for n in shown}, abs=1e-3)
    assert len(shown) > 3


def test_a_search_orders_as_the_benchmark_does(profile: Profile, folder: Path) -> None:
    from tasks.search_gallery import search_gallery

    (second,), _ = ranked(profile, folder, METHOD)
    query_set = load_query_set(profile.root, reference(folder))
    query = query_set.benchmark.queries[0]
    gallery = gallery_stages(profile, "cirr-val", METHOD)
    for stage in in_order(gallery.values()):
        fill(stage)
    image = Path(query_set.benchmark.image_paths[query.reference]).read_bytes()
    result = search_gallery(profile, "cirr-val", gallery, image, query.text, method=METHOD, k=6)
    row = rows_of(second)[query.query_id]
    assert [hit.image_id for hit in result.hits] == [
        query_set.image_ids[name] for name in row["names"][:6]
    ]
    np.testing.assert_allclose([h.score for h in result.hits], row["scores"][:6], atol=1e-4)
    assert [hit.verdict is not None for hit in result.hits] == [True] * FIRST + [False] * 2


@pytest.mark.slow
def test_a_matcher_reads_the_edited_caption(profile: Profile, folder: Path) -> None:
    """BLIP's image-text matching gets the query's edited caption; the library says the same."""
    import torch
    from transformers import AutoProcessor, BlipForImageTextRetrieval

    from tasks.stages.query_features import Tables, answers_of

    place = save_blip_itm(folder / "itm")
    changed = settings_of(folder) | {
        "verify.verifier.engine": "blip-itm",
        "verify.verifier.model": str(place),
        "verify.candidates": 2,
    }
    own = resolve_profile("tiny", changed)
    (second,), made = ranked(own, folder, METHOD)
    assert isinstance(second, VerifiedStage)
    stage = second.verifications
    assert made == len(stage.pairs())
    assert stage.edits is not None
    query_set = load_query_set(own.root, reference(folder))
    texts = answers_of(stage.edits, list(query_set.items.values()), Tables())
    model = BlipForImageTextRetrieval.from_pretrained(place).eval()
    processor = AutoProcessor.from_pretrained(place)
    paths = {query_set.image_ids[n]: path for n, path in query_set.benchmark.image_paths.items()}
    margins = stage.read().by_pair
    item = next(each for each in query_set.items.values() if texts[each.key])
    own_pairs = [p for p in stage.pairs().values() if p.query == (item.image_id, item.texts[0])]
    for pair in own_pairs:
        picture = Image.open(paths[pair.candidate]).convert("RGB")
        inputs = processor(images=picture, text=texts[item.key][0], return_tensors="pt")
        with torch.no_grad():
            no, yes = model(**inputs, use_itm_head=True).itm_score[0].tolist()
        found, _ = margins[(*pair.query, pair.candidate)]
        assert found == pytest.approx(yes - no, abs=1e-4)
    assert len(own_pairs) > 2
