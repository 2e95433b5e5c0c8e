"""Published numbers next to results, as benchmarks and backbones are called here."""

from __future__ import annotations

from pathlib import Path

from tasks.query_sets import WORLD_NOTE, BenchmarkRef
from tasks.scoring.published import published_for

L14, B32 = "ViT-L-14-quickgelu openai", "ViT-B-32-quickgelu openai"


def test_what_was_trained_on_top_does_not_change_the_backbone() -> None:
    found = published_for("circo", "test", "instructcir", f"{L14} + reformulation", drawn=False)
    assert found is not None
    assert found.text("map@10") == "13.84"
    both = published_for("circo", "test", "instructcir", f"{L14} & {B32}", drawn=False)
    assert both is not None
    assert both.text("map@10") == "13.84 (ViT-L/14, test)"


def test_a_benchmark_that_is_not_registered_has_no_published_numbers() -> None:
    assert published_for("sketches", "test", "cvsi", L14, drawn=False) is None


def lines(text: str) -> dict[str, list[str]]:
    """First cell -> the others, of a Markdown table."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in rows}


def test_methods_by_backbone_stand_next_to_numbers_of_these_backbones(tmp_path: Path) -> None:
    from flows.rerun_backbones import comparison

    scores = {"cvsi": 30.0, "lincir": 20.0, "cvsi-code": 10.0}
    new = {L14: scores, B32: scores}
    root = str(tmp_path / "tables")
    ref = BenchmarkRef(name="cirr", root=str(tmp_path), split="test1")
    got = lines(comparison(root, ref, new, {}))
    assert got["method"] == [f"**{L14}**", f"**{B32}**", "papers"]
    assert got["CVSI"][-1] == "33.81 (ViT-L/14, test1), 31.64 (ViT-B/32, test1)"
    assert got["LinCIR"][-1] == "25.04 (ViT-L/14, test1)"
    assert got["CVSI (released code)"][-1] == ""
    (tmp_path / WORLD_NOTE).write_text("{}")
    drawn = comparison(root, ref, new, {})
    assert "embedded world: not comparable with papers" in drawn
