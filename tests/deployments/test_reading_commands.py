"""Commands that only read: tables, methods, and searching a gallery."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from deployments.cli import main
from models.retrieval.methods import METHODS
from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.keys import sha256_hex
from storage.tables.listing import list_tables
from tasks.methods import configured_method
from tasks.planner import gallery_stages, query_stages
from tasks.query_sets import OneQuery
from tasks.settings import Profile
from tasks.stages.caption_features import CaptionFeatureStage
from tests.fakes.drawn import draw_folder, small_profile, small_settings
from tests.fakes.filled_tables import fill
from tests.fakes.networks import write_network
from tests.fakes.openai_server import MODEL, FakeOpenAIServer, Reply, error

IMAGES = 7


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Some drawn pictures; the last two show the same bytes."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = draw_folder(folder, IMAGES, seed=51)
    copy = folder / "copy.png"
    copy.write_bytes(paths[-1].read_bytes())
    return [*paths, copy]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, pictures: list[Path]) -> Profile:
    """A profile whose tables hold an embedded gallery `drawn` and a bare one `bare`."""
    profile = small_profile(tmp_path_factory.mktemp("tables"), captions=2, shard=4)
    for name in ("drawn", "bare"):
        source = pictures[0].parent if name == "drawn" else pictures[0]
        ingest(Location(profile.root), source, name)
    stages = gallery_stages(profile, "drawn")
    images, captions = stages["image"], stages["captions"]
    assert isinstance(captions, CaptionFeatureStage)
    for stage in (images, captions.captions, captions):
        fill(stage)
    return profile


def search(profile: Profile, *arguments: str) -> list[str]:
    """Arguments of a search under the small profile."""
    settings = small_settings(profile.root, captions=2, shard=4)
    return ["search", *arguments, *(f"--set={key}={value}" for key, value in settings.items())]


def found(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> dict[str, object]:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# --------------------------------------------------------------------------- search


def test_an_image_finds_itself_and_its_copies(
    embedded: Profile, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = search(
        embedded, "--gallery=drawn", f"--image={pictures[-1]}", "--text=x", "--method=image-only"
    )
    result = found(capsys, [*asked, "--include-reference"])
    hits = result["hits"]
    assert isinstance(hits, list)
    others = found(capsys, asked)["hits"]  # by default the reference is not an answer
    assert [hit["image_id"] for hit in others] == [hit["image_id"] for hit in hits[1:]]
    assert [hit["rank"] for hit in hits] == list(range(1, IMAGES + 1))  # ten asked, seven there
    assert hits[0]["image_id"] == hashlib.sha256(pictures[-1].read_bytes()).hexdigest()
    assert hits[0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert sorted(Path(path).name for path in hits[0]["paths"]) == ["0006.png", "copy.png"]
    assert all(Path(path).is_file() for path in hits[0]["paths"])
    assert result["gallery_size"] == IMAGES
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_a_gallery_of_one_image_is_searched_and_counted_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = small_profile(tmp_path / "tables", captions=2, shard=4)
    (picture,) = draw_folder(tmp_path / "one", 1, seed=52)
    ingest(Location(profile.root), picture.parent, "one")
    fill(gallery_stages(profile, "one")["image"])
    asked = search(profile, "--gallery=one", f"--image={picture}", "--text=x")
    assert main([*asked, "--method=image-only", "--include-reference"]) == 0
    assert "image-only, a gallery of 1 image\n" in capsys.readouterr().out


def test_cvsi_search_shows_its_texts_and_fuses_as_the_equations_say(
    embedded: Profile, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text = "change the background to black"
    asked = search(embedded, "--gallery=drawn", f"--image={pictures[0]}", f"--text={text}", "-k3")
    result = found(capsys, asked)
    hits, captions, edits = result["hits"], result["captions"], result["edits"]
    assert isinstance(hits, list)
    assert len(hits) == 3
    assert isinstance(captions, list)
    assert len(captions) == 2
    assert isinstance(edits, list)
    # Equation 9 for the best hit, from the published files; equation 8 is tested with the models.
    stages = gallery_stages(embedded, "drawn")
    gamma = embedded.cvsi.weights["circo"].gamma
    best = hits[0]["image_id"]
    vectors = [
        pl.read_parquet(f"{embedded.root}/{stage.table().folder}/part-*.parquet")
        .filter(pl.col("image_id") == best)["vector"]
        .to_numpy()[0]
        .astype(np.float64)
        for stage in (stages["captions"], stages["image"])
    ]
    target = sum(
        w * v / np.linalg.norm(v) for w, v in zip((gamma, 1 - gamma), vectors, strict=True)
    )
    assert np.linalg.norm(target) > 0
    assert main(asked) == 0
    page = capsys.readouterr().out
    assert f"cvsi, a gallery of {IMAGES} images" in page
    assert f"caption: {captions[0]}" in page
    assert "  1  " in page


@pytest.mark.parametrize("method", ["instructcir", "cvsi-instructcir"])
def test_a_network_answers_searches_in_its_own_space(
    embedded: Profile,
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    method: str,
) -> None:
    from models.instructcir.checkpoint import load_network
    from models.instructcir.encoder import ReformulationEncoder

    folder = write_network(tmp_path / "network", combiner=False)
    shutil.copytree(embedded.root, tmp_path / "tables")  # other tests count what is in theirs
    named = embedded.instructcir.model_copy(update={"checkpoint": str(folder)})
    own = embedded.model_copy(update={"root": str(tmp_path / "tables"), "instructcir": named})
    asked = search(
        own, "--gallery=drawn", f"--image={pictures[0]}", "--text=change the background to black",
        f"--method={method}", f"--set=instructcir.checkpoint={folder}",
    )  # fmt: skip
    assert main(asked) == 2
    assert f"--set collection=drawn --set methods={method}" in capsys.readouterr().err
    for stage in gallery_stages(own, "drawn", method).values():
        fill(stage)
    hits = found(capsys, asked)["hits"]
    encoder = ReformulationEncoder(load_network(folder), device="cpu")
    query = encoder.encode_queries([Image.open(pictures[0])], ["change the background to black"]).z
    gallery = encoder.encode_gallery([Image.open(path) for path in pictures[:IMAGES]])
    cosines = (gallery / np.linalg.norm(gallery, axis=1, keepdims=True)) @ (
        query[0] / np.linalg.norm(query[0])
    )
    ids = [hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures[:IMAGES]]
    trained = {name: float(score) for name, score in zip(ids, cosines, strict=True)}
    scores = {hit["image_id"]: hit["score"] for hit in hits}
    expected = {name: score for name, score in trained.items() if name != ids[0]}
    if method == "cvsi-instructcir":
        asked[asked.index(f"--method={method}")] = "--method=cvsi"
        cvsi = {hit["image_id"]: hit["score"] for hit in found(capsys, asked)["hits"]}
        # A plain search ranks by a query of any length; the fusion by the cosine of each part.
        ratio = np.linalg.norm(cvsi_query(embedded, pictures[0]))
        share = embedded.instructcir.weights["circo"]
        expected = {
            name: (1 - share) * cvsi[name] / ratio + share * expected[name] for name in expected
        }
    assert scores == pytest.approx(expected, abs=1e-5)


def cvsi_query(profile: Profile, picture: Path) -> np.ndarray:
    """The fused query of CVSI for that search, whose length a plain search leaves in its scores."""
    from tasks.kept_searches import Kept
    from tasks.query_encodings import query_features
    from tasks.stages.decoded import OnePicture

    settings = profile.cvsi
    recipe = configured_method("cvsi", settings).recipe("circo")
    data = picture.read_bytes()
    query = OneQuery(image_id=sha256_hex(data), text="change the background to black")
    stages = query_stages(profile, query, "drawn", "cvsi", "circo")
    made, _ = query_features(stages, query, OnePicture(data, profile.pictures), Kept())
    return recipe.query_vectors(made, {})


def test_a_gallery_that_is_not_embedded_is_refused_with_the_command_that_helps(
    embedded: Profile, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The image of `bare` is in `drawn` too, so it is embedded; under other settings it is not."""
    asked = search(embedded, "--gallery=bare", f"--image={pictures[0]}", "--text=x")
    assert main(asked) == 0  # features are shared by content
    capsys.readouterr()
    assert main([*asked, "--set=cvsi.captions_per_image=3"]) == 2
    message = capsys.readouterr().err
    assert "'bare' is not embedded under profile 'tiny'" in message
    assert "cirflow run embed-gallery --set collection=bare" in message
    assert "--set cvsi.captions_per_image=3" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gallery": "nowhere"}, ["nowhere", "bare, drawn", "cirflow ingest"]),
        ({"image": "missing.png"}, ["missing.png"]),
        ({"method": "cvsy"}, ["cvsy", "cvsi", "lincir"]),
        ({"method": "covr"}, ["no trained network is named", "composed.covr=FOLDER"]),
        ({"k": "0"}, ["-k must be at least 1"]),
        ({"set": "encoder.device=gpu"}, ["encoder.device: a device is auto, cpu, cuda", "'gpu'"]),
    ],
)
def test_search_refuses_helpfully(
    embedded: Profile,
    pictures: list[Path],
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    said: list[str],
) -> None:
    given = {"gallery": "drawn", "image": str(pictures[0]), "text": "x", **change}
    options = [f"-k{value}" if key == "k" else f"--{key}={value}" for key, value in given.items()]
    assert main(search(embedded, *options)) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in said), message


