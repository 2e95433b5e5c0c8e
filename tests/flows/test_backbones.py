"""Evaluations on other backbones: texts are made once, a finished one is answered from tables.

What computes is counted in the forward passes of all modules, so that no hidden call is missed.
"""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deployments.cli import main
from deployments.commands.demo import show_scores
from embedded_world.benchmarks import WorldSize, write_world
from flows.forms import Backbone, BenchmarkChoice, Captioning, Work
from storage.locations.location import Location
from storage.tables.listing import list_tables
from storage.tables.table import load_table
from tasks.scoring.ledger import read_ledger
from tests.fakes.drawn import small_settings
from tests.fakes.model_calls import forget_models, forward_passes, refuse_models, text_passes
from tests.fakes.small_clip import write_small_clip

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

SIZE = WorldSize(subsets=3, circo_queries=2, fashion_queries=1, distractors=4)
METHODS = ("image-text-sum", "lincir", "cirevl", "cvsi", "instructcir")
ON_CLIP = METHODS[:-1]
"""Methods whose features the backbone makes; InstructCIR's network brings its own."""
LARGEST = 150_000


@dataclass(frozen=True)
class Ran:
    """One evaluation on the profile's backbone and one on a second, with what computed in each."""

    given: dict[str, Any]
    second: Backbone
    results: tuple[dict[str, Any], dict[str, Any]]
    passes: tuple[Counter[str], Counter[str]]
    pages: dict[str, str]
    root: str


