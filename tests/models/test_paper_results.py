"""The published numbers: complete, and the papers' own averages hold where they should."""

from __future__ import annotations

from models.retrieval.methods import METHODS
from models.retrieval.published_results import PAPER_RESULTS, PaperResult, paper_results


def find(**wanted: str) -> list[PaperResult]:
    return [row for row in PAPER_RESULTS if all(getattr(row, k) == v for k, v in wanted.items())]


def test_counts_of_the_tables() -> None:
    counts = {
        (paper, table): len(find(paper=paper, table=table))
        for paper, table in {(row.paper, row.table) for row in PAPER_RESULTS}
    }
    assert counts == {
        ("CVSI", "I"): 2 * 22,
        ("CVSI", "II"): 13,
        ("CVSI", "III"): 2 * 8,
        ("InstructCIR", "II"): 2 * 20 - 1,  # CASE has no zero-shot FashionIQ row
        ("InstructCIR", "III"): 7,
        ("InstructCIR", "IV"): 2 * 12,
        ("InstructCIR", "V"): 2 * 3,
        ("CVSI", "IV"): 9,
        ("InstructCIR", "test texts"): 2 * 2,
    }


def test_every_row_belongs_to_a_method() -> None:
    assert {row.method for row in PAPER_RESULTS} <= METHODS.keys()


def test_fashioniq_averages_are_means_of_the_categories_but_for_known_misprints() -> None:
    wrong = set()
    for row in find(paper="CVSI", table="II"):
        for k in (10, 50):
            parts = [row.metrics[f"recall@{k}/{name}"] for name in ("shirt", "dress", "toptee")]
            if abs(row.metrics[f"recall@{k}/average"] - sum(parts) / 3) > 0.0151:
                wrong.add((row.backbone, row.method, k))
    assert wrong == {("ViT-L/14", "pic2word", 50), ("ViT-L/14", "cirevl", 50)}


def test_recalls_and_precisions_grow_with_k() -> None:
    for row in PAPER_RESULTS:
        for family in ("recall@", "recall_subset@"):
            cuts = sorted(
                (int(name.removeprefix(family)), value)
                for name, value in row.metrics.items()
                if name.startswith(family) and "/" not in name
            )
            values = [value for _, value in cuts]
            assert values == sorted(values), row


def test_known_inconsistencies_of_instructcir_are_kept_as_printed() -> None:
    rows = find(paper="InstructCIR", table="II", benchmark="fashioniq")
    wrong = set()
    for row in rows:
        m = row.metrics
        mean = (m["recall@10/average"] + m["recall@50/average"]) / 2
        if abs(mean - m["average"]) > 0.0151:
            wrong.add((row.method, row.note))
    assert wrong == {
        ("text-only", "CLIP"),
        ("instructpix2pix", "CLIP/LAION"),
        ("instructcir", "LAION-300k"),
    }


def test_some_cells_by_eye() -> None:
    (row,) = find(paper="CVSI", table="I", benchmark="circo", backbone="ViT-L/14", method="cvsi")
    assert row.metrics == {"map@5": 26.89, "map@10": 28.24, "map@25": 30.79, "map@50": 31.89}
    (row,) = find(paper="CVSI", table="I", benchmark="cirr", backbone="ViT-G/14", method="ldre")
    assert row.metrics["recall_subset@3"] == 93.76
    (row,) = find(paper="InstructCIR", benchmark="cirr", method="pic2word")
    assert "recall_subset@1" not in row.metrics
    assert [r.supervised for r in paper_results("cirr") if r.method == "clip4cir"] == [True]


def test_tables_of_instructcir_agree_where_they_repeat_each_other_but_for_one_number() -> None:
    main = [r for r in find(paper="InstructCIR", method="instructcir", table="II") if not r.variant]
    zero_shot = {row.benchmark: row for row in main if not row.supervised}
    assert {row.note for row in zero_shot.values()} == {"Fashion200k/NLVR-300k"}
    differing = {}
    for row in find(table="IV", note="Fashion200k/NLVR/LLaVA/33B-300k"):
        for name, value in row.metrics.items():
            said = zero_shot[row.benchmark].metrics[name]
            if said != value:
                differing[row.benchmark, name] = (said, value)
    assert differing == {("cirr", "recall@1"): (39.28, 38.86)}
    (small,) = find(table="IV", note="Fashion200k/NLVR/LLaVA/33B-32k", benchmark="cirr",
                    method="instructcir")  # fmt: skip
    (full,) = find(table="V", note="32k, full", benchmark="cirr")
    assert full.metrics.items() <= small.metrics.items()
    tuned = [row for row in PAPER_RESULTS if "GT" in row.note]
    assert tuned
    assert all(row.supervised for row in tuned)
    assert all(row.variant for row in find(table="IV") + find(table="V"))


def test_quality_grows_with_the_number_of_triplets_in_table_iv() -> None:
    sizes = ("32k", "65k", "95k", "200k", "300k")
    for benchmark, name in (("cirr", "recall@1"), ("fashioniq", "recall@10/average")):
        rows = [
            find(table="IV", benchmark=benchmark, method="instructcir",
                 note=f"Fashion200k/NLVR/LLaVA/33B-{size}")[0]
            for size in sizes
        ]  # fmt: skip
        values = [row.metrics[name] for row in rows]
        assert values == sorted(values)


def test_printed_rows_have_the_published_systems_names() -> None:
    from models.retrieval.paper_tables import PAPER_TABLES

    tables = [table for paper in PAPER_TABLES.values() for table in paper]
    rows = [row for table in tables for row in table.rows if row.method == "compodiff"]
    assert rows
    assert {row.labels[0] for row in rows} == {"CompoDiff"}
    assert METHODS["compodiff"].title == "CompoDiff-style"
