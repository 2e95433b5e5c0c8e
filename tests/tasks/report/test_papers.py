"""The papers' tables: what is printed, what was measured, and why the rest is missing."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from models.retrieval.paper_tables import PAPER_TABLES, PaperTable
from tasks.report.charts import Chart
from tasks.report.paper_figures import instructcir_figures
from tasks.report.paper_files import Page, latex, tidy, write_paper
from tasks.report.papers import filled, paper_costs

TABLES = [table for tables in PAPER_TABLES.values() for table in tables]
L14, G14 = "ViT-L-14-quickgelu openai", "ViT-bigG-14 laion2b_s39b_b160k"


def table(key: str) -> PaperTable:
    return next(table for table in TABLES if table.key == key)


def entry(method: str, backbone: str = L14, world: str = "real", **others: Any) -> dict[str, Any]:
    base = {
        "run": f"{method} {backbone} {others.get('split', 'val')}",
        "method": method,
        "backbone": backbone,
        "benchmark": "circo",
        "split": "val",
        "world": world,
        "zero_shot": True,
        "made": {"generator": "llama"},
        "differs": "",
        "metrics": {f"map@{k}": {"value": 10.0 + k} for k in (5, 10, 25, 50)},
    }
    return base | others


def test_every_row_is_printed_in_the_paper(shared_data: Path) -> None:
    """Each row's numbers stand in the paper's own text in this order."""
    for each in TABLES:
        text = (shared_data.parent / "papers" / f"{each.paper}.txt").read_text()
        numbers = " ".join(re.findall(r"\d+\.\d+|>>5", text))
        for row in each.rows:
            printed = [cell for cell in row.printed if cell]
            # A benchmark's columns may stand in tables or halves of their own.
            assert all(cell in numbers for cell in printed), (each.key, row.labels)


def test_the_layouts_are_those_of_the_papers() -> None:
    counts = {t.key: (len(t.rows), len(t.columns)) for t in TABLES}
    assert counts == {
        "cvsi-table-i": (22, 10),
        "cvsi-table-ii": (13, 8),
        "cvsi-table-iii": (8, 2),
        "cvsi-table-iv": (9, 4),
        "cvsi-table-v": (6, 5),
        "instructcir-table-ii": (20, 7),
        "instructcir-table-iii": (7, 4),
        "instructcir-table-iv": (13, 5),
        "instructcir-table-v": (3, 4),
        "instructcir-table-test-texts": (2, 4),
    }


@pytest.mark.parametrize("each", TABLES, ids=lambda t: t.key)
def test_a_row_is_filled_or_explained(each: PaperTable) -> None:
    found = filled(each, [entry("cvsi"), entry("image-only", "clip 01234567", "embedded")], {})
    for row in (*found.published, *found.measured):
        complete = all(m for m, p in zip(row.measured, row.printed, strict=True) if p or m)
        assert row.reason or (complete and any(row.measured)), row


def test_a_measured_number_stands_next_to_its_own_backbone_only() -> None:
    found = filled(table("cvsi-table-iii"), [entry("cvsi"), entry("cvsi", G14)], {})
    (row,) = [row for row in found.published if row.method == "cvsi"]
    number = row.measured[0]
    assert number is not None
    assert (number.value, number.split, number.run) == (20.0, "val", f"cvsi {L14} val")
    blocks = {(row.block, row.method) for row in found.measured if any(row.measured)}
    assert blocks == {(f"Measured here: {G14}", "cvsi")}


def test_the_papers_split_stands_before_another() -> None:
    hidden = entry("cvsi", split="test", metrics={"map@10": {"value": 28.0}})
    found = filled(table("cvsi-table-iii"), [hidden, entry("cvsi")], {})
    number = found.published[-1].measured[0]
    assert number is not None
    assert (number.value, number.split) == (28.0, "")


def test_drawn_numbers_never_stand_next_to_published_ones() -> None:
    found = filled(table("cvsi-table-i"), [entry("cvsi", world="embedded")], {})
    assert not any(any(row.measured) for row in found.published)
    assert {row.block for row in found.measured} == {f"Measured here: {L14}, embedded world"}


def test_another_text_generator_is_another_row() -> None:
    made = [
        entry("cvsi", run="a", made={"generator": "openai-server gpt-4o"}),
        entry("cvsi", run="b", made={"generator": "transformers llama"}),
    ]
    found = filled(table("cvsi-table-iv"), made, {})
    measured = {row.labels: row.measured[0] for row in found.published if any(row.measured)}
    assert set(measured) == {("GPT-4o",)}
    assert [row.labels for row in found.measured if any(row.measured)] == [
        ("CVSI, transformers llama",)
    ]


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ("openai-server gpt-4o", "GPT-4o"),
        ("openai-server openai/gpt-4o-2024-08-06", "GPT-4o"),
        ("openai-server gpt-4o-mini", ""),
        ("openai-server chatgpt-4o-latest", ""),
        ("openai-server gpt-3.5-turbo-0125", "GPT-3.5-Turbo"),
        ("openai-server gpt-3.5-turbo-instruct", ""),
        ("transformers meta-llama/Llama-2-70b-chat-hf", "Llama2-70B"),
        ("transformers Llama-2-70b-chat-hf 866c1ec7", "Llama2-70B"),
        ("transformers Llama-2-70b-chat-hf 866c1ec7 with adapter 01234567", ""),
        ("transformers meta-llama/Llama-2-7b-chat-hf", ""),
        ("openai-server gpt-4o and openai-server gpt-3.5-turbo", ""),
    ],
)
def test_a_text_generator_is_the_papers_by_its_own_names(words: str, row: str) -> None:
    found = filled(table("cvsi-table-iv"), [entry("cvsi", made={"generator": words})], {})
    assert [r.labels[0] for r in found.published if any(r.measured)] == ([row] if row else [])
    assert any(any(r.measured) for r in found.measured) == (not row)


def test_a_network_of_images_named_like_a_papers_row_is_none_of_its_rows() -> None:
    made = {"trained_on": "9 steps on 32,000 triplets of full and LAION-300k", "network": "n"}
    cirr = {"recall@1": {"value": 40.0}}
    own = entry("instructcir", benchmark="cirr", metrics=cirr, made=made)
    for key in ("instructcir-table-v", "instructcir-table-ii"):
        found = filled(table(key), [own], {})
        assert not any(any(row.measured) for row in found.published)
        assert any(any(row.measured) for row in found.measured)


CIRR = {"benchmark": "cirr", "metrics": {"recall@1": {"value": 40.0}}}


def test_architectures_trained_on_the_same_triplets_stand_together() -> None:
    """Table IV's swap: each model's own row, and neither fills a row of the paper."""
    made = {"trained_on": "9 steps on 6,000 triplets of sets", "network": "n"}
    own = [entry(name, made=made, **CIRR) for name in ("transagg", "instructcir")]
    found = filled(table("instructcir-table-iv"), own, {})
    assert not any(any(row.measured) for row in found.published)
    rows = [row.labels[:2] for row in found.measured if any(row.measured)]
    assert rows == [("TransAgg", made["trained_on"]), ("InstructCIR", made["trained_on"])]


@pytest.mark.parametrize(
    ("method", "zero_shot", "words", "filled_in"),
    [
        ("transagg", True, "published transagg.pt", True),
        ("transagg", True, "9 steps on 6,000 triplets of sets", False),
        ("clip4cir", False, "published combiner.pt and tuned_clip.pt", True),
        ("clip4cir", True, "published combiner.pt and tuned_clip.pt", False),
    ],
)
def test_a_composed_encoder_fills_its_row_where_it_is_the_published_one(
    method: str, zero_shot: bool, words: str, filled_in: bool
) -> None:
    own = entry(method, made={"trained_on": words, "network": "n"}, zero_shot=zero_shot, **CIRR)
    found = filled(table("instructcir-table-ii"), [own], {})
    (row,) = [row for row in found.published if row.method == method]
    assert any(row.measured) is filled_in
    assert any(any(row.measured) for row in found.measured) is not filled_in


def test_a_row_without_a_network_says_what_brings_one() -> None:
    found = filled(table("instructcir-table-ii"), [], {})
    reasons = {(row.method, row.block): row.reason for row in found.published}
    said = reasons["clip4cir", "Supervised"]
    assert "`cirflow import network clip4cir FILE` of the published one" in said
    assert "--set system=clip4cir` on BENCHMARK:train:FOLDER" in said
    assert "composed.clip4cir=FOLDER" in said
    assert (
        "`cirflow run train-reformulation` on triplets.json" in reasons["instructcir", "Zero-shot"]
    )


def test_a_row_of_the_paper_is_never_filled_from_two_ways_of_making() -> None:
    few, many = ({"target_captions": f"{n} nucleus", "generator": "llama"} for n in (1, 15))
    cirr = {
        "benchmark": "cirr",
        "metrics": {f"recall@{k}": {"value": 50.0 + k} for k in (1, 5, 10)},
    }
    made = [
        entry("cvsi", run="a", made=many),
        entry("cvsi", run="b", made=many, **cirr),
        entry("cvsi", run="c", made=few),
    ]
    found = filled(table("cvsi-table-i"), made, {})
    (row,) = [row for row in found.published if any(row.measured)]
    assert {number.run for number in row.measured if number} == {"a", "b"}  # not the last of CIRCO
    below = [row for row in found.measured if any(row.measured)]
    assert {number.run for row in below for number in row.measured if number} == {"c"}
    # Of two that fill as many columns, the last one.
    found = filled(table("cvsi-table-iii"), made, {})
    assert [n.run for n in found.published[-1].measured if n] == ["c"]


def test_numbers_that_are_not_zero_shot_are_rows_that_say_so() -> None:
    made = {"trained_on": "9 steps on 32,000 triplets", "network": "n", "texts": "annotated"}
    fashion = {"benchmark": "fashioniq", "metrics": {"recall@10/average": {"value": 60.0}}}
    cirr = {"benchmark": "cirr", "metrics": {"recall@1": {"value": 40.0}}}
    entries = [
        entry("instructcir", "clip 01234567", run="a", made=made, **cirr),
        entry("instructcir", "clip 01234567", run="b", made=made, zero_shot=False, **fashion),
    ]
    for key in ("instructcir-table-ii", "instructcir-table-iv", "instructcir-table-test-texts"):
        found = filled(table(key), entries, {})
        rows = [row for row in found.measured if any(row.measured)]
        labels = {tuple(n.run for n in row.measured if n): row.labels[0] for row in rows}
        assert set(labels) == {("a",), ("b",)}
        assert "not zero-shot" in labels["b",]
        assert "not zero-shot" not in labels["a",]


def test_a_row_that_does_not_say_its_texts_has_a_label() -> None:
    fashion = {"recall@10/average": {"value": 95.0}}
    own = entry("instructcir", "clip 01234567", "embedded", benchmark="fashioniq", metrics=fashion)
    found = filled(table("instructcir-table-test-texts"), [own], {})
    assert [row.labels for row in found.measured if any(row.measured)] == [("InstructCIR",)]


def test_costs_come_from_their_ranking() -> None:
    costs = {f"cvsi {L14} val": {"texts": 24.0, "retrieval": 0.05}}
    found = filled(table("cvsi-table-v"), [entry("cvsi")], costs)
    row = found.published[-1]
    assert [None if n is None else n.value for n in row.measured] == [None, 24.0, 0.05, 20.0, None]


def test_the_files_hold_the_same_numbers(tmp_path: Path) -> None:
    tables = tuple(filled(t, [entry("cvsi")], {}) for t in PAPER_TABLES["cvsi"])
    page = Page("cvsi", "CVSI", tables, (), False, "today")
    names = {path.name for path in write_paper(page, tmp_path)}
    assert names == {"page.html"} | {
        f"{t.key}.{kind}" for t in PAPER_TABLES["cvsi"] for kind in ("csv", "parquet", "tex")
    }
    frame = pl.read_parquet(tmp_path / "cvsi-table-iii.parquet")
    assert frame.equals(tidy(tables[2]))
    again = pl.read_csv(io.BytesIO((tmp_path / "cvsi-table-iii.csv").read_bytes()))
    assert again["measured"].to_list() == frame["measured"].to_list()
    row = frame.filter((pl.col("row") == "CVSI") & (pl.col("metric") == "map@10"))
    assert row.select("published", "measured", "measured_split").rows() == [("28.24", 20.0, "val")]
    html = (tmp_path / "page.html").read_text()
    assert ">28.24<" in html
    assert ">20.00<" in html


def test_latex_escapes_what_is_its_own() -> None:
    made = [entry("cvsi", made={"generator": "a_b 100%\n& {c}"})]
    text = latex(filled(table("cvsi-table-iv"), made, {}))
    assert "CVSI, a\\_b 100\\% \\& \\{c\\}" in text
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")


def test_costs_of_a_query_stand_in_table_v() -> None:
    known = entry("cvsi", "clip 01234567", "embedded")
    cost = {"training_hours": None, "text_seconds": 24.7, "retrieval_seconds": 0.05}
    shown = filled(table("cvsi-table-v"), [known], paper_costs({known["run"]: cost}))
    (row,) = (each for each in shown.measured if any(each.measured))
    values = [number and number.value for number in row.measured[:3]]
    assert values == [None, 24.7, 0.05]


def test_generated_texts_stand_in_their_own_table_alone() -> None:
    texts = {
        "texts": "generated by llama",
        "network": "n",
        "trained_on": "9 steps on 32,000 triplets",
    }
    fashion = {"recall@10/average": {"value": 95.0}}
    base = {"benchmark": "fashioniq", "metrics": fashion, "world": "embedded"}
    made = [
        entry("instructcir", run="a", **base, made={**texts, "texts": "annotated"}),
        entry("instructcir", run="b", **base, made=texts),
    ]
    found = filled(table("instructcir-table-test-texts"), made, {})
    assert [row.labels for row in found.measured if any(row.measured)] == [
        ("annotated; network n",),
        ("generated by llama; network n",),
    ]
    (row,) = [
        r for r in filled(table("instructcir-table-ii"), made, {}).measured if any(r.measured)
    ]
    assert row.measured[4] is not None
    assert row.measured[4].run == "a"
    (figure, *_) = instructcir_figures(made, ())
    assert [chart.title.partition(":")[0] for chart in figure.charts] == [
        "Published (Table IV, ViT-L/14)",
        "Measured here on the embedded world",
    ]
    published, measured = figure.charts
    assert isinstance(published, Chart)
    assert isinstance(measured, Chart)
    assert published.curves[0].points == (
        (32000.0, 35.83), (65000.0, 36.72), (95000.0, 36.92), (200000.0, 38.04), (300000.0, 38.86),
    )  # fmt: skip
    assert measured.curves[0].points == ((32000.0, 95.0),)
