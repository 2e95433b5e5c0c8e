"""Backfills: which images they choose, what they say beforehand, and how they end."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from flows.forms import Captioning
from storage.collections.collection import Collection, ingest
from storage.locations.location import Location, LocationError
from storage.tables.keys import sha256_hex
from storage.tables.listing import list_tables
from storage.tables.table import load_table
from tasks.stages.image_sets import SelectedImages
from tests.fakes.drawn import draw_folder, small_settings

if TYPE_CHECKING:
    from prefect.states import State

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_results")]

NIGHT = datetime.date(2026, 11, 20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where tables lie."""
    return tmp_path / "tables"


def add(
    root: Path, count: int, seed: int, name: str = "drawn", day: datetime.date | None = None
) -> list[str]:
    """Ingest so many more pictures, on a day if one is given; returns their ids."""
    folder = root.parent / name
    paths = draw_folder(folder / str(seed), count, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        if day is not None:
            patch.setattr("storage.tables.footers.datetime", calendar_at(day))
        ingest(Location(str(root)), folder, name)
    return sorted(sha256_hex(path.read_bytes()) for path in paths)


def calendar_at(day: datetime.date) -> SimpleNamespace:
    """The module `datetime` as it is at noon of a day."""

    class Then(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Then:
            return cls(day.year, day.month, day.day, 12, tzinfo=tz)

    return SimpleNamespace(datetime=Then, UTC=datetime.UTC)


def backfill(root: Path, collection: str = "drawn", n: int = 1, **options: Any) -> State[Any]:
    """Run the flow with N captions an image; returns the state in which it ended."""
    from prefect.states import State

    from flows.backfill_captions import backfill_captions

    settings = small_settings(root, captions=n, shard=2)
    state = backfill_captions(collection, settings=settings, return_state=True, **options)
    assert isinstance(state, State)
    return state


def captioned(root: Path) -> list[set[str]]:
    """The images with captions, table by table, smallest first."""
    tables = [t for t in list_tables(Location(str(root))) if t.name == "captions"]
    rows = [
        load_table(Location(str(root)), "captions", t.spec_key).read(["status"]) for t in tables
    ]
    return sorted(
        ({key for key, status in table.iter_rows() if status == "ok"} for table in rows), key=len
    )


def files(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def page(key: str) -> str:
    """What the newest artifact of a key shows."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        newest = client.read_artifacts(
            artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC, limit=1
        )
    return str(newest[0].data)


def damage(monkeypatch: pytest.MonkeyPatch, victims: Sequence[str]) -> None:
    """Let the stored bytes of some images read as something that is no picture."""
    read = SelectedImages.read

    def damaged(self: SelectedImages, root: str, ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for key, data in read(self, root, ids):
            yield key, b"no picture" if key in victims else data

    monkeypatch.setattr(SelectedImages, "read", damaged)


# --------------------------------------------------------------------------- which images


def test_missing_is_what_has_no_captions_yet(root: Path) -> None:
    first = add(root, 3, seed=1)
    assert backfill(root).result()["stages"][0]["made"] == 3
    second = add(root, 2, seed=2)
    stage = backfill(root).result()["stages"][0]
    assert (stage["made"], stage["reused"]) == (2, 3)
    assert captioned(root) == [{*first, *second}]


def test_failed_is_what_was_tried_and_failed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.requests.backfill_captions import Selector

    images = add(root, 3, seed=3)
    with monkeypatch.context() as patch:
        damage(patch, images[1:2])
        assert backfill(root).is_failed()
    assert captioned(root) == [{images[0], images[2]}]
    add(root, 2, seed=4)  # never tried: not chosen
    stage = backfill(root, selector=Selector(which="failed")).result()["stages"][0]
    assert (stage["planned"], stage["made"], stage["failed"]) == (3, 1, 0)
    assert captioned(root) == [set(images)]


def test_stale_is_what_has_captions_under_other_settings_only(root: Path) -> None:
    from flows.requests.backfill_captions import Selector

    old = add(root, 3, seed=5)
    backfill(root, n=1)
    add(root, 2, seed=6)  # no captions at all: not chosen
    state = backfill(root, selector=Selector(which="stale"), captioning=Captioning(per_image=3))
    stage = state.result()["stages"][0]
    assert (stage["planned"], stage["made"]) == (3, 3)
    assert captioned(root) == [set(old), set(old)]
    # Under the first settings they are not stale any more than before: all have captions there.
    assert backfill(root, n=1, selector=Selector(which="stale")).result()["stages"][0]["made"] == 0


@pytest.mark.parametrize(
    ("since", "until", "chosen"),
    [
        (NIGHT, None, {"night", "today"}),
        (NIGHT, NIGHT, {"night"}),
        (None, NIGHT - datetime.timedelta(days=1), {"before"}),
        (datetime.date(2030, 1, 1), None, set()),
    ],
)
def test_a_range_of_days_counts_when_an_image_came_in(
    root: Path, since: datetime.date | None, until: datetime.date | None, chosen: set[str]
) -> None:
    from flows.requests.backfill_captions import Selector

    came = {
        "before": add(root, 2, seed=7, day=NIGHT - datetime.timedelta(days=1)),
        "night": add(root, 3, seed=8, day=NIGHT),
        "today": add(root, 2, seed=9, day=NIGHT + datetime.timedelta(days=1)),
    }
    state = backfill(root, selector=Selector(since=since, until=until), dry_run=True)
    (cost,) = state.result()["costs"]
    assert cost["images"] == sum(len(came[day]) for day in chosen)
    if chosen == {"night"}:
        backfill(root, selector=Selector(since=since, until=until))
        assert captioned(root) == [set(came["night"])]


def test_all_is_every_collection(root: Path) -> None:
    one, other = add(root, 2, seed=10), add(root, 3, seed=11, name="other")
    state = backfill(root, "all")
    assert [stage["made"] for stage in state.result()["stages"]] == [2, 3]
    assert captioned(root) == [{*one, *other}]
    add(root, 1, seed=12, name="third")
    assert [stage["made"] for stage in backfill(root, "all").result()["stages"]] == [0, 0, 1]


# --------------------------------------------------------------------------- what it says before


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(root: Path) -> None:
    add(root, 3, seed=13)
    backfill(root, n=2)  # the pace is measured
    add(root, 4, seed=14)
    before = files(root)
    state = backfill(root, n=2, dry_run=True)
    (cost,) = state.result()["costs"]
    assert (cost["planned"], cost["images"], cost["captions"]) == (7, 4, 8)
    (info,) = [t for t in list_tables(Location(str(root))) if t.name == "captions"]
    pace = load_table(Location(str(root)), "captions", info.spec_key).pace()
    assert pace is not None
    assert cost["seconds"] == pytest.approx(4 / pace)
    assert state.message is not None
    assert state.message.startswith("4 images to caption (8 captions), about 0:00:")
    assert state.result()["dry_run"] == state.message  # which the command line prints
    assert "| drawn | 7 | 4 | 8 | 0:00:" in page("backfill-plan-drawn")
    assert files(root) == before


def test_a_dry_run_needs_no_right_to_write(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(profile: Any) -> None:
        raise LocationError("tables cannot be kept there")

    monkeypatch.setattr("flows.requests.backfill_captions.require_root", read_only)
    add(root, 2, seed=24)
    assert str(backfill(root, dry_run=True).message).startswith("2 images to caption")
    assert "cannot be kept" in str(backfill(root).message)


def test_without_a_pace_no_time_is_invented(root: Path) -> None:
    add(root, 2, seed=15)
    before = files(root)
    (cost,) = backfill(root, dry_run=True).result()["costs"]
    assert cost["seconds"] is None
    assert files(root) == before
    assert "| drawn | 2 | 2 | 2 | not measured yet |" in page("backfill-plan-drawn")


# --------------------------------------------------------------------------- how it ends


def test_the_end_says_which_rows_failed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.requests.backfill_captions import Selector

    images = add(root, 4, seed=16)
    damage(monkeypatch, images[2:3])
    refused = backfill(root, allow_gaps=0.1)
    assert refused.type.value == "FAILED"
    assert refused.message is not None
    assert "1 of 4 keys" in refused.message
    assert "retry_failed" in refused.message
    failed_row = rf"| drawn | {images[2]} | not\_an\_image |"
    assert failed_row in page("backfill-drawn")

    gaps = backfill(root, allow_gaps=0.5)
    assert (gaps.type.value, gaps.name) == ("COMPLETED", "CompletedWithGaps")
    assert gaps.message == (
        "1 image could not be captioned; that is within allow_gaps."
        " drawn by blip2 blip2 (1 caption an image): 0 captioned, 3 reused, 1 failed"
    )
    assert (gaps.result()["failed"], gaps.result()["stages"][0]["made"]) == (1, 0)
    assert failed_row in page("backfill-drawn")

    monkeypatch.undo()
    whole = backfill(root, selector=Selector(which="failed"))
    assert (whole.type.value, whole.name) == ("COMPLETED", "Completed")
    assert "1 captioned, 3 reused, 0 failed" in str(whole.message)
    assert "an\\_image" not in page("backfill-drawn")
    assert captioned(root) == [set(images)]


def test_again_is_a_no_op(root: Path) -> None:
    add(root, 3, seed=17)
    backfill(root)
    before = files(root)
    state = backfill(root)
    assert (state.result()["stages"][0]["made"], state.result()["stages"][0]["reused"]) == (0, 3)
    complete = {path for path in files(root) if "complete-" in path}  # the record of the listing
    assert {p: d for p, d in files(root).items() if p not in complete} == {
        p: d for p, d in before.items() if p not in complete
    }


def test_the_end_counts_by_collection_and_captioner(root: Path) -> None:
    add(root, 2, seed=21)
    backfill(root, n=2)
    add(root, 1, seed=22)
    add(root, 3, seed=23, name="other")
    state = backfill(root, "all", n=2)
    said = (
        "drawn by blip2 blip2 (2 captions an image): 1 captioned, 2 reused, 0 failed; "
        "other by blip2 blip2 (2 captions an image): 3 captioned, 0 reused, 0 failed"
    )
    assert state.message == f"every chosen image has its captions. {said}"
    assert state.result()["summary"] == said  # what the terminal prints
    for row in ("| drawn | blip2 blip2 | 2 | 1 | 2 | 0 | 0 |",
                "| other | blip2 blip2 | 2 | 3 | 0 | 0 | 0 |"):  # fmt: skip
        assert row in page("backfill-all")


# --------------------------------------------------------------------------- several runs


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any], int]]:
    """What further runs were asked for: deployment, parameters, how many."""
    from flows import backfill_captions as module

    asked: list[tuple[str, dict[str, Any], int]] = []
    monkeypatch.setattr(module, "start_helpers", lambda *call: asked.append(call))
    return asked


def test_helpers_are_given_the_same_choices(
    root: Path, helpers: list[tuple[str, dict[str, Any], int]]
) -> None:
    from flows.backfill_captions import backfill_captions
    from flows.requests.backfill_captions import Selector

    add(root, 5, seed=18)
    chosen = Selector(since=datetime.date(2020, 1, 1))
    given = {"selector": chosen, "captioning": Captioning(per_image=2), "shard_size": 1}
    backfill(root, runs=3, **given)
    ((deployment, parameters, count),) = helpers
    assert (deployment, count) == ("backfill-captions/backfill-captions", 2)
    # What a server passes on is JSON, and it must mean the same table of the same images.
    again = backfill_captions.validate_parameters(parameters)
    assert {name: again[name] for name in given} == given
    assert again["collection"] == "drawn"
    assert again["allow_gaps"] == 1.0  # only the run that asked judges the whole
    helper = backfill_captions(**again, return_state=True)
    assert helper.result()["stages"][0]["reused"] == 5
    assert len(captioned(root)) == 1


def test_the_end_says_what_other_runs_made_meanwhile(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would count the same images as captioned, as if the work had been done twice."""
    from flows import backfill_captions as module

    def at_once(deployment: str, parameters: dict[str, Any], count: int) -> None:
        helper = module.backfill_captions(**parameters, return_state=True)
        assert helper.result()["stages"][0]["made"] == 5

    monkeypatch.setattr(module, "start_helpers", at_once)
    add(root, 5, seed=25)
    state = backfill(root, runs=2, shard_size=1)
    assert "5 captioned, 0 reused, 0 failed; 5 of these by other runs" in str(state.message)


def test_nobody_is_asked_for_what_fits_one_shard_or_is_there(
    root: Path, helpers: list[tuple[str, dict[str, Any], int]]
) -> None:
    add(root, 2, seed=19)
    backfill(root, runs=4)
    backfill(root, runs=4)
    assert helpers == []


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "both"}, "'ensemble', 'single' or 'instructcir'"),
        ({"selector": {"which": "old"}}, "'missing', 'failed' or 'stale'"),
        ({"selector": {"wich": "failed"}}, "wich"),
        ({"runs": 0}, "greater than or equal to 1"),
        ({"allow_gaps": 2}, "less than or equal to 1"),
        ({"captioning": {"engine": "blip3"}}, "known: profile, blip2, llava, openai"),
        ({"captioning": {"engine": "llava"}}, "a model goes with an engine"),
        ({"captioning": {"model": "x/y"}}, "blip2, llava, openai"),
        ({"captioning": {"engine": "openai", "model": "m"}}, "base_url is the address"),
    ],
)
def test_wrong_values_are_refused_with_the_allowed_ones(given: dict[str, Any], said: str) -> None:
    from prefect.exceptions import ParameterTypeError

    from flows.backfill_captions import backfill_captions

    with pytest.raises(ParameterTypeError, match=said):
        backfill_captions.validate_parameters({"collection": "drawn", **given})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"collection": "drwan"}, r"there is no collection 'drwan'.*there are: drawn"),
        ({"kind": "instructcir", "captioning": Captioning(per_image=3)}, "kind=ensemble"),
        ({"selector": {"which": "failed"}, "runs": 2}, "choose runs=1"),
    ],
)
def test_what_cannot_be_done_fails_before_anything_is_made(
    root: Path, options: dict[str, Any], said: str
) -> None:
    add(root, 1, seed=20)
    before = files(root)
    state = backfill(root, **options)
    assert state.is_failed()
    with pytest.raises((ValueError, LookupError), match=said):
        state.result()
    assert files(root) == before
    assert len(Collection.open(Location(str(root)), "drawn").image_ids()) == 1
