"""Three small drawn benchmarks, from pictures to scores, judged by a naive recomputation.

The judge reads the published feature files with polars, adds unit vectors up in float64, sorts
whole galleries by cosine and compares names. It knows equations 8 to 10, nothing of the code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from embedded_world.benchmarks import WorldSize, write_world
from flows.profiles import resolve_profile
from storage.benchmarks.records import Benchmark, Query
from storage.locations.location import Location
from storage.tables.keys import content_key
from storage.tables.listing import list_tables
from tasks.query_sets import BenchmarkRef
from tasks.scoring.ledger import read_ledger
from tasks.settings import Profile
from tasks.stages.rankings import RankingStage
from tests.fakes.drawn import small_settings

if TYPE_CHECKING:
    from flows.score_benchmark import Outcome

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

METHODS = ("image-only", "text-only", "lincir", "cvsi")
STYLES = ("cirr", "circo", "fashioniq")
SIZE = WorldSize(subsets=9, circo_queries=5, fashion_queries=3, distractors=20)


@dataclass(frozen=True)
class Ran:
    """Two runs of one evaluation, and one of the splits without public targets."""

    profile: Profile
    first: Outcome
    second: Outcome
    hidden: Outcome
    ledger: tuple[pl.DataFrame, pl.DataFrame]
    out: Path


@pytest.fixture(scope="module")
def ran(prefect_api: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Everything that the tests look at, made once."""
    from prefect import flow
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    from flows.score_benchmark import evaluate

    out = tmp_path_factory.mktemp("evaluation")
    settings = small_settings(out / "tables", captions=2, shard=128)
    profile = resolve_profile("tiny", settings | {"captions.max_new_tokens": 30})
    roots = write_world(out / "world", SIZE, seed=41)

    @flow
    def twice() -> Ran:
        public = [ref(name, "val") for name in STYLES]
        first = evaluate(profile, public, METHODS, out / "report", "small worlds")
        before = ledger_rows(profile)
        second = evaluate(profile, public, METHODS, out / "again", "small worlds")
        after = ledger_rows(profile)
        servers = [ref("cirr", "test1"), ref("circo", "test")]
        hidden = evaluate(profile, servers, ["cvsi"], out / "hidden", "small worlds")
        return Ran(profile, first, second, hidden, (before, after), out)

    def ref(name: str, split: str) -> BenchmarkRef:
        return BenchmarkRef(name=name, root=str(roots[name]), split=split)

    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: out / "prefect-results"}):
        return twice()


def ledger_rows(profile: Profile) -> pl.DataFrame:
    return pl.read_parquet(f"{profile.root}/results/*/*.parquet").sort("result_key")


# --------------------------------------------------------------------------- the naive judge


class Naive:
    """Scores one ranking again, from the published features alone."""

    def __init__(self, profile: Profile, stage: RankingStage) -> None:
        """Read every feature file that the stage names."""
        self.profile = profile
        self.stage = stage
        self.benchmark: Benchmark = stage.benchmark.load()
        self.ids = {
            name: hashlib.sha256(Path(path).read_bytes()).hexdigest()
            for name, path in self.benchmark.image_paths.items()
        }
        self.query = {n: self._read(s.table().folder) for n, s in stage.query_features.items()}
        self.gallery = {n: self._read(s.table().folder) for n, s in stage.gallery_features.items()}

    def _read(self, folder: str) -> dict[str, np.ndarray]:
        frame = pl.read_parquet(f"{self.profile.root}/{folder}/part-*.parquet")
        assert frame["status"].unique().to_list() == ["ok"]
        keys = frame.columns[0]
        vectors = frame["vector"].to_numpy().astype(np.float64)
        return dict(zip(frame[keys].to_list(), vectors, strict=True))

    def weights(self) -> tuple[dict[str, float], dict[str, float]]:
        """Equations 8 and 9 for CVSI; the other methods are one feature against the images."""
        if self.stage.method != "cvsi":
            one = {"image-only": "reference_image", "text-only": "text", "lincir": "pseudo"}
            return {one[self.stage.method]: 1.0}, {"image": 1.0}
        w = self.profile.cvsi.weights[self.benchmark.family]
        query = {
            "edited_captions": w.alpha,
            "fine_grained": w.beta,
            "reference_image": round(1 - w.alpha - w.beta, 9),
        }
        gallery = {"captions": w.gamma, "image": 1 - w.gamma}
        return {n: v for n, v in query.items() if v}, {n: v for n, v in gallery.items() if v}

    def ranking(self, query: Query, names: Sequence[str]) -> list[str]:
        """All names, best first, ties in gallery order, the reference out where it must be."""
        ours, theirs = self.weights()
        texts = list(query.texts)
        key = content_key({"image": self.ids[query.reference], "texts": texts})
        wanted = sum(w * unit(self.query[n][key]) for n, w in ours.items())
        rows = [
            sum(w * unit(self.gallery[n][self.ids[name]]) for n, w in theirs.items())
            for name in names
        ]
        cosines = np.array([unit(row) @ unit(wanted) for row in rows])
        ordered = [names[i] for i in np.argsort(-cosines, kind="stable")]
        return [n for n in ordered if self.benchmark.family != "cirr" or n != query.reference]

    def metrics(self) -> dict[str, float]:
        """The benchmark's main numbers by walking lists of names."""
        ranked = {
            (q.category, q.query_id): self.ranking(q, self.benchmark.galleries[q.category])
            for q in self.benchmark.queries
        }
        found: dict[str, float] = {}
        if self.benchmark.family == "cirr":
            for k in (1, 5, 10, 50):
                found[f"recall@{k}"] = self._recall(ranked, k)
            for k in (1, 2, 3):
                inside = {
                    (q.category, q.query_id): [
                        n for n in ranked[q.category, q.query_id] if n in q.subset
                    ]
                    for q in self.benchmark.queries
                }
                found[f"recall_subset@{k}"] = self._recall(inside, k)
        if self.benchmark.family == "circo":
            for k in (5, 10, 25, 50):
                found[f"map@{k}"] = 100 * float(
                    np.mean(
                        [
                            precision(ranked["", q.query_id], q.targets, k)
                            for q in self.benchmark.queries
                        ]
                    )
                )
        if self.benchmark.family == "fashioniq":
            for k in (10, 50):
                for category in self.benchmark.galleries:
                    found[f"recall@{k}/{category}"] = self._recall(ranked, k, category)
        return found

    def _recall(
        self, ranked: Mapping[tuple[str, str], list[str]], k: int, category: str = ""
    ) -> float:
        asked = [q for q in self.benchmark.queries if q.category == category]
        return 100 * float(
            np.mean([q.targets[0] in ranked[q.category, q.query_id][:k] for q in asked])
        )


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.sqrt((vector * vector).sum())


