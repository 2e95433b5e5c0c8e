"""Ingest as a flow: its state says what changed, and a name in use is not given away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from storage.collections.known import list_collections
from storage.locations.location import Location
from tests.fakes.drawn import draw_folder

if TYPE_CHECKING:
    from prefect.states import State

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_results")]


def run(root: Path, source: Path, **options: Any) -> State[Any]:
    from prefect.states import State

    from flows.ingest_collection import ingest_collection

    state = ingest_collection(
        str(source), "drawn", settings={"root": str(root)}, return_state=True, **options
    )
    assert isinstance(state, State)
    return state


def test_the_state_says_what_changed(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    draw_folder(mine, 3, seed=1)
    draw_folder(other, 2, seed=2)
    root = tmp_path / "root"
    assert run(root, mine).message == f"3 inputs, 3 images: a new collection in {root}"
    draw_folder(mine, 4, seed=1)[0].unlink()
    said = f"3 inputs, 3 images: 1 added, 0 changed, 1 gone, 2 unchanged in {root}"
    assert run(root, mine).message == said
    refused = run(tmp_path / "root", other)
    assert refused.is_failed()
    assert f"stands for {mine} (3 inputs, 3 images" in str(refused.message)
    both = run(tmp_path / "root", other, if_taken="add").result()
    assert (both["files"], both["added"], both["unchanged"]) == (2, 2, 3)
    assert both["places"] == [str(mine), str(other)]


def test_one_picture_is_one_input_and_one_image(tmp_path: Path) -> None:
    draw_folder(tmp_path / "mine", 1, seed=4)
    root = tmp_path / "root"
    assert run(root, tmp_path / "mine").message == f"1 input, 1 image: a new collection in {root}"


def test_what_cannot_be_used_is_named_in_the_state_and_in_an_artifact(tmp_path: Path) -> None:
    from prefect.artifacts import Artifact

    draw_folder(tmp_path / "mine", 2, seed=3)
    (tmp_path / "mine" / "no[te]s.jpg").write_text("notes", encoding="utf-8")
    state = run(tmp_path / "root", tmp_path / "mine")
    assert state.is_completed()
    assert "2 images" in str(state.message)
    assert "1 not usable, first no[te]s.jpg: not_an_image (" in str(state.message)
    page = Artifact.get("ingest-drawn")
    assert page is not None
    assert r"no\[te\]s\.jpg" in str(page.data)
    assert r"not\_an\_image" in str(page.data)


def test_a_run_that_finds_nothing_usable_fails_and_says_so(tmp_path: Path) -> None:
    from prefect.artifacts import Artifact

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.jpg").write_text("notes", encoding="utf-8")
    state = run(tmp_path / "root", tmp_path / "mine")
    assert state.is_failed()
    assert "no input in" in str(state.message)
    assert "notes.jpg: not_an_image" in str(state.message)
    assert "the collection 'drawn' was not made" in str(state.message)
    assert list_collections(Location(str(tmp_path / "root"))) == []
    page = Artifact.get("ingest-drawn")
    assert page is not None
    assert r"notes\.jpg" in str(page.data)
