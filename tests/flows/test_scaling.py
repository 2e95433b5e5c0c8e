"""The numbers behind a scaling plot, against sums done by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tasks.report.scaling import Measured, Panel, scaling_page
from tasks.scoring.scores import MethodScores
from tasks.training.triplet_sets import TripletSet


def scores(value: float, draws: list[float]) -> MethodScores:
    return MethodScores(
        metrics={"recall@1": value},
        intervals={},
        draws={"recall@1": np.array(draws)},
        queries=10,
        coverage=1.0,
        protocol={},
    )


def test_a_panel_holds_means_over_worlds_and_paired_differences() -> None:
    from flows.scaling import Variant, panel_of

    spread = [48.0, 49.0, 50.0, 51.0, 52.0]
    measured = {
        Variant(100): {"cirr": [scores(40, [40] * 5), scores(50, [50] * 5)]},
        Variant(200): {"cirr": [scores(50, spread), scores(70, [v + 20 for v in spread])]},
        Variant(200, "ema"): {
            "cirr": [scores(49, [v - 1 for v in spread]), scores(66, [v + 16 for v in spread])]
        },
        Variant(200, source="banded"): {
            "cirr": [scores(52, [v + 2 for v in spread]), scores(71, [v + 21 for v in spread])]
        },
    }
    lines = {"lincir": {"cirr": [scores(10, [10] * 5), scores(30, [30] * 5)]}}
    panel = panel_of("cirr", measured, lines, embedded=True)
    assert [(m.triplets, m.mean) for m in panel.curve] == [(100, 45.0), (200, 60.0)]
    assert (panel.curve[0].low, panel.curve[0].high) == (45.0, 45.0)
    # Means of the draws are 58 to 62; their 2.5 % quantile lies a tenth into the first step.
    assert panel.curve[1].low == pytest.approx(58.1)
    assert panel.curve[1].high == pytest.approx(61.9)
    without, other = panel.comparisons
    assert without.name == "without ema"
    # -1 and -4 in every draw: paired, the difference has no spread although its parts have.
    assert (without.difference, without.low, without.high) == (-2.5, -2.5, -2.5)
    assert (other.name, other.difference, other.low, other.high) == ("on banded", 1.5, 1.5, 1.5)
    assert panel.others == (("lincir", 20.0),)


def test_the_page_is_complete_and_says_where_its_numbers_come_from() -> None:
    panel = Panel("CIRR", "recall@1", (Measured(1000, 50.0, 48.0, 52.0),), (), ())
    page = scaling_page("Quality", "of nothing", [panel], embedded=True)
    assert "Embedded world" in page
    assert "50.00" in page
    assert "48.00 to 52.00" in page
    assert not re.search(r'(?:src|href)="http', page)
    assert "Embedded world" not in scaling_page("Quality", "of nothing", [panel], embedded=False)


def test_what_cannot_be_done_is_refused_before_anything_is_trained() -> None:
    from flows.requests.scaling import scaling

    triplets = TripletSet(root="x", spec_key="y", collections=("z",), count=100).model_dump()
    with pytest.raises(
        ValueError,
        match=r"unknown group of training 'optimizer'; known: training, loss, network, ema",
    ):
        scaling(triplets, [1], seeds=[0], training={"optimizer": {}})
    with pytest.raises(ValueError, match="200 pairs of a set of 100: take 1 to all"):
        scaling(triplets, [50, 200], seeds=[0])
    small = triplets | {"count": 10}
    with pytest.raises(ValueError, match="50 pairs of a set of 10: take 1 to all"):
        scaling(triplets, [50], seeds=[0], other_triplets={"small": small})
    with pytest.raises(ValueError, match="unknown method 'lincr'; did you mean 'lincir'"):
        scaling(triplets, [50], seeds=[0], others=("lincr",))


def test_what_is_left_out_is_a_setting_of_its_group() -> None:
    from flows.requests.scaling import WITHOUT
    from models.instructcir.settings import EmaSettings, NetworkSettings

    groups = {"network": NetworkSettings, "ema": EmaSettings}
    for changes in WITHOUT.values():
        for group, values in changes.items():
            assert groups[group](**values) != groups[group]()
