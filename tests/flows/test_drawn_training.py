"""Comparison systems that are trained on drawn pictures before a drawn world is scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedded_world.training_parameters import SYSTEM_TRAINING
from embedded_world.unlabelled_collections import UnlabelledSize
from flows.profiles import resolve_profile
from flows.requests.evaluate_world import evaluate_world as worlds_asked
from flows.requests.paper import paper as paper_asked
from flows.requests.train_systems import TRAINABLE, in_order, untrained
from models.retrieval.methods import METHODS
from models.retrieval.paper_tables import PAPER_TABLES


def test_every_system_has_parameters_that_fit_the_small_models() -> None:
    assert SYSTEM_TRAINING.keys() == {name for name, _ in in_order(list(TRAINABLE))}


def test_only_what_a_profile_lacks_is_trained(tmp_path: Path) -> None:
    """The profile names a CompoDiff; image-only learns nothing; LinCIR's network is shipped."""
    (tmp_path / "network").mkdir()
    profile = resolve_profile("tiny", {"mapping.searle": str(tmp_path / "network")})
    asked = ("image-only", "lincir", "searle", "transagg", "compodiff")
    assert untrained(profile, asked) == ("transagg", "compodiff")


def test_a_paper_trains_the_systems_of_its_tables_on_the_drawn_world_alone(tmp_path: Path) -> None:
    given: dict[str, Any] = {"settings": {"root": str(tmp_path)}, "out": str(tmp_path / "out")}
    for paper, tables in PAPER_TABLES.items():
        rows = {row.method for table in tables for row in table.rows}
        assert set(paper_asked(paper, train=True, **given).trained) == rows & TRAINABLE.keys()
        assert paper_asked(paper, **given).trained == ()
    with pytest.raises(ValueError, match="train-systems first"):
        paper_asked("cvsi", train=True, make=False, **given)


def test_worlds_score_what_was_trained(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    some = worlds_asked([0], methods=("image-only", "transagg"), train=True, out=out)
    assert (some.trained, some.methods) == (("transagg",), ("image-only", "transagg"))
    everything = worlds_asked([0], train=True, out=out)
    assert set(everything.trained) == TRAINABLE.keys()
    assert set(everything.methods) >= TRAINABLE.keys() & METHODS.keys()
    with pytest.raises(ValueError, match="transagg does not run here"):
        worlds_asked([0], methods=("transagg",), out=out)


@pytest.mark.slow
@pytest.mark.prefect
def test_trained_once_and_scored(
    tmp_path: Path, prefect_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import drawn_training
    from flows.evaluate_world import evaluate_world

    monkeypatch.setattr(drawn_training, "SYSTEM_PICTURES", UnlabelledSize(ranges=40, sets=40))
    monkeypatch.setattr(drawn_training, "SYSTEM_TRIPLETS", 40)
    monkeypatch.setattr(drawn_training, "WORD_PICTURES", UnlabelledSize(ranges=8, sets=8))
    brief = {"training": {"max_steps": 2, "batch_size": 4, "validation": 4}}
    names = [*SYSTEM_TRAINING]
    monkeypatch.setattr(drawn_training, "SYSTEM_TRAINING", dict.fromkeys(names, brief))
    asked: dict[str, Any] = {
        "seeds": [3],
        "methods": ["image-only", "pic2word", "clip4cir"],
        "against": "image-only",
        "subsets": 2,
        "circo_queries": 2,
        "fashion_queries": 1,
        "train": True,
        "out": str(tmp_path / "out"),
    }
    evaluate_world(**asked)
    rows = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {row["method"] for row in rows["cirr"]} == {"image-only", "pic2word", "clip4cir"}
    networks = sorted((tmp_path / "out" / "tables" / "checkpoints").rglob("config.json"))
    stamps = [path.stat().st_mtime_ns for path in networks]
    assert len(networks) == 3  # and the first stage of clip4cir
    evaluate_world(**asked)
    assert [path.stat().st_mtime_ns for path in networks] == stamps
