"""A method that brings a feature is one file and one line: CONTRIBUTING's recipe, carried out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embedded_world.benchmarks import WorldSize, write_circo
from flows.profiles import tiny
from tests.fakes.added_tree import AddedTree, copy_tree

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

METHOD = "caption-then-text"
QUERIES = 4


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> AddedTree:
    tree = copy_tree(tmp_path_factory.mktemp("tree"), migrated_database)
    tree.add_file("caption_then_text.py", "models/retrieval/systems/caption_then_text.py")
    tree.add_line("models/retrieval/methods.py", '    "candidate",', '    "caption_then_text",')
    return tree


def table(root: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(root / name / "*" / "part-*.parquet")


def test_a_method_with_a_feature_of_its_own_is_planned_made_and_scored(
    tree: AddedTree, tmp_path: Path
) -> None:
    assert METHOD in tree.cirflow("methods")
    write_circo(tmp_path / "circo", WorldSize(circo_queries=QUERIES, distractors=40), seed=6)
    root = tmp_path / "tables"
    chosen = (
        "benchmark=circo",
        f"methods={METHOD}",
        f"folder={tmp_path / 'circo'}",
        f"root={root}",
        f"out={tmp_path / 'out'}",
        "captions.max_new_tokens=16",
    )
    tree.cirflow("run", "score-benchmark", *(f"--set={each}" for each in chosen))

    (row,) = json.loads(tree.cirflow("leaderboard", "--root", str(root), "--json"))
    assert (row["method"], row["queries"]) == (METHOD, QUERIES)
    assert row["protocol"]["query_weights"] == {"caption_then_text": 0.7, "reference_image": 0.3}
    assert "Caption, then text" in (tmp_path / "out" / "report.html").read_text()

    # The captions that the feature needs were made, and the feature is the text's encoding.
    captions = dict(table(root, "captions").select("image_id", "captions").iter_rows())
    annotations = json.loads((tmp_path / "circo" / "annotations" / "val.json").read_text())
    texts = {query["relative_caption"] for query in annotations}
    said = [f"{captions[image][0]}, {text}" for image in captions for text in texts]
    from models.encoders.loading import load_encoder

    expected = load_encoder(tiny().query_encoder).encode_texts(said)
    specs = {
        file.parent.name: json.loads(file.read_text())
        for file in (root / "query_features").glob("*/spec.json")
    }
    (key,) = [key for key, spec in specs.items() if spec["feature"] == "caption_then_text"]
    made = pl.read_parquet(root / "query_features" / key / "part-*.parquet")["vector"].to_numpy()
    assert len(made) == QUERIES
    nearest = np.abs(made[:, None] - expected[None]).max(axis=2).min(axis=1)
    np.testing.assert_array_less(nearest, 1e-5)
