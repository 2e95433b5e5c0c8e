"""LDRE's settings, and its released code, against section 4 of the paper written as loops."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.profiles import resolve_profile
from models.retrieval.cvsi_settings import CVSI
from models.retrieval.ldre import LdreSettings
from models.retrieval.methods import METHODS, needs
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.methods import configured_method
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.stages.rankings import ranking_protocol

Array = np.ndarray[Any, Any]


def vectors(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


EDITED, UNEDITED = 3 * vectors(11, 4, 8, seed=0), vectors(11, 4, 8, seed=1)
GALLERY = 5 * vectors(23, 8, seed=2)
QUERY = {"each_edited_caption": EDITED, "each_caption": UNEDITED}


def naive(scope: str = "query", top: int = 5, temperature: float = 0.04) -> Array:
    """The weighted sums in double precision, one number at a time."""
    edited, unedited, gallery = (
        x / np.linalg.norm(x.astype(float), axis=-1, keepdims=True)
        for x in (EDITED, UNEDITED, GALLERY)
    )
    count, n = edited.shape[:2]
    scores = np.zeros((count, n))
    for q in range(count):
        for i in range(n):
            away = [max(0.0, float(unedited[q, i] @ g - edited[q, i] @ g)) for g in gallery]
            scores[q, i] = sum(sorted(away, reverse=True)[:top])
    made = []
    for q in range(count):
        own = scores.sum(axis=0) if scope == "global" else scores[q]
        weights = np.exp(own / own.max() / temperature)
        made.append(sum(w / weights.sum() * f for w, f in zip(weights, edited[q], strict=True)))
    return np.stack(made)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({"top": 2, "temperature": 1.0}, 1e-6),
        ({"scope": "global", "top": 3, "temperature": 0.5}, 1e-6),
        ({}, 5e-6),  # rounding enters the weights multiplied by 1 / 0.04
    ],
)
def test_a_profiles_settings_are_those_of_the_formula(
    settings: dict[str, Any], tolerance: float
) -> None:
    row = configured_method("ldre", CVSI, ldre=LdreSettings(**settings)).recipe("circo")
    got = row.query_vectors(QUERY, {"image": GALLERY})
    np.testing.assert_allclose(got, naive(**settings), atol=tolerance)


def test_the_released_code_has_one_set_of_weights_and_for_cirr_the_plain_mean() -> None:
    code = METHODS["ldre-code"]
    got = code.recipe("circo").query_vectors(QUERY, {"image": GALLERY})
    np.testing.assert_allclose(got, naive("global"), atol=5e-6)
    # For CIRR no weights: the mean of features as encoded, which is a feature of its own.
    mean = EDITED.mean(axis=1)
    cirr = code.recipe("cirr").query_vectors({"edited_captions": mean}, {"image": GALLERY})
    np.testing.assert_array_equal(cirr, mean)
    assert needs(code, "cirr") == ("captions", "edits")
    assert code.settings.stored_mean == "raw_mean"
    assert (code.settings.temperature, code.settings.answer_parsing) == (1.0, "verbatim")


def test_other_settings_make_other_rankings_and_are_in_the_protocol(tmp_path: Path) -> None:
    archive = Path(__file__).parents[1] / "data" / "earlier_root.tar.xz"
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    ref = BenchmarkRef(name="cirr", root=str(tmp_path / "world" / "cirr"), split="val")
    root = str(tmp_path / "tables")
    ingest(Location(root), image_folder(ref.load()), ref.collection_name)
    keys: dict[str, set[str]] = {"ldre": set(), "cvsi": set()}
    for own in ({}, {"ldre.scope": "global"}, {"ldre.top": 4}, {"ldre.temperature": 0.05}):
        profile = resolve_profile("tiny", {"root": root, **own})
        for stage in plan_evaluation(profile, ref, list(keys)).rankings:
            keys[stage.method].add(stage.spec_key)
            said = ranking_protocol(stage).get("combined_by")
            assert said == (profile.ldre.model_dump() if stage.method == "ldre" else None)
    assert {name: len(found) for name, found in keys.items()} == {"ldre": 4, "cvsi": 1}
