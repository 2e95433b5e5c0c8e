"""A query whose reference image is missing or cannot be read: named with its reason, and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder, load_query_set
from tasks.report.artifact import section_markdown
from tasks.report.build import EvaluatedBenchmark, report_data, write_report
from tasks.scoring.scores import score_ranking
from tasks.settings import Profile
from tasks.stages.stage import in_order
from tests.fakes.benchmark_layouts import CIRR_NAMES, write_cirr
from tests.fakes.drawn import draw_folder, small_profile
from tests.fakes.filled_tables import fill

REFERENCE: Final = CIRR_NAMES[0]
"""Of the query 100 of `write_cirr`."""
WHY: Final = {"missing": "is missing on disk", "unreadable": "cannot be used: not_an_image"}


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    """Small values, and gaps allowed."""
    profile = small_profile(tmp_path_factory.mktemp("tables"))
    return profile.model_copy(update={"allow_missing_images": True})


@pytest.fixture(scope="module", params=WHY)
def ref(
    profile: Profile, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> BenchmarkRef:
    """A benchmark with a query whose reference is missing or not an image."""
    folder = tmp_path_factory.mktemp(request.param)
    write_cirr(folder)
    for name, picture in zip(CIRR_NAMES, draw_folder(folder / "dev", 8, seed=5), strict=True):
        picture.rename(picture.with_name(f"{name}.png"))
    file = folder / "dev" / f"{REFERENCE}.png"
    file.unlink()
    if request.param == "unreadable":
        file.write_bytes(b"no picture at all")
    ref = BenchmarkRef(
        name="cirr", root=str(folder), split="val", allow_missing=True, collection=request.param
    )
    ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
    return ref


def test_it_is_named_with_its_image_and_its_reason(profile: Profile, ref: BenchmarkRef) -> None:
    (line,) = load_query_set(profile.root, ref).not_asked()
    why = WHY[ref.collection]
    assert line.startswith(f"query 100 has no reference image: {REFERENCE} {why}")


def test_where_gaps_are_not_allowed_the_run_is_refused_with_image_reason_and_setting(
    profile: Profile, ref: BenchmarkRef
) -> None:
    strict = ref.model_copy(update={"allow_missing": False})
    with pytest.raises(ValueError, match="allow_missing_images=true") as refused:
        load_query_set(profile.root, strict)
    assert REFERENCE in str(refused.value)


def test_the_report_draws_it_and_says_why(
    profile: Profile, ref: BenchmarkRef, tmp_path: Path
) -> None:
    plan = plan_evaluation(profile, ref, ["image-text-sum"])
    for stage in in_order(plan.rankings):
        fill(stage)
    scores = {stage.method: score_ranking(stage) for stage in plan.rankings}
    item = EvaluatedBenchmark(ref, plan.rankings, scores)
    data = report_data(profile, [item], (), "title", ())
    (section,) = data.sections
    why = f"{REFERENCE} {WHY[ref.collection]}"
    assert f"1 counts as a miss: query 100 has no reference image: {why}" in section.summary
    strip = next(s for s in section.strips if s.query_id == "100")
    assert strip.failures[0].startswith(why)
    assert strip.reference.alt.startswith(f"image {why}")
    assert strip.target_rank is None
    page = write_report(data, tmp_path).read_text("utf-8")
    assert why in page
    assert section_markdown(section, tmp_path / "report.html", True)