def precision(ranked: Sequence[str], targets: Sequence[str], k: int) -> float:
    """Average precision at k, as CIRCO defines it: divided by min(k, targets)."""
    hits, total = 0, 0.0
    for place, name in enumerate(ranked[:k], 1):
        if name in targets:
            hits += 1
            total += hits / place
    return total / min(k, len(targets))


# --------------------------------------------------------------------------- what must hold


def all_rankings(outcome: Outcome) -> list[RankingStage]:
    return [stage for item in outcome.benchmarks for stage in item.rankings]


def test_metrics_and_top_lists_are_those_of_a_naive_recomputation(ran: Ran) -> None:
    scores = ran.first.as_json()["scores"]
    checked = 0
    for stage in all_rankings(ran.first):
        naive = Naive(ran.profile, stage)
        reported = scores[stage.benchmark.collection_name][stage.method]
        expected = naive.metrics()
        assert expected == pytest.approx({name: reported[name] for name in expected}, abs=1e-9)
        rows = pl.read_parquet(f"{ran.profile.root}/{stage.table().folder}/part-*.parquet")
        for query in naive.benchmark.queries[:3]:
            key = f"{query.category}/{query.query_id}" if query.category else query.query_id
            row = rows.filter(pl.col("query_id") == key).to_dicts()[0]
            whole = naive.ranking(query, naive.benchmark.galleries[query.category])
            assert row["names"] == whole[: len(row["names"])]
            assert len(row["names"]) == min(50, len(whole))
            assert row["subset_names"] == [name for name in whole if name in query.subset]
            checked += 1
    assert checked == len(METHODS) * (3 + 3 + 3)


def test_every_query_is_ranked(ran: Ran) -> None:
    for stage in all_rankings(ran.first) + all_rankings(ran.hidden):
        benchmark = stage.benchmark.load()
        rows = pl.read_parquet(f"{ran.profile.root}/{stage.table().folder}/part-*.parquet")
        own = {f"{q.category}/{q.query_id}".lstrip("/") for q in benchmark.queries}
        assert set(rows["query_id"]) == own
        assert len(rows) == len(own)
        assert rows["status"].unique().to_list() == ["ok"]
    assert len(all_rankings(ran.first)) == len(METHODS) * len(STYLES)


