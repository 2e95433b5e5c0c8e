"""Weights for each query: signals by hand, a gate that must win, files that must be refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def unit(*values: float) -> np.ndarray[Any, Any]:
    own = np.array(values, np.float32)
    return own / np.linalg.norm(own)


def recipe(*names: str, gallery: str = "image") -> Any:
    from models.retrieval.method_records import Recipe

    return Recipe(query=dict.fromkeys(names, 1.0), gallery={gallery: 1.0})


def gallery(**features: np.ndarray[Any, Any]) -> Any:
    from models.retrieval.gallery import Rows

    return {name: Rows(own.astype(np.float32)) for name, own in features.items()}


def test_signals_of_a_search_worked_out_by_hand() -> None:
    """Three images on the axes; image 0 is the reference and is never found."""
    from models.retrieval.query_weights import images_of, parts_of, search_parts, signals

    method = recipe("a", "b")
    parts = parts_of(method, {"a": np.array([[3.0, 4.0, 0.0]]), "b": np.array([[0.0, 0.6, 0.8]])})
    images = images_of(method, gallery(image=np.eye(3)))
    searched = search_parts(parts, images, np.array([0]))
    assert searched.indices[:, 0].tolist() == [[1, 2], [2, 1]]
    found = {name: float(own[0]) for name, own in signals(parts, searched).items()}
    first = [0.8 / 0.05, 0.0]
    share = math.exp(first[0]) / (math.exp(first[0]) + 1)
    assert found == pytest.approx(
        {
            "top:a": 0.8,
            "gap:a": 0.8,
            "lead:a": 0.4,
            "entropy:a": -share * math.log(share) - (1 - share) * math.log(1 - share),
            "agreement:a": 5.0,
            "top:b": 0.8,
            "gap:b": 0.2,
            "lead:b": 0.1,
            "entropy:b": _entropy([0.8 / 0.05, 0.6 / 0.05]),
            "agreement:b": 1.0,
            "overlap:a,b": 1.0,
            "cosine:a,b": 0.48,
        },
        abs=1e-6,
    )


@pytest.mark.parametrize("reference", [0, -1])
def test_signals_of_a_gallery_of_one_image(reference: int) -> None:
    from models.retrieval.query_weights import images_of, parts_of, search_parts, signals

    method = recipe("a", "b")
    parts = parts_of(method, {"a": np.array([[3.0, 4.0]]), "b": np.array([[1.0, 0.0]])})
    images = images_of(method, gallery(image=np.eye(2)[:1]))
    searched = search_parts(parts, images, np.array([reference]))
    assert searched.indices.tolist() == [[[0]], [[0]]]
    found = {name: float(own[0]) for name, own in signals(parts, searched).items()}
    assert found["top:a"] == pytest.approx(0.6)
    assert (found["gap:a"], found["entropy:a"], found["overlap:a,b"]) == (0.0, 0.0, 1.0)


def _entropy(logits: list[float]) -> float:
    powers = [math.exp(each) for each in logits]
    return -sum(p / sum(powers) * math.log(p / sum(powers)) for p in powers)


def test_equal_weights_rank_as_the_method_itself_does() -> None:
    """Of a late fusion too, whose spaces lie end to end and whose parts count by their cosines."""
    from models.retrieval.gate import part_names
    from models.retrieval.method_records import LateFusion
    from models.retrieval.query_weights import images_of, parts_of

    rng = np.random.default_rng(0)
    fusion = LateFusion(((0.5, recipe("a")), (0.5, recipe("z", gallery="other"))))
    queries = {"a": rng.normal(size=(4, 3)), "z": rng.normal(size=(4, 5))}
    shown = gallery(image=rng.normal(size=(6, 3)), other=rng.normal(size=(6, 5)))
    shown = gallery(
        **{n: own[:] / np.linalg.norm(own[:], axis=1)[:, None] for n, own in shown.items()}
    )
    parts = parts_of(fusion, queries)
    assert part_names(fusion) == parts.names == ("a", "z")
    images = images_of(fusion, shown)
    got = parts.fused(np.full((4, 2), 0.5)) @ images[:].T
    wanted = (
        fusion.query_vectors(queries, shown)
        @ fusion.gallery_vectors({name: own[:] for name, own in shown.items()}).T
    )
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    one = parts.fused(np.array([[1.0, 0.0]] * 4)) @ images[:].T
    np.testing.assert_allclose(
        one,
        queries["a"] / np.linalg.norm(queries["a"], axis=1)[:, None] @ shown["image"][:].T,
        atol=1e-6,
    )


def test_a_method_that_is_no_sum_is_refused() -> None:
    from models.retrieval.gate import part_names
    from models.retrieval.methods import method

    with pytest.raises(ValueError, match="sums its features"):
        part_names(method("ldre").recipe("cirr"))
    with pytest.raises(ValueError, match="ranks by the cosine"):
        part_names(method("cvsi-code").recipe("cirr"))


def examples(count: int, seed: int) -> Any:
    """Queries that one of two parts answers; a signal says which, another says nothing."""
    from models.retrieval.query_weights_training import Examples

    rng = np.random.default_rng(seed)
    good = rng.integers(0, 2, count)
    scores = rng.uniform(0.0, 0.3, size=(count, 8, 2))
    scores[np.arange(count), 0, good] = 0.5  # the target, by the part that knows
    scores[np.arange(count), 1, 1 - good] = 0.52  # another image, by the part that does not
    found = {"which": good * 2.0 - 1.0, "noise": rng.normal(size=count)}
    return Examples(found, scores.astype(np.float32), np.zeros((count, 8), bool))


def test_a_gate_learns_which_part_to_believe_where_a_signal_says_so() -> None:
    from models.retrieval.gate_settings import GateTraining
    from models.retrieval.query_weights_training import train_gate

    trained = train_gate(("a", "b"), examples(300, 0), examples(200, 1), GateTraining())
    measured = {name: own["recall@1"] for name, own in trained.measures.items()}
    assert measured["gate"] == measured["oracle"] == 100.0
    assert max(measured["fixed"], measured["shuffled"]) < 75
    weights = trained.gate.weights({"which": np.array([-1.0, 1.0]), "noise": np.zeros(2)})
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert weights[0, 0] > 0.6
    assert weights[1, 1] > 0.6


def test_without_a_telling_signal_a_gate_stays_at_fixed_weights() -> None:
    """Under a strong penalty; the weights hardly differ between queries."""
    from models.retrieval.gate_settings import GateTraining
    from models.retrieval.query_weights_training import Examples, train_gate

    def silent(seed: int) -> Any:
        own = examples(300, seed)
        return Examples({"noise": own.found["noise"]}, own.scores, own.padding)

    settings = GateTraining(penalties=(10.0,))
    gate = train_gate(("a", "b"), silent(0), silent(1), settings).gate
    weights = gate.weights(silent(2).found)
    assert weights.std(axis=0).max() < 0.01


def test_a_pool_holds_each_image_once_and_the_target_first() -> None:
    """Ranks in the pool equal ranks in the gallery, where every image is found by a part."""
    from models.retrieval.query_weights import images_of, parts_of
    from models.retrieval.query_weights_training import examples_of

    rng = np.random.default_rng(3)
    method = recipe("a", "b")
    queries = {name: rng.normal(size=(5, 4)) for name in ("a", "b")}
    shown = rng.normal(size=(12, 4))
    shown /= np.linalg.norm(shown, axis=1)[:, None]
    parts, images = parts_of(method, queries), images_of(method, gallery(image=shown))
    references, targets = np.arange(5), np.array([7, 8, 9, 10, 11])
    weights = rng.dirichlet([1, 1], size=5)
    for kept in (True, False):
        made = examples_of(parts, images, references, targets, keep_reference=kept)
        fused = np.einsum("qa,aqd->qd", weights, parts.vectors) @ shown.T
        for q in range(5):
            others = [g for g in range(12) if g != targets[q] and (kept or g != references[q])]
            wanted = 1 + sum(fused[q, g] >= fused[q, targets[q]] for g in others)
            assert made.ranks(weights)[q] == wanted


def test_grids_and_the_oracle() -> None:
    from models.retrieval.query_weights import best_of_grid, weight_grid

    grid = weight_grid(3, 0.25)
    assert len(grid) == 15
    assert len(np.unique(grid, axis=0)) == 15
    np.testing.assert_allclose(grid.sum(axis=1), 1)
    values = [np.array([0.0, 0.0, np.nan]), np.array([1.0, 0.0, 0.5])]
    given = np.array([[0.1, 0.9]] * 3)
    rows = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert best_of_grid(rows, values, given).tolist() == [[0, 1], [0.1, 0.9], [0, 1]]


def gate() -> Any:
    from models.retrieval.gate import Gate

    return Gate(
        ("a", "b"),
        ("top:a",),
        np.array([0.5]),
        np.array([0.1]),
        np.array([0.0, math.log(3)]),
        np.array([[math.log(3)], [0.0]]),
        np.array([0.25, 0.75]),
    )


def test_a_gate_survives_its_file(tmp_path: Path) -> None:
    from models.retrieval.gate_files import gate_file, gate_key, load_gate

    (tmp_path / "gate.json").write_bytes(gate_file("cvsi", {"cirr": gate()}, {"zero_shot": True}))
    found = load_gate(tmp_path, "cirr")
    # At the mean: softmax(0, log 3). One deviation above it: softmax(log 3, log 3).
    np.testing.assert_allclose(
        found.weights({"top:a": np.array([0.5, 0.6])}), [[0.25, 0.75], [0.5, 0.5]]
    )
    key = gate_key(tmp_path, "cirr")
    (tmp_path / "gate.json").write_bytes(gate_file("cvsi", {"cirr": gate()}, {"other": 1}))
    assert gate_key(tmp_path, "cirr") == key  # provenance ranks nothing
    with pytest.raises(
        ValueError, match="no weights for the benchmark family 'circo'; it has cirr"
    ):
        load_gate(tmp_path, "circo")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "other"}, "is of format 'other', read here is cirflow-query-weights-1"),
        ({"families": {"cirr": {"parts": ["a"]}}}, "damaged at cirr"),
        ({"families": 3}, "lacks families"),
    ],
)
def test_damaged_gates_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    from models.retrieval.gate_files import GateError, gate_file, load_gate

    content = json.loads(gate_file("cvsi", {"cirr": gate()}, {})) | change
    (tmp_path / "gate.json").write_text(json.dumps(content))
    with pytest.raises(GateError, match=said):
        load_gate(tmp_path, "cirr")
    with pytest.raises(GateError, match=r"holds no gate\.json; give the folder"):
        load_gate(tmp_path / "none", "cirr")


@pytest.mark.parametrize("name", ["scale", "matrix", "bias"])
def test_numbers_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    from models.retrieval.gate_files import GateError, gate_file, load_gate

    content = json.loads(gate_file("cvsi", {"cirr": gate()}, {}))
    content["families"]["cirr"][name] = [0.0]
    (tmp_path / "gate.json").write_text(json.dumps(content))
    with pytest.raises(GateError, match="damaged at cirr"):
        load_gate(tmp_path, "cirr")
