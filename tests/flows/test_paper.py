"""A paper's page: what is shown of an empty ledger, and what is made first."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from embedded_world.benchmarks import WorldSize, write_world
from flows.forms import BenchmarkChoice
from flows.requests.paper import paper as asked
from models.retrieval.paper_tables import PAPER_TABLES


@pytest.mark.parametrize(("name", "tables"), [("cvsi", 5), ("instructcir", 5)])
def test_an_empty_ledger_gives_every_table_and_a_reason_for_every_row(
    name: str, tables: int, tmp_path: Path
) -> None:
    from flows.paper import paper
    from tasks.unrecorded import run_unrecorded

    given = {
        "paper": name,
        "make": False,
        "settings": {"root": str(tmp_path / "tables")},
        "out": str(tmp_path / "out"),
    }
    result = run_unrecorded(paper, given)
    assert result["stages"] == []
    files = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(files) == tables
    for file in files:
        frame = pl.read_parquet(file)
        assert frame["measured"].null_count() == frame.height
        assert frame.filter(pl.col("published").is_not_null())["reason"].null_count() == 0
    page = (tmp_path / "out" / "page.html").read_text()
    figures = {"cvsi": ("4a", "4b", "5"), "instructcir": ("1", "5", "6")}[name]
    assert all(f'id="figure-{number}"' in page for number in figures)


def test_only_the_papers_methods_and_its_two_kinds_of_test_texts_are_asked_for(
    tmp_path: Path,
) -> None:
    size = WorldSize(subsets=1, circo_queries=3, fashion_queries=1, distractors=8)
    drawn = write_world(tmp_path / "world", size, seed=3)
    benchmarks = [BenchmarkChoice(name=n, folder=str(p)) for n, p in drawn.items()]
    given = asked(
        "instructcir",
        benchmarks=benchmarks,
        settings={"root": str(tmp_path / "tables")},
        out=str(tmp_path / "out"),
    )
    whole, generated = given.evaluations(given.benchmarks)
    assert whole.methods == ("image-only", "text-only", "image-text-sum", "instructcir")
    # Each of the paper's other systems needs a network, a vocabulary or an editor of one's own.
    rows = {row.method for table in PAPER_TABLES["instructcir"] for row in table.rows}
    assert whole.left_out.keys() == rows - set(whole.methods)
    assert generated.methods == ("instructcir",)
    assert [(r.name, r.texts.source) for r in generated.refs] == [
        ("cirr", "generated"),
        ("fashioniq", "generated"),
    ]
