"""Files for the evaluation servers of benchmarks whose targets are hidden."""

from __future__ import annotations

from pathlib import Path

from storage.benchmarks.registry import benchmark_facts
from storage.benchmarks.submissions import write_submission
from tasks.scoring.scores import read_ranking
from tasks.stages.rankings import RankingStage


def write_submissions(stage: RankingStage, out: Path) -> list[Path]:
    """Write the validated files of a complete ranking, one folder per method below `out`.

    Returns:
        Their paths; none where the benchmark has no server.

    Raises:
        SubmissionError: The server would reject or misread a file.
    """
    write = benchmark_facts(stage.benchmark.name).submission
    if write is None:
        return []
    ranked = read_ranking(stage)
    files = write(stage.benchmark.load(), ranked.lists, ranked.subset_lists)
    return list(write_submission(files, out / "submissions" / stage.method))
