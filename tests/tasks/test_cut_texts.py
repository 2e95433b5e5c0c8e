"""Texts that a short context cuts are counted with the rows that they enter."""

from __future__ import annotations

from pathlib import Path

from models.encoders.spec import EncoderSpec
from storage.tables.costs import Cost, TableCost
from tasks.report.records import ReportData
from tasks.report.render import render_report
from tasks.stages.concepts import ConceptVectorStage
from tasks.stages.stage_report import StageReport
from tests.fakes.report_data import report, stage


def test_a_table_counts_the_texts_that_its_encoder_cut(tmp_path: Path) -> None:
    from models.textual_inversion.templates import TEMPLATES
    from tasks.stages.run import run_shard
    from tests.fakes.newer_towers import write_newer

    backbone = tmp_path / "backbone"
    backbone.mkdir()
    write_newer(backbone, "PE-Core")
    words = tmp_path / "words.txt"
    words.write_text("cat\n" + "cat " * 31 + "\n")  # 31 tokens, where the context has room for 30
    made = ConceptVectorStage(
        root=str(tmp_path / "root"),
        concepts=str(words),
        encoder=EncoderSpec(name=str(backbone), device="cpu"),
    )
    (shard,) = made.table().plan(made.planned(), made.shard_size).shards
    run_shard.fn(made, vars(shard))
    assert made.table().cost().made.cut_texts == len(TEMPLATES)


def test_a_run_says_how_many_texts_were_cut() -> None:
    from tasks.artifacts import stages_markdown

    whole = stage("captions", 30, 60, 10, 125.0, "runs/captions")
    cost = TableCost(made=Cost(5, cut_texts=1_234), wasted=Cost(5, cut_texts=7))
    cut = StageReport("query features", 5, 0, 5, 0, (), 1.0, "runs/features", cost)
    text = stages_markdown([whole.as_json(), cut.as_json()])
    assert [line.split(" | ")[-1] for line in text.splitlines()[2:4]] == ["0 |", "1234 |"]
    alone = stages_markdown([whole.as_json()])
    assert "cut" not in alone
    assert alone.splitlines()[2].endswith("| captions |")
    assert alone.splitlines()[-1] == "Tables lie below runs."
    page: ReportData = report(stages=(whole, cut))
    assert "1,234 texts cut at the context of the text tower" in render_report(page)
    assert "texts cut" not in render_report(report(stages=(whole,)))
