"""Pieces of the report: numbers as they are printed, compared texts, records that contradict."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tasks.report import bars, text
from tasks.report.pictures import evenly
from tasks.report.records import Section, Thumbnail
from tests.fakes.report_data import ROWS, report, results, row, strip


@pytest.mark.parametrize(
    ("points", "shown"),
    [(1.234, "+1.23"), (-1.235e1, "\N{MINUS SIGN}12.35"), (-0.004, "0.00"), (0.0, "0.00")],
)
def test_signed(points: float, shown: str):
    assert text.signed(points) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.44, "0.4 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (3720, "1 h 02 min"),
    ],
)
def test_duration(seconds: float, shown: str):
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("value", "ceiling"), [(64.8, 80), (8.0, 8), (0.11, 0.15), (99, 100), (1.0, 1)]
)
def test_nice_ceiling(value: float, ceiling: float):
    assert bars.nice_ceiling(value) == pytest.approx(ceiling)


def test_compare_marks_what_changed():
    before, after = text.compare("a red circle", "a blue circle here")
    assert before == (("a", False), ("red", True), ("circle", False))
    assert after == (("a", False), ("blue", True), ("circle", False), ("here", True))


@pytest.mark.parametrize("count", [1, 2, 6, 7, 20, 97])
def test_examples_are_evenly_drawn_with_both_ends(count: int):
    drawn = evenly(range(count), 6)
    assert drawn == sorted(set(drawn))
    assert len(drawn) == min(6, count)
    assert (drawn[0], drawn[-1]) == (0, count - 1)
    gaps = [after - before for before, after in pairwise(drawn)]
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: row("a", "winners", 1.0), "allowed are baseline"),
        (lambda: row("a", "method", 101.0), "not a percentage"),
        (lambda: row("a", "method", float("nan")), "not a percentage"),
        (lambda: row("a", "method", None, status="measured"), "a measured row has metrics"),
        (lambda: row("a", "method", 5.0, intervals={"mAP@5": (6.0, 4.0)}), "interval"),
        (lambda: row("a", "method", 5.0, intervals={"R@1": (4.0, 6.0)}), "without a value"),
        (lambda: Section("s", "S", "R@1", ROWS), "ranked by 'R@1'"),
        (lambda: Section("s", "S", "mAP@5", ROWS, columns=("R@1",)), "which no row has"),
        (lambda: Thumbnail(b"\x89PNG", 1, 1, "x"), "not a JPEG"),
        (lambda: strip(results=results(2), target_rank=1), "rank 2"),
        (lambda: strip(results=results(), target_rank=3), "rank None"),
        (lambda: strip(results=results(2)), "target_rank is None"),
        (lambda: report(sections=report().sections * 2), "two sections"),
    ],
)
def test_contradictions_are_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_method_with_its_own_rule_for_the_reference_is_named_in_the_protocol() -> None:
    from tasks.report.build import _protocol

    kept: dict[str, object] = {"split": "val", "exclude_reference": False}
    both = {"image-only": kept, "covr": kept | {"exclude_reference": True}}
    assert _protocol(both, "image-only") == {
        "split": "val",
        "exclude_reference": "no; yes for CoVR",
    }
    assert _protocol(both, "covr")["exclude_reference"] == "yes; no for Image only"
    assert _protocol({"image-only": kept, "text-only": kept}, "text-only") == kept
