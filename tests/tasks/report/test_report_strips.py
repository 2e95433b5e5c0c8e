"""The report's queries: pictures, framed targets, captions beside their edits."""

from __future__ import annotations

from tasks.report.records import Result
from tests.fakes.report_data import report, results, strip, thumbnail, with_strips
from tests.fakes.report_pages import read


def test_targets_are_framed_and_named():
    root = read(report())
    framed = [item for item in root.find("ol", "results") for item in item.find("li", "target")]
    assert [item.find("span", "rank")[0].words for item in framed] == ["rank 2", "rank 4", "rank 1"]
    assert all("target" in item.find("span", "tag")[0].words for item in framed)
    assert len(root.find("span", "tag")) == 3
    assert root.find("span", "score")[0].words == "0.890"


def test_hits_and_misses_are_grouped():
    root = read(report())
    groups = {g.attrs["data-group"]: g for g in root.find("div", "outcome")}
    queries = {key: [h.words for h in group.find("h5")] for key, group in groups.items()}
    assert queries == {"hit": ["Query 1", "Query 3"], "miss": ["Query 2"]}
    assert groups["miss"].find("span", "verdict")[0].words == "best target at rank 37"
    assert groups["miss"].find("ul", "failures")[0].words == "edit 4: rejected"


def test_sought_targets_and_hidden_answers():
    sought = (Result("t.jpg", thumbnail("lime"), 0.2, True, rank=37),)
    root = read(with_strips(strip(results=results(), target_rank=37, missed=sought)))
    (item,) = root.find("div", "sought")[0].find("li")
    assert item.find("span", "rank")[0].words == "rank 37"
    hidden = read(with_strips(strip(results=results(), judged=False)))
    assert hidden.find("span", "verdict")[0].words == "not judged"


def test_captions_beside_edits_fold_after_three():
    captions = tuple(f"a red circle {i}" for i in range(5))
    edits = (*(f"a blue circle {i}" for i in range(4)), "")
    item = strip(captions=captions, edits=edits, results=results(1), target_rank=1)
    (evidence,) = read(with_strips(item)).find("div", "evidence")
    (details,) = evidence.find("details")
    assert [len(ol.find("li")) for ol in evidence.find("ol")] == [3, 2]
    assert len(details.find("li")) == 2
    assert details.find("summary")[0].words == "2 more"
    lines = evidence.find("li")
    for line, caption, edit in zip(lines, captions, edits, strict=True):
        assert line.find("span", "before")[0].words == caption
        assert line.find("span", "after")[0].words == (edit or "no text")
    assert [node.words for node in lines[0].find("ins")] == ["blue"]
    assert [node.words for node in lines[0].find("del")] == ["red"]


def test_equal_pairs_are_counted_and_unequal_lists_stand_apart():
    same = strip(captions=("a", "b", "a"), edits=("c", "d", "c"))
    (evidence,) = read(with_strips(same)).find("div", "evidence")
    first, second = evidence.find("li")
    assert (first.words, second.words) == ("a edited to c 2\u00d7", "b edited to d")
    joined = strip(captions=("a", "b"), edits=("a and b",))
    first, second = read(with_strips(joined)).find("div", "evidence")
    assert [line.words for line in first.find("li")] == ["a", "b"]
    assert [line.words for line in second.find("li")] == ["a and b"]
