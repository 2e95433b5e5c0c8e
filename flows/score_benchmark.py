"""Score methods on benchmarks: rankings, metrics in the ledger, submission files, a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from flows import run_names
from flows.ingest_collection import run_ingest
from flows.query_texts import paraphrased, with_texts
from flows.requests import score_benchmark as requests
from flows.requests.prepared import prepared_by
from flows.running import RunLog, run_stages
from flows.summaries import summed_up
from models.encoders.spec import EncoderSpec
from storage.benchmarks.registry import benchmark_facts
from tasks.artifact_keys import artifact_key
from tasks.artifacts import publish_markdown, stages_markdown
from tasks.backbone_names import folders_of, recognised, recognised_name
from tasks.explorer.evaluations import record_evaluation
from tasks.explorer.links import report_link
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.redacted import redacting
from tasks.report.artifact import section_markdown
from tasks.report.build import EvaluatedBenchmark, report_data, write_report
from tasks.report.markdown import plain
from tasks.report.records import ReportData
from tasks.scoring.audit import Audit
from tasks.scoring.costs import QueryCost, query_cost, run_costs, with_cost
from tasks.scoring.run import score_method
from tasks.scoring.scores import MethodScores, record_scores
from tasks.scoring.submissions import write_submissions
from tasks.scoring.wordings import Spreads, Wording
from tasks.settings import Profile
from tasks.stages.rankings import RankingStage, backbone_of
from tasks.unrecorded import run_task


@dataclass(frozen=True)
class Scored:
    """Rankings and their scores.

    Attributes:
        benchmarks: per benchmark its rankings and scores.
        log: rows that each stage made, reused and failed to make.
        submissions: files for the benchmarks' servers.
    """

    benchmarks: tuple[EvaluatedBenchmark, ...]
    log: RunLog
    submissions: tuple[Path, ...]


@dataclass(frozen=True)
class Outcome(Scored):
    """The results of an evaluation.

    Attributes:
        report: the HTML file.
        differs: benchmark -> method -> what tells its row from others of it in the ledger.
        audits: benchmark -> what one modality alone solves, and the methods on the rest.
        spreads: benchmark -> the methods over paraphrases of its texts.
    """

    report: Path
    differs: Mapping[str, Mapping[str, str]]
    audits: Mapping[str, Audit]
    spreads: Mapping[str, Spreads]

    def as_json(self) -> dict[str, Any]:
        """A summary as plain JSON."""
        return {
            "report": str(self.report),
            "submissions": [str(path) for path in self.submissions],
            "main_metrics": {
                item.ref.title: benchmark_facts(item.ref.name).metrics.main
                for item in self.benchmarks
            },
            "stages": [stage.as_json() for stage in self.log.stages],
            "costs": {
                "tables": run_costs(self.log.costs),
                "a query": {
                    item.ref.title: {m: c.as_json() for m, c in item.costs.items()}
                    for item in self.benchmarks
                },
            },
            "differs": {name: dict(own) for name, own in self.differs.items() if own},
            "paraphrases": {name: own.as_json() for name, own in self.spreads.items()},
            "audits": {name: audit.as_json() for name, audit in self.audits.items()},
            "scores": {
                item.ref.title: {name: dict(scores.metrics) for name, scores in item.scores.items()}
                for item in self.benchmarks
            },
        }


def evaluate(
    profile: Profile,
    refs: Sequence[BenchmarkRef],
    methods: Sequence[str],
    out: Path,
    title: str,
    *,
    hidden_methods: Sequence[str] | None = None,
    commands: Sequence[str] = (),
    retry_failed: bool = False,
    paraphrases: int = 0,
) -> Outcome:
    """Rank, score and report some benchmarks. Runs inside a flow.

    Args:
        profile: engines, settings and where tables are kept.
        refs: the benchmarks.
        methods: names of `METHODS`.
        out: folder of the report and the submission files.
        title: heading of the report.
        hidden_methods: methods for benchmarks whose targets are hidden; None = `methods`.
        commands: commands that give the same results again, for the report.
        retry_failed: make rows again that have failed before.
        paraphrases: also ask each query in so many other wordings of its text.
    """
    scored = rank_and_score(profile, refs, methods, out, hidden_methods, retry_failed, paraphrases)
    data = report_data(profile, scored.benchmarks, scored.log.stages, title, commands)
    report = write_report(data, out)
    differs = {s.name: {r.method: r.differs for r in s.rows if r.differs} for s in data.sections}
    audits = {s.name: s.audit for s in data.sections if s.audit}
    spreads = {s.name: s.spreads for s in data.sections if s.spreads}
    made = (scored.benchmarks, scored.log, scored.submissions)
    outcome = Outcome(*made, report, differs, audits, spreads)
    _show(data, outcome, profile.query_encoder)
    return outcome


def rank_and_score(
    profile: Profile,
    refs: Sequence[BenchmarkRef],
    methods: Sequence[str],
    out: Path,
    hidden_methods: Sequence[str] | None = None,
    retry_failed: bool = False,
    paraphrases: int = 0,
) -> Scored:
    """Rank and score some benchmarks, without a report; the arguments are those of `evaluate`."""
    log = RunLog()
    evaluated: list[EvaluatedBenchmark] = []
    files: list[Path] = []
    for ref in refs:
        benchmark = ref.load()
        run_ingest(profile.root, image_folder(benchmark), ref.collection_name)
        asked = methods if benchmark.has_targets or hidden_methods is None else hidden_methods
        ref = with_texts(profile, ref, log, retry_failed)
        plan = plan_evaluation(profile, ref, asked)
        run_stages(plan.rankings, log, profile.allow_gaps, retry_failed)
        costs = {stage.method: query_cost(stage, log.costs) for stage in plan.rankings}
        wordings: list[Wording] = []
        if benchmark.has_targets:
            scores = _scored(plan.rankings, costs)
            name = recognised_name(profile.query_encoder)
            record_evaluation(profile, plan.rankings, name, out)
            for other in paraphrased(profile, ref, paraphrases, log, retry_failed):
                again = plan_evaluation(profile, other, asked)
                run_stages(again.rankings, log, profile.allow_gaps, retry_failed)
                spent = {stage.method: query_cost(stage, log.costs) for stage in again.rankings}
                wordings.append(Wording.of(profile.root, other, _scored(again.rankings, spent)))
        else:
            scores = {}
            files += [p for s in plan.rankings for p in run_task(submit, s, out)]
        evaluated.append(EvaluatedBenchmark(ref, plan.rankings, scores, costs, tuple(wordings)))
    return Scored(tuple(evaluated), log, tuple(files))


def _scored(
    rankings: Sequence[RankingStage], costs: Mapping[str, QueryCost]
) -> dict[str, MethodScores]:
    """Method -> its scores, which the ledger then holds."""
    scores = {stage.method: run_task(score_method, stage) for stage in rankings}
    record_scores([(s, with_cost(scores[s.method], costs[s.method])) for s in rankings])
    return scores


def methods_elsewhere(rankings: Sequence[RankingStage], encoder: EncoderSpec) -> dict[str, str]:
    """The methods that do not use a backbone, each with its own.

    A reformulation network keeps to the one that it was trained on.
    """
    name, folders = recognised_name(encoder), folders_of(encoder)
    every = {stage.method: recognised(backbone_of(stage), folders) for stage in rankings}
    others = {m: b for m, b in every.items() if name not in b.split(" & ")}
    return {m: b for m, b in others.items() if not b.startswith(f"{name} ")}


def _show(data: ReportData, outcome: Outcome, encoder: EncoderSpec) -> None:
    """Leave a page for each benchmark in Prefect's UI, and one on the run's stages and files."""
    report, backbone = outcome.report.resolve(), recognised_name(encoder)
    rankings = {item.ref.title: item.rankings for item in outcome.benchmarks}
    for section in data.sections:
        text = section_markdown(section, report, data.embedded_world, report_link(report))
        if apart := methods_elsewhere(rankings.get(section.name, ()), encoder):
            said = "; ".join(f"{method}: {own}" for method, own in apart.items())
            text += f"\n\nNot on {plain(backbone)}, but on a backbone of their own: {plain(said)}."
        key = artifact_key("scores", section.name, backbone)
        publish_markdown(key, text, f"{section.title} on {backbone}")
    files = "".join(f"\n- {plain(path.resolve())}" for path in outcome.submissions)
    text = f"## {plain(data.title)}\n\n{stages_markdown([s.as_json() for s in outcome.log.stages])}"
    text += f"\n\n### Submission files\n{files}" if files else ""
    publish_markdown(artifact_key("run", data.title), text, f"What was made: {data.title}")


@task(
    task_run_name="submission {stage.method} on {stage.benchmark.collection_name}",
    cache_policy=NO_CACHE,
)
@redacting
def submit(stage: RankingStage, out: Path) -> list[Path]:
    """Write the files for a benchmark's server."""
    return write_submissions(stage, out)


@flow(
    name="score-benchmark",
    flow_run_name=run_names.score,
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.score_benchmark)
def score_benchmark(asked: requests.ScoreRequest) -> State[Any]:
    """Evaluate on one benchmark."""
    title = f"{asked.ref.name} {asked.ref.split}"
    outcome = evaluate(
        asked.profile,
        [asked.ref],
        asked.methods,
        asked.out,
        title,
        commands=[asked.command],
        retry_failed=asked.retry_failed,
        paraphrases=asked.paraphrases,
    )
    return summed_up(outcome.as_json())
