"""Settings enter the keys of tables and networks: equal settings make equal keys in any version.

The keys were made by the first version, whose settings were dataclasses. Another key means that
the tables or networks of a user are made again.
"""

from __future__ import annotations

from typing import Any

import pytest

from flows.profiles import resolve_profile
from models.instructcir.rewriter_settings import TuningConfig
from models.instructcir.settings import (
    CombinerSettings,
    EmaSettings,
    LossSettings,
    NetworkSettings,
)
from models.instructcir.training_settings import ReformulationTraining
from models.retrieval.cvsi_settings import CVSI, CvsiSettings
from models.settings import Settings
from models.textual_inversion.settings import LinCirConfig
from storage.tables.keys import content_key
from tasks.methods import settings_of

LONGER = {"class_grouping": 8, "max_steps": 750, "saved_as": "fp16", "keep": "last", "seed": 3}


@pytest.mark.parametrize(
    ("kind", "values", "key"),
    [
        (NetworkSettings, {}, "fbc03f43f738461c06c4"),
        (NetworkSettings, {"cross_attended_blocks": 0, "predictor": False}, "2b4e6ee52788c6b5486b"),
        (LossSettings, {}, "e7df918c7b7bf64c20c4"),
        (LossSettings, {"temperature": 1}, "4f5638a1c396d1b19311"),
        (EmaSettings, {}, "bb3bbd56a76028acd44a"),
        (EmaSettings, {"start": 0, "enabled": False}, "eefda266b16e493b1896"),
        (CombinerSettings, {}, "d9b7788195b7d1388cef"),
        (CombinerSettings, {"kind": "clip4cir_mlp", "dropout": 0}, "12375a0bc3509345b5aa"),
        (ReformulationTraining, {}, "12c196465c87ea956ae0"),
        (ReformulationTraining, {**LONGER, "learning_rate": 1}, "50608787d1eae485346c"),
        (TuningConfig, {}, "215d30d6ce49873d06c1"),
        (TuningConfig, {"alpha": 16, "targets": ["q_proj"]}, "7edce5b1ba00023486f5"),
        (LinCirConfig, {"steps": 5}, "33ea5f15bc2e89ccfa6a"),
    ],
)
def test_groups_keep_their_keys(kind: type[Settings], values: dict[str, Any], key: str) -> None:
    assert content_key(kind.given(values, "group").model_dump()) == key


def test_the_choices_of_cvsi_keep_their_keys() -> None:
    """Those of a method that is run: its own preprocessing in the place of `method`."""

    def key(method: str, profile: CvsiSettings) -> str:
        return plain(settings_of(method, profile))

    def plain(settings: CvsiSettings) -> str:
        return content_key(settings.model_dump(exclude={"target_captions"}))  # in no key

    assert key("cvsi", CVSI) == "4c5f4d82813d15849b22"
    released = settings_of("cvsi-code", CVSI)
    assert released.caption_sampling == "lavis-nucleus"  # beam_sample in earlier versions
    earlier = released.changed(caption_sampling="beam_sample")
    assert plain(earlier) == "00ec919416506085e82a"
    production = resolve_profile("production").cvsi
    assert production.caption_sampling == "captioner"  # nucleus in earlier versions
    earlier = production.changed(caption_sampling="nucleus", gallery_dtype="fp32")
    assert key("cvsi", earlier) == "4c5f4d82813d15849b22"
    assert key("cvsi", resolve_profile("tiny").cvsi) == "67ef968e9d881a7814dc"


def test_a_changed_copy_is_validated() -> None:
    assert LossSettings().changed(temperature=0.5).temperature == 0.5
    with pytest.raises(ValueError, match="greater than 0"):
        LossSettings().changed(temperature=0)
    with pytest.raises(ValueError, match="Extra inputs"):
        LossSettings().changed(temprature=1)
    with pytest.raises(ValueError, match=r"loss\.temperature: .*greater than 0, not -1"):
        LossSettings.given({"temperature": -1}, "loss")
