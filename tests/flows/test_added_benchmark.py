"""A benchmark is one file and one line: CONTRIBUTING's recipe, done on a copy of the tree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedded_world.benchmarks import WorldSize, write_circo
from flows.profiles import tiny
from tests.fakes.added_tree import AddedTree, copy_tree

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

METHODS = ("image-only", "cvsi")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> AddedTree:
    tree = copy_tree(tmp_path_factory.mktemp("tree"), migrated_database)
    tree.add_file("shapes.py", "storage/benchmarks/shapes.py")
    tree.add_line("storage/benchmarks/registry.py", '    "fashioniq",', '    "shapes",')
    return tree


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The benchmark's files: 60 pictures or a few more, so that 50 can be ranked."""
    folder = tmp_path_factory.mktemp("shapes")
    write_circo(folder, WorldSize(circo_queries=8, distractors=40), seed=5)
    return folder


def test_a_benchmark_is_ingested_scored_and_reported(tree: AddedTree, drawn: Path) -> None:
    root, out = tree.folder / "tables", tree.folder / "out"
    images = drawn / "COCO2017_unlabeled" / "unlabeled2017"
    ingested = tree.cirflow("ingest", str(images), "--name", "shapes-val", "--root", str(root))
    assert "collection shapes-val" in ingested
    chosen = ["--set=benchmark=shapes", f"--set=folder={drawn}", f"--set=root={root}",
              "--set=captions.max_new_tokens=16", f"--set=methods={','.join(METHODS)}"]  # fmt: skip
    tree.cirflow("run", "score-benchmark", *chosen, f"--set=out={out}")

    rows = json.loads(tree.cirflow("leaderboard", "--root", str(root), "--json"))
    by_method = {row["method"]: row for row in rows}
    assert by_method.keys() == set(METHODS)
    assert len(rows) == len(METHODS)
    for row in rows:
        assert (row["benchmark"], row["split"]) == ("shapes", "val")
        assert list(row["metrics"]) == ["map@10", "map@3", "recall@1"]
        assert row["queries"] == 8
        assert row["protocol"]["family"] == "circo"
    weights = tiny().cvsi.query_weights("circo")
    assert by_method["cvsi"]["protocol"]["query_weights"] == {n: w for n, w in weights.items() if w}

    table = tree.cirflow("leaderboard", "--root", str(root))
    assert "shapes val, 8 queries\n" in table
    assert table.splitlines()[1].split() == ["method", "backbone", "mAP@3", "R@1"]
    page = (out / "report.html").read_text()
    assert ">Shapes<" in page
    # The number that CVSI reaches on CIRCO itself is nowhere.
    assert "28.24" not in page
    assert "Published" not in page


def test_hidden_targets_give_the_file_for_its_server(tree: AddedTree, drawn: Path) -> None:
    out = tree.folder / "hidden"
    chosen = ("benchmark=shapes", "split=test", "methods=image-only", f"folder={drawn}",
              f"root={tree.folder / 'tables'}", f"out={out}")  # fmt: skip
    tree.cirflow("run", "score-benchmark", *(f"--set={each}" for each in chosen))
    written = json.loads((out / "submissions" / "image-only" / "shapes_test.json").read_text())
    assert [len(names) for names in written.values()] == [50] * 8


def test_forms_and_lists_offer_it(tree: AddedTree) -> None:
    listed = tree.cirflow("run", "score-benchmark", "--list")
    assert "One of cirr, circo, fashioniq, shapes, icir, " in listed
    code = (
        "from flows.forms import BenchmarkChoice as B; "
        "print(B.model_json_schema()['properties']['name']['enum'])"
    )
    said = tree.python("-c", code)
    assert "'shapes'" in said