def test_the_audit_counts_what_the_published_rankings_hold(ran: Ran) -> None:
    for item in ran.first.benchmarks:
        said = ran.first.as_json()["audits"][item.ref.title]
        names = {stage.method: top_names(ran.profile, stage) for stage in item.rankings}
        for at in said["solved"]:
            hits = {
                method: {
                    place
                    for place, query in enumerate(item.ref.load().queries)
                    if {*query.targets} & {*own[place][: at["depth"]]}
                }
                for method, own in names.items()
            }
            image, text = hits["image-only"], hits["text-only"]
            assert [at["image"], at["text"], at["both"]] == [
                len(image), len(text), len(image & text)
            ]  # fmt: skip
            assert at["left"] == len(item.ref.load().queries) - len(image | text)
            for method in METHODS:
                own = next(r for r in said["methods"][method] if r["depth"] == at["depth"])
                solved = len(hits[method])
                gap = (solved - len(image | text)) / solved if solved else None
                assert own["gap"] == pytest.approx(gap)


def top_names(profile: Profile, stage: RankingStage) -> list[list[str]]:
    """The ranked names of each query, in the benchmark's order."""
    frame = pl.read_parquet(f"{profile.root}/{stage.table().folder}/part-*.parquet")
    rows = dict(zip(frame["query_id"].to_list(), frame["names"].to_list(), strict=True))
    return [
        rows[f"{query.category}/{query.query_id}" if query.category else query.query_id]
        for query in stage.benchmark.load().queries
    ]


def test_the_second_run_reuses_all_and_adds_nothing_to_the_ledger(ran: Ran) -> None:
    assert sum(stage.made for stage in ran.first.log.stages) > 0
    assert [stage.title for stage in ran.second.log.stages if stage.made] == []
    assert [stage.title for stage in ran.second.log.stages if stage.failed] == []
    before, after = ran.ledger
    assert before.equals(after)
    assert before["result_key"].n_unique() == len(before)
    assert ran.first.as_json()["scores"] == ran.second.as_json()["scores"]


def test_the_ledger_says_what_was_scored_and_how(ran: Ran) -> None:
    entries = read_ledger(ran.profile.root)
    scores = ran.first.as_json()["scores"]
    assert len(entries) == len(METHODS) * len(STYLES)
    for entry in entries:
        said = scores[f"{entry['benchmark']}-{entry['split']}"][entry["method"]]
        assert {n: m["value"] for n, m in entry["metrics"].items()} == pytest.approx(said)
        assert all(m["low"] <= m["value"] <= m["high"] for m in entry["metrics"].values())
        assert entry["world"] == "embedded"
        assert entry["coverage"] == 1.0
        assert entry["protocol"]["exclude_reference"] == (entry["benchmark"] == "cirr")
        assert entry["queries"] == {"cirr": 18, "circo": 5, "fashioniq": 9}[entry["benchmark"]]


def test_submission_files_are_what_the_servers_take(ran: Ran) -> None:
    files = {path.name: json.loads(path.read_text()) for path in ran.hidden.submissions}
    assert set(files) == {
        "cirr_test1_recall.json",
        "cirr_test1_recall_subset.json",
        "circo_test.json",
    }
    stages = {stage.benchmark.name: stage for stage in all_rankings(ran.hidden)}
    cirr, circo = stages["cirr"].benchmark.load(), stages["circo"].benchmark.load()
    naive = Naive(ran.profile, stages["cirr"])
    for metric, depth in (("recall", 50), ("recall_subset", 3)):
        content = files[f"cirr_test1_{metric}.json"]
        assert (content.pop("version"), content.pop("metric")) == ("rc2", metric)
        assert set(content) == {query.query_id for query in cirr.queries}
        for query in cirr.queries:
            ranked = content[query.query_id]
            assert len(ranked) == len(set(ranked)) == depth
            assert query.reference not in ranked
            assert set(ranked) <= set(query.subset if depth == 3 else cirr.galleries[""])
        first = cirr.queries[0]
        whole = naive.ranking(first, cirr.galleries[""])
        kept = whole if depth == 50 else [name for name in whole if name in first.subset]
        assert content[first.query_id] == kept[:depth]
    content = files["circo_test.json"]
    assert set(content) == {str(i) for i in range(len(circo.queries))}
    for ranked in content.values():
        assert len(ranked) == len(set(ranked)) == 50
        assert all(isinstance(image, int) for image in ranked)
    assert ran.first.submissions == ()  # public targets are scored here, not uploaded


def test_the_report_is_one_file_that_says_what_it_is_about(ran: Ran) -> None:
    page = ran.first.report.read_text(encoding="utf-8")
    assert ran.first.report.parent == ran.out / "report"
    assert "embedded world" in page.lower()
    assert 'src="http' not in page
    scores = ran.first.as_json()["scores"]["circo-val"]["cvsi"]
    assert f"{scores['map@10']:.2f}" in page


def test_every_table_is_whole(ran: Ran) -> None:
    tables = list_tables(Location(ran.profile.root))
    assert {table.name for table in tables} == {
        "images",
        "sources",
        "captions",
        "rewrites",
        "image_features",
        "caption_features",
        "query_features",
        "rankings",
        "results",
        "evaluations",
    }
    assert all(table.unreadable == 0 for table in tables)
