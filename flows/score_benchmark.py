"""Score methods on benchmarks: rankings, metrics in the ledger, submission files, a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect import flow, task

from flows.evaluation import plan_evaluation, runnable_methods
from flows.ingest_collection import run_ingest
from flows.profiles import resolve_profile
from flows.running import RunLog, run_stage, run_stages
from storage.benchmarks.submissions import circo_submission, cirr_submission, write_submission
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.report.build import EvaluatedBenchmark, build_report
from tasks.scores import MethodScores, read_ranking, record_scores, score_ranking
from tasks.settings import Profile
from tasks.stages.rankings import RankingStage


@dataclass(frozen=True)
class Outcome:
    """What an evaluation made.

    Attributes:
        benchmarks: per benchmark its rankings and scores.
        log: what each stage made, reused and failed to make.
        submissions: files for the benchmarks' servers.
        report: the HTML file.
    """

    benchmarks: tuple[EvaluatedBenchmark, ...]
    log: RunLog
    submissions: tuple[Path, ...]
    report: Path

    def as_json(self) -> dict[str, Any]:
        """A summary as plain JSON."""
        return {
            "report": str(self.report),
            "submissions": [str(path) for path in self.submissions],
            "stages": [stage.as_json() for stage in self.log.stages],
            "scores": {
                item.ref.collection_name: {
                    name: dict(scores.metrics) for name, scores in item.scores.items()
                }
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
) -> Outcome:
    """Rank, score and report some benchmarks. Runs inside a flow.

    Args:
        profile: engines, settings and where tables are kept.
        refs: the benchmarks.
        methods: names of `METHODS`.
        out: folder of the report and the submission files.
        title: heading of the report.
        hidden_methods: methods for benchmarks whose targets are hidden; None = `methods`.
        commands: what to type to get the same again, for the report.
    """
    log = RunLog()
    evaluated: list[EvaluatedBenchmark] = []
    files: list[Path] = []
    for ref in refs:
        benchmark = ref.load()
        run_ingest(profile.root, image_folder(benchmark), ref.collection_name)
        asked = methods if benchmark.has_targets or hidden_methods is None else hidden_methods
        plan = plan_evaluation(profile, ref, asked)
        run_stages(plan.upstream, log, profile.allow_gaps)
        for stage in plan.rankings:
            run_stage(stage, log, allow_gaps=profile.allow_gaps)
        if benchmark.has_targets:
            scores = {s.method: score_method(s) for s in plan.rankings}
        else:
            scores = {}
            files += [p for s in plan.rankings for p in write_submissions(s, out)]
        evaluated.append(EvaluatedBenchmark(ref, plan.rankings, scores))
    report = build_report(profile, evaluated, log.stages, out, title, commands)
    return Outcome(tuple(evaluated), log, tuple(files), report)


@task(task_run_name="score {stage.method} on {stage.benchmark.collection_name}")
def score_method(stage: RankingStage) -> MethodScores:
    """Score a ranking and keep the numbers in the ledger."""
    scores = score_ranking(stage)
    record_scores(stage, scores)
    return scores


@task(task_run_name="submission {stage.method} on {stage.benchmark.collection_name}")
def write_submissions(stage: RankingStage, out: Path) -> list[Path]:
    """Write the validated files for a benchmark's server, one folder per method."""
    benchmark = stage.benchmark.load()
    ranked = read_ranking(stage)
    folder = out / "submissions" / stage.method
    if benchmark.style == "cirr":
        made = cirr_submission(benchmark, ranked.lists[""], ranked.subset_lists[""])
        return list(write_submission(made, folder))
    if benchmark.style == "circo":
        return list(write_submission([circo_submission(benchmark, ranked.lists[""])], folder))
    return []


@flow(name="score-benchmark", flow_run_name="score {benchmark} {split}")
def score_benchmark(
    benchmark: Literal["cirr", "circo", "fashioniq"],
    folder: str,
    split: str = "val",
    methods: list[str] | None = None,
    profile: str = "tiny",
    settings: dict[str, Any] | None = None,
    out: str = "",
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Rank and score methods on a benchmark.

    Args:
        benchmark: Which benchmark.
        folder: The benchmark's folder in its published layout, images included.
        split: The split's published name; without public targets, submission files are written.
        methods: Names from `cirflow methods`; all that run if empty.
        profile: tiny, production, or a TOML file that extends one.
        settings: Dotted setting names and values that replace the profile's.
        out: Folder for the report and the submission files; empty: out/score/BENCHMARK-SPLIT.
        options: Protocol switches of the benchmark's loader.
    """
    chosen = resolve_profile(profile, settings)
    ref = BenchmarkRef(
        name=benchmark,
        root=str(Path(folder).resolve()),
        split=split,
        options=options or {},
        allow_missing=chosen.allow_missing_images,
    )
    outcome = evaluate(
        chosen,
        [ref],
        methods or runnable_methods(chosen),
        Path(out or f"out/score/{benchmark}-{split}"),
        f"{benchmark} {split}",
        commands=[
            f"cirflow run score-benchmark --profile {profile} --set benchmark={benchmark} "
            f"--set folder={folder} --set split={split}"
        ],
    )
    return outcome.as_json()