@pytest.fixture(scope="module")
def ran(prefect_api: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Both evaluations, made once."""
    from flows.rerun_backbones import rerun_backbone
    from tasks.artifact_keys import artifact_key

    out = tmp_path_factory.mktemp("backbones")
    world = write_world(out / "world", SIZE, seed=51)
    (out / "clip").mkdir()
    (out / "captions.txt").write_text("a red circle\na small blue square\ntwo green stars\n")
    second = Backbone(name=str(write_small_clip(out / "clip")))
    given = {
        "benchmarks": [BenchmarkChoice(name="cirr", folder=str(world["cirr"]))],
        "methods": METHODS,
        "mapping_captions": str(out / "captions.txt"),
        "mapping_steps": 2,
        "settings": small_settings(out / "tables", captions=2, shard=64),
    }
    forget_models()
    with forward_passes() as on_first:
        first = rerun_backbone(Backbone(), **given, out=str(out / "first"))
    with forward_passes() as on_second:
        other = rerun_backbone(second, **given, out=str(out / "second"))
    names = [first["backbone"], other["backbone"]]
    keys = ["backbones-cirr-val", *(artifact_key("scores", "cirr-val", name) for name in names)]
    pages = {key: newest_artifact(key) for key in keys}
    root = str(out / "tables")
    return Ran(given, second, (first, other), (on_first, on_second), pages, root)


def newest_artifact(key: str) -> str:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        return str(
            client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC, limit=1)[
                0
            ].data
        )


def run_names() -> list[str]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return [run.name for run in client.read_flow_runs()]


# --------------------------------------------------------------------------- what is computed


def test_the_first_backbone_makes_captions_and_edits(ran: Ran) -> None:
    made = ran.passes[0]
    assert made["Blip2VisionModel"] > 0
    assert made["LlamaForCausalLM"] > 0
    assert made["open_clip"] > 0
    assert made["models.instructcir"] > 0


def test_a_second_backbone_asks_no_captioner_and_no_language_model(ran: Ran) -> None:
    assert text_passes(ran.passes[0]) > 0
    assert text_passes(ran.passes[1]) == 0
    assert ran.passes[1]["open_clip"] > 0
    assert ran.passes[1]["models.textual_inversion.network"] > 0  # trained and applied
    assert ran.passes[1]["models.instructcir"] == 0
    tables = ("/captions/", "/rewrites/")
    texts = [s for s in ran.results[1]["stages"] if any(name in s["where"] for name in tables)]
    assert {stage["where"].split("/")[-2] for stage in texts} == {"captions", "rewrites"}
    assert all(stage["made"] == 0 < stage["reused"] == stage["planned"] for stage in texts)


def test_a_finished_evaluation_loads_no_model_and_makes_nothing(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from flows.rerun_backbones import rerun_backbone

    forget_models()
    refuse_models(monkeypatch)
    with forward_passes() as passes:
        for backbone, before in zip((Backbone(), ran.second), ran.results, strict=True):
            again = rerun_backbone(backbone, **ran.given, out=str(tmp_path))
            assert again["scores"] == before["scores"]
            assert [stage["title"] for stage in again["stages"] if stage["made"]] == []
            assert sum(stage["reused"] for stage in again["stages"]) > 0
    assert passes == Counter()


def test_other_captions_are_made_anew(ran: Ran, tmp_path: Path) -> None:
    """The counters do see what is made: one caption more for each image."""
    from flows.rerun_backbones import rerun_backbone

    given = {**ran.given, "methods": ("cvsi",), "captioning": Captioning(per_image=3)}
    with forward_passes() as passes:
        rerun_backbone(Backbone(), **given, work=Work(shard_size=16), out=str(tmp_path))
    assert passes["Blip2VisionModel"] > 0


def test_a_backbone_of_a_newer_family_runs_with_pseudo_tokens(ran: Ran, tmp_path: Path) -> None:
    """SigLIP2's tokenizer and text tower, its mapping network trained in the same run."""
    from flows.rerun_backbones import rerun_backbone
    from tests.fakes.newer_towers import write_newer

    (tmp_path / "siglip2").mkdir()
    newer = Backbone(name=str(write_newer(tmp_path / "siglip2", "SigLIP2")))
    methods = ("image-only", "text-only", "image-text-sum", "lincir")
    given = {**ran.given, "methods": methods}
    with forward_passes() as passes:
        made = rerun_backbone(newer, **given, out=str(tmp_path / "out"))
    assert set(made["scores"]["cirr-val"]) == set(methods)
    assert text_passes(passes) == 0
    assert passes["models.textual_inversion.network"] > 0
    cut = {stage["title"]: stage["cut_texts"] for stage in made["stages"]}
    assert all(type(count) is int for count in cut.values())


# --------------------------------------------------------------------------- the matrix


def test_a_matrix_scores_every_method_on_every_backbone(
    ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.rerun_backbones import evaluate_matrix

    with forward_passes() as passes:
        made = evaluate_matrix([Backbone(), ran.second], **ran.given, out=str(tmp_path))
    assert passes == Counter()
    names = [result["backbone"] for result in ran.results]
    own = f"cirr-val on {names[0]} + reformulation"  # the network was trained on the embedded CLIP
    assert list(made["scores"]) == [
        f"cirr-val on {names[0]}", own, f"cirr-val on {names[1]}"
    ]  # fmt: skip
    for name, before in zip(names, ran.results, strict=True):
        scores = before["scores"]["cirr-val"]
        assert set(scores) == set(METHODS)
        assert made["scores"][f"cirr-val on {name}"] == {m: scores[m] for m in ON_CLIP}
        assert made["scores"][own] == {"instructcir": scores["instructcir"]}
        assert Path(made["reports"][name]).is_file()
    show_scores(made["scores"], made["main_metrics"], {})  # what the command line prints
    shown = " ".join(capsys.readouterr().err.split())  # a narrow table breaks its title
    assert all(f"cirr-val on {name}" in shown for name in names)
    assert len({made["reports"][name] for name in names}) == 2
    entries = read_ledger(ran.root)
    scored = {(entry["method"], entry["backbone"]) for entry in entries}
    assert {(method, name) for method in ON_CLIP for name in names} <= scored
    assert main(["leaderboard", "--root", ran.root]) == 0
    page = capsys.readouterr().out
    assert all(name in page for name in names)
    assert "the profile's backbone, clip on cirr val" in run_names()


# --------------------------------------------------------------------------- what one sees


def test_a_folder_is_called_by_its_name(ran: Ran) -> None:
    """And known by its content: no path, and no folder's name, is in the ledger's own column."""
    names = [result["backbone"] for result in ran.results]
    assert all(re.fullmatch(r"clip [0-9a-f]{8}", name) for name in names)
    assert names[0] != names[1]
    location = Location(ran.root)
    (results,) = [t for t in list_tables(location) if t.name == "results"]
    kept = set(load_table(location, "results", results.spec_key).read(["backbone"])["backbone"])
    assert {name.replace("clip", "local") for name in names} <= kept
    assert not any("clip" in name for name in kept)


def test_methods_that_keep_to_their_own_backbone_are_named(ran: Ran) -> None:
    from tasks.artifact_keys import artifact_key

    first, second = ran.results
    names = (first["backbone"], second["backbone"])
    assert first["not on this backbone"] == ""
    own = f"{first['backbone']} + reformulation".replace("clip", "local")
    assert second["not on this backbone"] == f"instructcir: {own}"
    apart = "but on a backbone of their own: instructcir: "
    said = [apart in ran.pages[artifact_key("scores", "cirr-val", name)] for name in names]
    assert said == [False, True]
    page = ran.pages["backbones-cirr-val"]
    head = next(line for line in page.splitlines() if line.startswith("| method"))
    cells = [cell.strip(" *") for cell in head.strip("|").split("|")]
    (row,) = [line for line in page.splitlines() if line.startswith("| InstructCIR |")]
    assert row.strip("|").split("|")[cells.index(second["backbone"])].strip() == ""


def test_the_page_shows_both_backbones_beside_the_papers(ran: Ran) -> None:
    page = ran.pages["backbones-cirr-val"]
    head, _, *rows = [line for line in page.splitlines() if line.startswith("|")]
    columns = [cell.strip(" *") for cell in head.strip("|").split("|")]
    names = [result["backbone"] for result in ran.results]
    assert set(columns) >= {"method", *names, "papers"}
    cells = {row.split("|")[1].strip(): [c.strip() for c in row.split("|")[1:-1]] for row in rows}
    for name, result in zip(names, ran.results, strict=True):
        expected = result["scores"]["cirr-val"]["cvsi"]["recall@1"]
        assert cells["CVSI"][columns.index(name)] == f"{expected:.2f}"
    # Table I of CVSI has no such backbone: the nearest number says which it is.
    assert cells["CVSI"][columns.index("papers")] == "33.81 (ViT-L/14, test1)"
    assert "not comparable" in page


def test_scores_come_with_a_small_strip_and_the_full_report(ran: Ran) -> None:
    from tasks.artifact_keys import artifact_key

    for result in ran.results:
        page = ran.pages[artifact_key("scores", "cirr-val", result["backbone"])]
        assert len(page.encode()) <= LARGEST
        pictures = re.findall(r"!\[[^]]*\]\(data:image/jpeg;base64,([^)]+)\)", page)
        assert len(pictures) == 3 * (1 + 5)
        for data in pictures:
            assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= 112
        (link,) = re.findall(r"\]\(file://([^)]+)\)", page)
        assert Path(link) == Path(result["report"]).resolve()
        assert Path(link).is_file()
        scores = result["scores"]["cirr-val"]["cvsi"]
        rows = [line for line in page.splitlines() if line.startswith("| CVSI |")]
        row = rows[0]  # of the scores; another table says what a query costs
        assert f"| {scores['recall@1']:.2f} |" in row


def test_the_mapping_network_that_was_trained_left_its_curve(ran: Ran) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    from tasks.report.markdown import plain

    wanted = ArtifactFilter(key=ArtifactFilterKey(like_="curves-mapping-%"))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=wanted)
    # Other tests may have trained under other roots, with the same server.
    curves = [str(each.data) for each in found if plain(ran.root) in str(each.data)]
    assert curves
    for curve in curves:
        assert "data:image/svg+xml;base64," in curve
        assert "Step 2, loss" in curve


def test_a_run_that_cannot_start_says_what_to_do(ran: Ran, tmp_path: Path) -> None:
    from flows.rerun_backbones import rerun_backbone

    given = {**ran.given, "mapping_captions": "", "methods": ("lincir", "image-text-sum")}
    state = rerun_backbone(ran.second, **given, out=str(tmp_path), return_state=True)
    assert state.is_failed()
    assert state.message is not None
    assert f"a mapping network for {ran.second.name} is missing: name one" in state.message
    assert "choose other methods than lincir" in state.message
    assert "backbone.mapping" in state.message
    assert "mapping_captions" in state.message
    assert not (tmp_path / "report.html").exists()


def test_a_benchmark_that_is_given_twice_is_refused_before_any_work(
    ran: Ran, tmp_path: Path
) -> None:
    from flows.rerun_backbones import rerun_backbone

    given = {**ran.given, "benchmarks": list(ran.given["benchmarks"]) * 2}
    state = rerun_backbone(ran.second, **given, out=str(tmp_path), return_state=True)
    assert state.is_failed()
    assert "benchmarks names cirr-val more than once: leave one out" in str(state.message)
    assert list(tmp_path.iterdir()) == []
