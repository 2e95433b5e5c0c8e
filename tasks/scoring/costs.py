"""What a query of a method costs, from the notes of the tables behind its ranking.

CVSI's Table V: hours of training, seconds of captioner and language model for a query, and seconds
of retrieval. Figures are those of one query on its own: a query needs one captioned image, as many
answers as its method asks for, one vector of each feature, and one search, each at the mean of the
table that holds it. What is made once for a gallery is not a part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from storage.tables.costs import Cost, TableCost
from tasks.scoring.scores import MethodScores
from tasks.stages.captions import CaptionStage
from tasks.stages.concepts import ConceptPhraseStage, ConceptVectorStage
from tasks.stages.looks import LookStage
from tasks.stages.query_features import token_networks
from tasks.stages.questions import QuestionStage
from tasks.stages.rankings import RankingStage
from tasks.stages.reformulation_features import ReformulatedQueryStage
from tasks.stages.rerank_scores import RerankScoreStage
from tasks.stages.rewrites import RewriteStage
from tasks.stages.stage import Stage, in_order
from tasks.training.spent import training_hours

Costs = Mapping[str, TableCost]
"""Costs of tables by the address of their folder."""


@dataclass(frozen=True)
class QueryCost:
    """What one query of a method costs; None is a figure that was not recorded.

    Attributes:
        training_hours: of the mapping network, or of the reformulation network; 0 without one.
        calls: of captioner, language model and verifier.
        prompt_tokens: that they read.
        answer_tokens: that they wrote.
        text_seconds: of captioner and language model: time of models in the process, or of waiting
            for a server.
        encoding_seconds: of the query's image and texts.
        search_seconds: of fusion and ranking, and of a second stage over the best images.
        index_seconds: for each image of the gallery, captions included; paid once.
        unknown: what was not recorded, in words.
    """

    training_hours: float | None
    calls: float | None
    prompt_tokens: float | None
    answer_tokens: float | None
    text_seconds: float | None
    encoding_seconds: float | None
    search_seconds: float | None
    index_seconds: float | None
    unknown: tuple[str, ...] = ()

    @property
    def retrieval_seconds(self) -> float | None:
        """Encoding and search: the paper's retrieval time."""
        return _sum((self.encoding_seconds, self.search_seconds))

    @property
    def seconds(self) -> float | None:
        """All that a query waits for."""
        return _sum((self.text_seconds, self.retrieval_seconds))

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        said = {f.name: _rounded(getattr(self, f.name)) for f in fields(self)}
        sums = {n: _rounded(getattr(self, n)) for n in ("retrieval_seconds", "seconds")}
        return {**said, **sums, "unknown": list(self.unknown)}


def table_costs(stages: Iterable[Stage]) -> dict[str, TableCost]:
    """Costs of the tables of some stages and of those behind them (one listing for each)."""
    return {_place(stage): stage.table().cost() for stage in in_order(stages)}