def test_search_refuses_a_gpu_that_is_not_there_before_it_loads_models(
    embedded: Profile,
    pictures: list[Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("models.devices.gpu_is_available", lambda: False)
    options = ["--gallery=drawn", f"--image={pictures[0]}", "--text=x", "--set=encoder.device=cuda"]
    assert main(search(embedded, *options)) == 2
    message = capsys.readouterr().err
    assert "device 'cuda' was asked for, but torch sees no GPU; use 'cpu'" in message
    assert "loading models" not in message


def test_search_refuses_a_file_that_is_no_image(
    embedded: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.png").write_text("notes")
    asked = search(embedded, "--gallery=drawn", f"--image={tmp_path / 'notes.png'}", "--text=x")
    assert main(asked) == 2
    assert "not_an_image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (error(503, "no GPU is free"), ["503", "no GPU is free"]),
        (error(400, "prompt is too long"), ["400", "prompt is too long"]),
        (error(404, "the model `edit-model` does not exist"), ["404", "does not exist"]),
        (None, ["127.0.0.1", "does not answer; start it or correct base_url"]),
    ],
)
def test_search_says_what_the_language_models_server_said(
    embedded: Profile,
    pictures: list[Path],
    capsys: pytest.CaptureFixture[str],
    reply: Reply | None,
    said: list[str],
) -> None:
    with FakeOpenAIServer(then=lambda request: reply or error(500, "")) as server:
        address = server.base_url
        if reply is None:
            server.__exit__(None, None, None)
        settings = {"engine": "openai", "model": MODEL, "base_url": address, "attempts": 1}
        settings |= {"health_wait_seconds": 0.1, "transport_retries": 0}
        asked = search(embedded, "--gallery=drawn", f"--image={pictures[1]}", "--text=in red")
        asked += [f"--set=generator.{name}={value}" for name, value in settings.items()]
        assert main(asked) == 2
    message = capsys.readouterr().err.removeprefix("loading models\n")
    assert "Traceback" not in message
    assert message.startswith("cirflow: ")
    assert len(message.splitlines()) == 1
    assert all(part in message for part in said), message


def test_search_publishes_nothing(
    embedded: Profile, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {p: p.stat().st_mtime_ns for p in Path(embedded.root).rglob("*.parquet")}
    assert main(search(embedded, "--gallery=drawn", f"--image={pictures[1]}", "--text=x")) == 0
    assert main(search(embedded, "--gallery=drawn", f"--image={pictures[1]}", "--text=y")) == 0
    capsys.readouterr()
    assert {p: p.stat().st_mtime_ns for p in Path(embedded.root).rglob("*.parquet")} == parts


# --------------------------------------------------------------------------- cache


def test_cache_ls_lists_every_table_with_its_spec(
    embedded: Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "ls", "--root", embedded.root, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    rows = Counter()
    for table in listed:
        rows[table["name"]] += table["rows"]
    assert rows["captions"] == rows["image_features"] == rows["caption_features"] == IMAGES
    # `drawn` has eight inputs; `bare` is a source of its own with one more.
    assert rows["sources"] == IMAGES + 2
    for table in listed:
        folder = Path(embedded.root, table["name"], table["spec_key"])
        parts = list(folder.glob("part-*.parquet"))
        assert table["parts"] == len(parts)
        assert table["bytes"] == sum(part.stat().st_size for part in parts)
        assert table["spec"] == json.loads((folder / "spec.json").read_text())
    assert main(["cache", "ls", "--root", embedded.root, "--table", "captions"]) == 0
    page = capsys.readouterr().out
    assert "captions/" in page
    assert "image_features/" not in page


def test_cache_ls_of_an_empty_place_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "ls", "--root", str(tmp_path)]) == 0
    assert "no tables at" in capsys.readouterr().out
    assert main(["cache", "ls", "--root", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_table_that_is_not_there_is_not_called_sound(
    embedded: Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--root", embedded.root, "--table"]
    assert main(["cache", "ls", *place, "caption"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(f"no table 'caption' at {embedded.root}; there are: caption_features, ")
    assert main(["cache", "verify", *place, "caption"]) == 2
    said = capsys.readouterr()
    assert "unknown table 'caption'; did you mean 'captions'? known: caption_feat" in said.err
    assert "0 problems" not in said.out
    assert main(["cache", "verify", *place, "captions"]) == 0


def test_a_lost_table_is_named_by_its_files(
    embedded: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(embedded.root, tmp_path / "root")
    shutil.rmtree(root / "captions")
    assert main(["cache", "verify", "--root", str(root), "--table", "captions"]) == 1
    assert "is not there any more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("action", "option"),
    [("repair", "--dry-run"), ("repair", "--table=captions"), ("clean", "--quarantine")],
)
def test_an_option_of_another_action_is_refused_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str, option: str
) -> None:
    root = tmp_path / "root"
    broken = root / "captions" / "0123456789" / "part-0123456789.parquet"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"half")
    assert main(["cache", action, option, "--root", str(root)]) == 2
    said = capsys.readouterr().err
    assert f"{option.partition('=')[0]} belongs to `cirflow cache " in said
    assert f"`cirflow cache {action}` does not take it, and nothing was done" in said
    assert broken.exists()


def test_a_name_of_two_lines_is_shown_in_one(
    tmp_path: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    profile = small_profile(tmp_path / "tables", captions=2, shard=4)
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "new\nline\t.png").write_bytes(pictures[0].read_bytes())
    ingest(Location(profile.root), folder, "odd")
    fill(gallery_stages(profile, "odd", "image-only")["image"])
    options = ["--gallery=odd", f"--image={pictures[1]}", "--text=x", "--method=image-only"]
    assert main(search(profile, *options)) == 0
    *_, hit = capsys.readouterr().out.splitlines()
    assert hit.startswith("  1  ")
    assert hit.endswith("new\\nline\\t.png")


def test_cache_verify_finds_a_truncated_part_and_says_what_to_do(
    tmp_path: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ingest(Location(str(tmp_path)), pictures[0].parent, "drawn")
    assert main(["cache", "verify", "--root", str(tmp_path)]) == 0
    assert "2 tables read, 0 problems" in capsys.readouterr().out
    part = next(tmp_path.glob("images/*/part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-100])
    assert main(["cache", "verify", "--root", str(tmp_path)]) == 1
    page = capsys.readouterr().out
    assert part.name in page
    assert "cirflow cache repair" in page
    assert "ingesting their source" in page
    assert main(["cache", "verify", "--root", str(tmp_path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["tables"] == 2
    assert [problem["part"] for problem in report["problems"]] == [part.name]
    assert main(["cache", "verify", "--root", str(tmp_path), "--table", "sources"]) == 0
    capsys.readouterr()
    assert main(["cache", "ls", "--root", str(tmp_path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {table["name"]: table["unreadable"] for table in listed} == {"images": 1, "sources": 0}
    assert main(["cache", "verify", "--root", str(tmp_path), "--quarantine"]) == 1
    assert "put aside as" in capsys.readouterr().out
    assert not part.exists()
    assert len(list(part.parent.glob(f"{part.name}.quarantined-*"))) == 1  # nothing is deleted
    assert main(["cache", "verify", "--root", str(tmp_path)]) == 0
    ingest(Location(str(tmp_path)), pictures[0].parent, "drawn")
    assert part.exists()


# --------------------------------------------------------------------------- methods


def test_methods_json_is_the_method_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(METHODS)
    assert rows["cvsi"]["weights"]["circo"]["query_weights"] == {
        "edited_captions": 0.6,
        "fine_grained": 0.4,
    }
    assert all(row["reason"] for row in rows.values() if row["status"] != "ready")
    parts = rows["cvsi-instructcir"]["weights"]["circo"]["parts"]
    assert [part["weight"] for part in parts] == [0.5, 0.5]
    assert parts[1]["query_weights"] == {"instructcir": 1.0}
    assert main(["methods"]) == 0
    page = capsys.readouterr().out
    assert all(name in page for name in METHODS)


def test_methods_says_what_a_profile_can_run_and_what_is_not_zero_shot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"zero_shot": False, "zero_shot_reason": "trained on CIRR"}
    tuned = write_network(tmp_path / "tuned", record)

    def rows(*arguments: str) -> dict[str, dict[str, str]]:
        assert main(["methods", "--json", *arguments]) == 0
        return {row["name"]: row for row in json.loads(capsys.readouterr().out)}

    named = rows(f"--set=instructcir.checkpoint={tuned}")
    for name in ("instructcir", "cvsi-instructcir"):
        row = named[name]
        assert (row["status"], row["reason"]) == ("ready", "")
        assert row["label"] == "not zero-shot: trained on CIRR"
    assert named["cvsi"]["label"] == ""
    lacking = rows("--profile=production")["instructcir"]
    assert (lacking["status"], lacking["label"]) == ("needs_checkpoint", "")
    assert "cirflow run train-reformulation" in lacking["reason"]
    assert main(["methods", f"--set=instructcir.checkpoint={tuned}"]) == 0
    assert "not zero-shot: trained on CIRR" in " ".join(capsys.readouterr().out.split())


def test_tables_listed_by_the_command_are_those_of_the_library(
    embedded: Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["cache", "ls", "--root", embedded.root, "--json"])
    listed = json.loads(capsys.readouterr().out)
    known = [asdict(table) for table in list_tables(Location(embedded.root))]
    assert [t["spec_key"] for t in listed] == [t["spec_key"] for t in known]
