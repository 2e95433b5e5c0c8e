"""`cirflow try`: from a folder to a page that says what can be searched, and what is still made."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.cli import main
from deployments.commands import run as run_command
from deployments.commands import try_
from deployments.errors import UserError
from tests.fakes.drawn import draw_folder

PICTURES = 5


def answer(root: Path, path: str, fault_of: Callable[[str], str] = lambda gallery: "") -> Any:
    """What the service of a root answers."""
    import httpx

    from deployments.service.app import create_app
    from deployments.service.settings import ServiceSettings
    from flows.profiles import resolve_profile

    profile = resolve_profile("tiny", {"root": str(root)})
    app = create_app(ServiceSettings(profile, fault_of=fault_of))

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8600"
        ) as client:
            return await client.get(path)

    return asyncio.run(asked())


@pytest.mark.slow  # it loads the encoder, and imports all of the flows
def test_the_first_search_waits_for_image_features_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[argparse.Namespace] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "deployments.commands.serve.run", lambda given, _: served.append(given) or 0
    )
    monkeypatch.setattr("deployments.commands.serve.require_free", lambda host, port: None)
    draw_folder(tmp_path / "my photos", PICTURES, seed=2)
    root = tmp_path / "root"
    assert main(["try", "my photos", "--root", str(root), "--no-captions"]) == 0
    (given,) = served
    assert (given.host, given.name, given.root) == ("127.0.0.1", [], str(root))

    found = answer(root, "/v1/progress/my-photos").json()
    assert found["warning"] == ""  # these are drawn
    tables = {each["title"]: (each["done"], each["planned"]) for each in found["tables"]}
    assert tables["image features of my-photos"] == (PICTURES, PICTURES)
    assert tables["captions of my-photos"] == (0, PICTURES)
    lacking = {each["name"]: each["lacks"] for each in found["methods"]}
    assert lacking["image-text-sum"] == lacking["lincir"] == []
    assert lacking["cvsi"] == ["caption features of my-photos"]
    shown = answer(root, "/progress/my-photos").text
    assert 'id="made" data-whole' not in shown  # so that the page renews it
    assert "waits for caption features of my-photos" in shown
    missing = answer(root, "/progress/my-photo")
    assert missing.status_code == 404
    assert "my-photos" in missing.text


@pytest.mark.parametrize("kind", ["empty", "text file", "texts"])
def test_what_holds_no_picture_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.setattr("deployments.commands.serve.require_free", lambda host, port: None)
    source, root = tmp_path / "photos", tmp_path / "root"
    source.mkdir()
    if kind != "empty":
        (source / "notes.txt").write_text("no picture")
    given = source / "notes.txt" if kind == "text file" else source
    assert main(["try", str(given), "--root", str(root)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds no picture that can be used" in said
    assert "Name a folder with JPEG, PNG" in said
    assert ("notes.txt" in said) == (kind != "empty")
    assert not root.exists()


def test_captions_that_died_are_told_where_progress_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setattr(try_, "rest_of", lambda arguments, name: ["no-such-command"])
    given = argparse.Namespace(profile="tiny", set=[], root=str(root), no_captions=False)
    with try_.captioning(given, "p") as fault_of:
        deadline = time.monotonic() + 300
        while not (fault := fault_of("p")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert fault_of("another") == ""
    log = root / "try-p.log"
    assert fault == f"captions ended with status 2, see {log}; cirflow no-such-command"
    assert "no-such-command" in log.read_text()

    draw_folder(tmp_path / "p", 1, seed=2)
    assert main(["ingest", str(tmp_path / "p"), "--name", "p", "--root", str(root)]) == 0
    assert answer(root, "/v1/progress/p", lambda gallery: fault).json()["fault"] == fault
    assert f'role="alert">{fault}' in answer(root, "/progress/p", lambda gallery: fault).text


def test_a_collection_without_images_has_no_ready_method(tmp_path: Path) -> None:
    """Earlier versions made such a collection."""
    from storage.collections.collection import NothingUsable, ingest
    from storage.collections.names import Found, give_name
    from storage.locations.location import Location
    from storage.tables.listing import list_tables
    from storage.tables.table import load_table
    from tasks.readiness import readiness
    from tests.fakes.drawn import small_profile

    own = small_profile(tmp_path / "root")
    root, place = Location(own.root), tmp_path / "bare"
    place.mkdir()
    (place / "notes.jpg").write_text("not a picture")
    with pytest.raises(NothingUsable):
        ingest(root, place, "bare")
    (listed,) = list_tables(root, ["sources"])
    rows = load_table(root, "sources", listed.spec_key)
    give_name(Found(root, "bare", str(place), rows, list(rows.read()["source_key"])), "refuse")
    found = readiness(own, "bare", ["image-text-sum"])
    assert [each.planned for each in found.tables] == [0]
    assert not found.methods[0].ready


@pytest.mark.parametrize(
    ("source", "name"),
    [("/a/photos", "photos"), ("/a/My photos (2)/", "My-photos-2-"), ("s.tar", "s.tar")],
)
def test_a_collection_is_named_after_its_folder(source: str, name: str) -> None:
    assert try_.name_of(source) == name


def test_a_folder_without_a_name_needs_one() -> None:
    with pytest.raises(UserError, match="--name"):
        try_.name_of("/a/...")


def test_the_command_of_the_background_is_one_that_runs(tmp_path: Path) -> None:
    draw_folder(tmp_path / "p", 1, seed=2)
    root = str(tmp_path / "root")
    assert main(["ingest", str(tmp_path / "p"), "--name", "p", "--root", root]) == 0
    given = argparse.Namespace(profile="tiny", set=["cvsi.captions_per_image=1"], root=root)
    command = try_.rest_of(given, "p")
    assert shlex.join(command).startswith(
        "run embed-gallery --profile tiny --set collection=p --set methods=cvsi,instructcir --set "
    )
    parser = argparse.ArgumentParser()
    run_command.add_arguments(parser)
    parsed = parser.parse_args(command[1:])
    checked = run_command.checked_parameters(parsed)
    assert checked["methods"] == ["cvsi", "instructcir"]
    assert checked["settings"] == {"cvsi.captions_per_image": 1, "root": root}
