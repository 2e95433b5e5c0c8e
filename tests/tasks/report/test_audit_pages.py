"""The audit of composition in the report's page, in Prefect's UI and as JSON."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.retrieval.metrics import NOT_RANKED
from storage.benchmarks.facts import Metrics
from tasks.report.records import Section
from tasks.scoring.audit import audit_scores
from tasks.scoring.scores import MethodScores
from tests.fakes.report_data import report, row

CHOSEN = Metrics(main="recall@1", recalls=(1, 2))
FOUND = {
    "image-only": [0, 1, NOT_RANKED, NOT_RANKED],
    "text-only": [0, NOT_RANKED, 1, NOT_RANKED],
    "cvsi": [1, 0, 0, 0],
}


def scores(hits: list[int]) -> MethodScores:
    ranks = np.array(hits)
    single = {f"recall@{k}": (ranks < k).astype(float) for k in (1, 2)}
    return MethodScores({}, {}, {}, len(hits), 1.0, {}, [single], [ranks])


def section(*methods: str) -> Section:
    rows = tuple(replace(row(name, "method", 10.0), metrics={"recall@1": 10.0}) for name in methods)
    found = {name: scores(FOUND[name]) for name in methods}
    return Section("cirr", "CIRR", "recall@1", rows, audit=audit_scores(CHOSEN, found))


def test_counts_and_methods_stand_in_page_and_artifact() -> None:
    from tasks.report.audit import audit_markdown, rest_columns, rest_rows, solved_rows
    from tasks.report.render import render_report

    shown = section(*FOUND)
    assert shown.audit is not None
    assert solved_rows(shown.audit) == [
        ("1", "1 (25.0 %)", "1 (25.0 %)", "1 (25.0 %)", "1 (25.0 %)", "3 (75.0 %)"),
        ("2", "2 (50.0 %)", "2 (50.0 %)", "3 (75.0 %)", "1 (25.0 %)", "1 (25.0 %)"),
    ]
    assert rest_columns(shown.audit)[::2] == ("recall@1, 3 left at 1", "recall@1, 1 left at 2")
    cvsi = next(cells for cells in rest_rows(shown) if cells[0] == "Cvsi")
    assert cvsi[1] == cvsi[3] == "100.00 [100.0, 100.0]"
    assert cvsi[2].startswith("0.67 [")
    assert cvsi[4].startswith("0.25 [")
    page = render_report(report(sections=(shown,)))
    for said in ("What needs composition", "3 (75.0 %)", "100.00 [100.0, 100.0]"):
        assert said in page
    short = audit_markdown(shown)
    assert "| 1 | 1 (25.0 %) |" in short
    assert "1 left at 2" not in short
    assert shown.audit.as_json()["solved"][1] == {
        "depth": 2, "queries": 4, "image": 2, "text": 2, "both": 1, "either": 3, "left": 1,
    }  # fmt: skip
    assert [at["value"] for at in shown.audit.as_json()["methods"]["cvsi"]] == [100.0, 100.0]


def test_without_a_single_modality_the_report_says_which_method_to_add() -> None:
    from tasks.report.artifact import section_markdown
    from tasks.report.render import render_report
    from tests.tasks.report.test_evaluation_pages import REPORT

    shown = section("image-only", "cvsi")
    said = "score text-only as well"
    page = render_report(report(sections=(shown,)))
    assert said in page
    assert "left at" not in page
    assert said in section_markdown(shown, REPORT, False).replace("\\", "")
    assert shown.audit is not None
    assert shown.audit.as_json() == {"metric": "recall@1", "missing": ["text-only"]}
    both = section("cvsi").audit
    assert both is not None
    assert both.missing == ("image-only", "text-only")
