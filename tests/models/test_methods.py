"""The table of methods: rows, recipes, and CVSI's settings against the paper's numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from models.retrieval.cvsi_settings import (
    CVSI,
    CVSI_CODE,
    DIFFERENCES,
    PAPER_WEIGHTS,
    CvsiSettings,
)
from models.retrieval.fusion import similarities
from models.retrieval.ldre import LdreSettings, ldre_queries
from models.retrieval.method_records import LateFusion, Recipe, everywhere, late_fusion
from models.retrieval.methods import METHODS, method, needs
from models.retrieval.query_texts import (
    adds_nothing,
    captioning_text,
    fine_grained_text,
    pic2word_text,
    pseudo_text,
)
from models.retrieval.systems.cvsi import cvsi_recipe

PAPER = {"cirr": (0.6, 0.4, 0.2), "circo": (0.6, 0.4, 0.2), "fashioniq": (0.2, 0.6, 0.1)}


def vectors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("family", PAPER)
def test_cvsi_written_out(family: str) -> None:
    alpha, beta, gamma = PAPER[family]
    query = {name: vectors(4, 6, seed=i) for i, name in enumerate(
        ("edited_captions", "fine_grained", "reference_image"))}  # fmt: skip
    gallery = {"captions": vectors(9, 6, seed=7), "image": vectors(9, 6, seed=8)}

    def n(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    q = (
        alpha * n(query["edited_captions"])
        + beta * n(query["fine_grained"])
        + (1 - alpha - beta) * n(query["reference_image"])
    )
    t = gamma * n(gallery["captions"]) + (1 - gamma) * n(gallery["image"])
    recipe = METHODS["cvsi"].recipe(family)
    np.testing.assert_allclose(recipe.query_vectors(query, gallery), q, atol=1e-6)
    np.testing.assert_allclose(recipe.gallery_vectors(gallery), n(t), atol=1e-6)
    # The released code: averaged captions keep their length but for FashionIQ; dot product.
    captions = n(gallery["captions"]) if family == "fashioniq" else gallery["captions"]
    t = gamma * captions + (1 - gamma) * n(gallery["image"])
    code = METHODS["cvsi-code"].recipe(family)
    np.testing.assert_allclose(code.gallery_vectors(gallery), t, atol=1e-6)


@pytest.mark.parametrize("family", PAPER)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_late_fusion_is_the_weighted_sum_of_both_methods_cosines(family: str, share: float) -> None:
    """Equations 8 to 10 in a space of six, InstructCIR in a space of four; loops over pairs."""
    alpha, beta, gamma = PAPER[family]
    query = {name: 3 * vectors(4, 6, seed=i) for i, name in enumerate(
        ("edited_captions", "fine_grained", "reference_image"))}  # fmt: skip
    gallery = {"captions": vectors(9, 6, seed=7), "image": 5 * vectors(9, 6, seed=8)}
    query["instructcir"] = 7 * vectors(4, 4, seed=9)
    gallery["instructcir_image"] = vectors(9, 4, seed=10)
    make = late_fusion(METHODS["cvsi"], METHODS["instructcir"], dict.fromkeys(PAPER, share))
    row = make(family, CVSI)
    got = row.query_vectors(query, gallery) @ row.gallery_vectors(gallery).T

    def n(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x)

    for i in range(4):
        q = (
            alpha * n(query["edited_captions"][i])
            + beta * n(query["fine_grained"][i])
            + (1 - alpha - beta) * n(query["reference_image"][i])
        )
        for k in range(9):
            t = gamma * n(gallery["captions"][k]) + (1 - gamma) * n(gallery["image"][k])
            trained = n(query["instructcir"][i]) @ n(gallery["instructcir_image"][k])
            expected = (1 - share) * (n(q) @ n(t)) + share * trained
            assert got[i, k] == pytest.approx(expected, abs=1e-6)


def test_late_fusion_asks_for_the_features_of_both_methods_unless_one_has_no_weight() -> None:
    both = METHODS["cvsi-instructcir"]
    assert both.recipe("circo").query.keys() == {"edited_captions", "fine_grained", "instructcir"}
    assert both.recipe("circo").gallery.keys() == {"captions", "image", "instructcir_image"}
    assert needs(both, "circo") == (
        "captions", "edits", "mapping:lincir", "objects", "reformulation")  # fmt: skip
    alone = late_fusion(METHODS["cvsi"], METHODS["instructcir"], dict.fromkeys(PAPER, 1.0))
    assert alone("cirr", CVSI).query.keys() == {"instructcir"}
    for weights in ({"cirr": 0.5}, dict.fromkeys(PAPER, 1.5)):
        with pytest.raises(
            ValueError, match=r"weight between 0 and 1.*instructcir\.weights\.circo"
        ):
            late_fusion(METHODS["cvsi"], METHODS["instructcir"], weights)("circo", CVSI)
    with pytest.raises(ValueError, match="late fusion itself"):
        late_fusion(both, METHODS["lincir"], dict.fromkeys(PAPER, 0.5))("circo", CVSI)
    recipe = METHODS["cvsi"].recipe("cirr")
    for parts in ((), ((0.0, recipe),), ((1.5, recipe), (-0.5, recipe))):
        with pytest.raises(ValueError, match="weights >= 0 and not all 0"):
            LateFusion(parts)


def test_ablations_zero_a_part_and_keep_the_other_weights() -> None:
    def row(name: str) -> tuple[dict[str, float], dict[str, float]]:
        recipe = METHODS[f"cvsi-no-{name}"].recipe("fashioniq")
        return dict(recipe.query), dict(recipe.gallery)

    q_m, q_f, q_v = {"edited_captions": 0.2}, {"fine_grained": 0.6}, {"reference_image": 0.2}
    t_c, t_v = {"captions": 0.1}, {"image": 0.9}
    assert row("visual") == (q_m, t_c)
    assert row("semantic") == (q_f | q_v, t_v)
    assert row("reference-image") == (q_m | q_f, t_c | t_v)
    assert row("fine-grained") == (q_m | q_v, t_c | t_v)
    assert row("edited-captions") == (q_f | q_v, t_c | t_v)
    assert row("target-image") == (q_m | q_f | q_v, t_c)
    assert row("target-captions") == (q_m | q_f | q_v, t_v)


def test_only_needed_stages_are_asked_for() -> None:
    assert needs(METHODS["image-only"], "circo") == ()
    assert needs(METHODS["lincir"], "circo") == ("mapping:lincir",)
    assert needs(METHODS["cirevl"], "circo") == ("single_caption", "single_edit")
    assert needs(METHODS["cvsi"], "circo") == ("captions", "edits", "mapping:lincir", "objects")
    assert "edits" not in needs(METHODS["cvsi-no-edited-captions"], "circo")


def test_every_row_is_complete() -> None:
    for name, row in METHODS.items():
        assert row.name == name
        assert row.title
        assert row.paper
        assert row.description
        assert bool(row.reason) == (row.status != "ready"), name
        assert row.runs == (row.status in {"ready", "needs_checkpoint"}), name
        if row.runs:
            for family in PAPER:
                assert row.recipe(family).gallery


def test_rows_that_do_not_run_say_why() -> None:
    gone = replace(METHODS["cvsi"], make=None, status="numbers_only", reason="its data is gone")
    with pytest.raises(ValueError, match=r"CVSI does not run here \(numbers_only\): its data"):
        gone.recipe("cirr")
    with pytest.raises(ValueError, match="family 'coco'; there are cirr, circo, fashioniq"):
        METHODS["cvsi"].recipe("coco")
    with pytest.raises(ValueError, match="image-only, text-only"):
        method("magic")


def test_unknown_features_are_refused() -> None:
    row = replace(METHODS["text-only"], make=everywhere({"depth": 1.0}))
    with pytest.raises(
        ValueError, match="weighs depth, which is not a feature; known: reference_im"
    ):
        needs(row, "circo")
    with pytest.raises(ValueError, match="all gallery features have weight 0"):
        Recipe(query={"text": 1.0}, gallery={"image": 0.0})


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.runs])
def test_every_feature_that_a_method_weighs_is_made_by_something(name: str) -> None:
    for family in PAPER_WEIGHTS:
        needs(METHODS[name], family)


def test_each_difference_is_a_field_with_two_values() -> None:
    fields = set(CvsiSettings.model_fields)
    assert [row.number for row in DIFFERENCES] == [f"D{i}" for i in range(1, 16)]
    assert {row.field for row in DIFFERENCES} == fields - {"captions_per_image", "target_captions"}
    same = {
        row.field
        for row in DIFFERENCES
        if getattr(CVSI, row.field) == getattr(CVSI_CODE, row.field)
    }
    # Where the paper is silent, the code's choice is the default. (Each method's own preprocessing
    # is TargetPad for CVSI, too.)
    assert same == {"final_stop", "fashion_captions", "exclude_reference", "temperature",
                    "weights"}  # fmt: skip


def test_settings_are_plain_json_and_checked() -> None:
    assert json.loads(json.dumps(CVSI_CODE.model_dump()))["weights"]["cirr"]["alpha"] == 0.6
    with pytest.raises(ValueError, match=r"edit_mode\n.*'per_caption' or 'joined'"):
        CvsiSettings(edit_mode="all")
    for choice, expected in (("cirr_only", [True, False]), ("always", [True, True]),
                             ("never", [False, False])):  # fmt: skip
        settings = CVSI.changed(exclude_reference=choice)
        assert [settings.excludes_reference(rule) for rule in (True, False)] == expected


def test_own_settings_make_a_row() -> None:
    settings = CVSI.changed(similarity="dot", caption_mean="raw_mean")
    row = replace(METHODS["cvsi"], settings=settings)
    assert row.recipe("circo").similarity == "dot"
    assert settings.stored_mean == "raw_mean"
    assert cvsi_recipe("circo", settings).norms == {}
    own = settings.changed(weights={"sketches": settings.weights["cirr"]})
    assert dict(replace(METHODS["cvsi"], settings=own).recipe("sketches").query) == dict(
        METHODS["cvsi"].recipe("cirr").query
    )


def test_texts_by_hand() -> None:
    assert pseudo_text(" is red ") == pseudo_text("is red")
    assert (pseudo_text("is red").before, pseudo_text("is red").after) == (
        "a photo of",
        "that is red",
    )
    assert pic2word_text("is red").after == ", is red"
    assert captioning_text("a dog", "is red") == "a photo of a dog that is red"
    full = fine_grained_text("is red", "a ball")
    assert full.after == "that is red. And the photo should have a ball."
    assert fine_grained_text("is red", "a ball", final_stop=False).after.endswith("have a ball")


@pytest.mark.parametrize("answer", ["", "none", " None. ", "nothing"])
def test_nothing_added(answer: str) -> None:
    assert adds_nothing(answer)
    assert fine_grained_text("is red", answer) == pseudo_text("is red")
    kept = fine_grained_text("is red", answer, no_objects="keep").after
    assert kept == f"that is red. And the photo should have {answer.strip()}."


def test_something_added() -> None:
    assert not adds_nothing("nonetheless a ball")


def naive_ldre(edited, unedited, gallery, scope: str) -> np.ndarray:
    """Section 4 of the method written as loops."""
    edited, unedited, gallery = (
        x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (edited, unedited, gallery)
    )
    count, n = edited.shape[:2]
    scores = np.zeros((count, n))
    for q in range(count):
        for i in range(n):
            away = [max(0.0, float((unedited[q, i] - edited[q, i]) @ g)) for g in gallery]
            scores[q, i] = sum(sorted(away)[-5:])
    if scope == "global":
        scores = np.tile(scores.sum(axis=0), (count, 1))
    out = []
    for q in range(count):
        exponents = np.exp(scores[q] / scores[q].max() / 0.04)
        weights = exponents / exponents.sum()
        out.append(sum(w * f for w, f in zip(weights, edited[q], strict=True)))
    return np.stack(out)


@pytest.mark.parametrize("scope", ["query", "global"])
def test_ldre_equals_its_formula(scope: str) -> None:
    edited, unedited, gallery = vectors(11, 4, 8), vectors(11, 4, 8, seed=1), vectors(23, 8, seed=2)
    got = ldre_queries(edited, unedited, gallery, LdreSettings(scope=scope))
    expected = naive_ldre(edited, unedited, gallery, scope)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    if scope == "query":
        alone = ldre_queries(edited[3:4], unedited[3:4], gallery)
        np.testing.assert_allclose(alone, got[3:4], atol=2e-5)


def test_ldre_of_a_mapped_gallery_reads_blocks_and_equals_its_formula(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.retrieval import ldre
    from models.retrieval.gallery import Rows

    edited, unedited, gallery = vectors(11, 4, 8), vectors(11, 4, 8, seed=1), vectors(23, 8, seed=2)
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="c")
    order = np.random.default_rng(3).permutation(23)
    read: list[int] = []
    plain = Rows.__getitem__

    def counted(self: Rows, rows: Any) -> Any:
        found = plain(self, rows)
        read.append(len(found))
        return found

    monkeypatch.setattr(Rows, "__getitem__", counted)
    whole = ldre_queries(edited, unedited, gallery[order])
    for block in (1, 3, 7, 23, 100):  # also blocks that are smaller than the five that count
        monkeypatch.setattr(ldre, "_IMAGES_PER_BLOCK", block)
        got = (
            METHODS["ldre"]
            .recipe("circo")
            .query_vectors(
                {"each_edited_caption": edited, "each_caption": unedited},
                {"image": Rows.at(mapped, order)},
            )
        )
        np.testing.assert_allclose(got, naive_ldre(edited, unedited, gallery, "query"), atol=2e-5)
        np.testing.assert_allclose(got, whole, atol=1e-6)
        assert max(read) <= block
        read.clear()


def test_ldre_row_and_edge_cases() -> None:
    features = {"each_edited_caption": vectors(2, 3, 4), "each_caption": vectors(2, 3, 4)}
    gallery = {"image": vectors(3, 4, seed=5)}
    # Edits equal to captions lead nowhere: all weigh alike. Fewer than five images also work.
    got = METHODS["ldre"].recipe("circo").query_vectors(features, gallery)
    edits = features["each_edited_caption"]
    mean = (edits / np.linalg.norm(edits, axis=-1, keepdims=True)).mean(axis=1)
    np.testing.assert_allclose(got, mean, atol=1e-6)
    with pytest.raises(ValueError, match="do not fit"):
        ldre_queries(vectors(2, 3, 4), vectors(2, 2, 4), vectors(3, 4))


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, models.retrieval.methods; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_image_text_sum_weighs_both_alike() -> None:
    query = {"reference_image": np.array([[9.0, 0.0]]), "text": np.array([[0.0, 1.0]])}
    gallery = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    fused = METHODS["image-text-sum"].recipe("cirr").query_vectors(query, {"image": gallery})
    assert similarities(fused, gallery).argmax() == 0


def test_the_settings_of_every_row_can_be_written() -> None:
    """Stages carry them as JSON."""
    own = {name: row.settings for name, row in METHODS.items() if row.settings is not None}
    assert "cvsi-code" in own
    for settings in own.values():
        adapter = TypeAdapter(CvsiSettings)
        assert adapter.validate_json(adapter.dump_json(settings)) == settings