def query_cost(ranking: RankingStage, costs: Costs) -> QueryCost:
    """What a query of a ranking costs.

    Args:
        ranking: The ranking.
        costs: Costs of at least the tables behind it and of its own.
    """
    asked = in_order(ranking.query_features.values())
    kinds = (RankingStage, RerankScoreStage, LookStage)
    searches = [stage for stage in in_order([ranking]) if isinstance(stage, kinds)]
    made = {_place(stage): _each(stage, costs) for stage in (*asked, *searches)}
    texts = [stage for stage in asked if isinstance(stage, CaptionStage | RewriteStage)]
    drawn = [s for s in in_order([ranking]) if isinstance(s, QuestionStage) and s.generator]
    made |= {_place(stage): _each(stage, costs) for stage in drawn}
    # Concepts and their phrases are made once, and not for each query.
    once = (ConceptVectorStage, ConceptPhraseStage)
    others = [s for s in asked if s not in texts and not isinstance(s, once)]
    answers = [(made[_place(stage)], _needed(stage)) for stage in (*texts, *drawn)]
    looks = [s for s in searches if isinstance(s, LookStage)]
    asking = [*answers, *((made[_place(stage)], _needed(stage)) for stage in looks)]
    ranked = [(made[_place(stage)], _needed(stage)) for stage in searches]
    gallery = [_each(each, costs) for each in in_order(ranking.gallery_features.values())]
    trained = [training_hours(folder) for folder in sorted(_networks([*asked, *searches]))]
    silent = [
        stage.title
        for stage in in_order([*searches, *ranking.gallery_features.values()])
        if _each(stage, costs) is None
    ]
    untold = ["training time"] if None in trained else []
    return QueryCost(
        training_hours=_sum(trained),
        calls=_total(asking, "calls"),
        prompt_tokens=_total(asking, "prompt_tokens"),
        answer_tokens=_total(asking, "answer_tokens"),
        text_seconds=_total(answers, "engine_seconds"),
        encoding_seconds=_total([(made[_place(s)], 1.0) for s in others], "engine_seconds"),
        search_seconds=_total(ranked, "engine_seconds"),
        index_seconds=_total([(each, 1.0) for each in gallery], "engine_seconds"),
        unknown=(*untold, *dict.fromkeys(silent)),
    )


def run_costs(costs: Costs) -> list[dict[str, Any]]:
    """What each table took, each once, as plain JSON."""
    return [
        {"where": where, **cost.made.as_json(), "wasted": cost.wasted.as_json()}
        for where, cost in costs.items()
    ]


def with_cost(scores: MethodScores, cost: QueryCost) -> MethodScores:
    """Scores as the ledger keeps them: with what a query cost when they were recorded."""
    return replace(scores, protocol={**scores.protocol, "cost": cost.as_json()})


def recorded_costs(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Ranking -> `QueryCost.as_json` as the ledger holds it, of entries that have it."""
    said = {entry["run"]: entry["protocol"].get("cost") for entry in entries}
    return {run: cost for run, cost in said.items() if cost}


@dataclass(frozen=True)
class _Mean:
    """Means for one question, or for one row where there are no questions."""

    calls: float
    prompt_tokens: float
    answer_tokens: float
    engine_seconds: float


def _each(stage: Stage, costs: Costs) -> _Mean | None:
    """The mean of a stage's table; None where no work on it was noted."""
    made = costs.get(_place(stage), TableCost()).made
    asks = isinstance(stage, (CaptionStage, RewriteStage, QuestionStage, LookStage))
    number = made.questions if asks else made.rows
    return _mean(made, number) if number else None


def _mean(made: Cost, number: int) -> _Mean:
    return _Mean(*(getattr(made, f.name) / number for f in fields(_Mean)))


def _needed(stage: Stage) -> float:
    """Questions of a stage that one query needs, on average."""
    if isinstance(stage, LookStage):
        return stage.calls_of_a_query
    if not isinstance(stage, RewriteStage):
        return 1.0
    captions = stage.captions.sampling.n if stage.content == "per_caption" else 1
    if not stage.all_orders:
        return float(captions)
    items = stage.queries.items(stage.root).values()
    return captions * sum(len(item.texts) for item in items) / max(1, len(items))


def _networks(stages: Sequence[Stage]) -> set[str]:
    """Folders of the networks that were trained for some features."""
    trained = (ReformulatedQueryStage, RerankScoreStage)
    networks = {s.network.checkpoint for s in stages if isinstance(s, trained)}
    return networks | set(token_networks(stages))


def _place(stage: Stage) -> str:
    return stage.location.join(f"{stage.table_name}/{stage.spec_key}")


def _total(parts: Iterable[tuple[_Mean | None, float]], name: str) -> float | None:
    known = list(parts)
    if any(mean is None for mean, _ in known):
        return None
    return sum((getattr(mean, name) * number for mean, number in known), 0.0)


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum((v for v in known if v is not None), 0.0)


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
