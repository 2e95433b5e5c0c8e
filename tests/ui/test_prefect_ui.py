"""What a person does at a screen: a new backbone from a form, and a backfill by schedule.

The server is real, and so is the browser. Everything that is clicked or read is on a page; only
what must have happened behind it is looked up in the tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Page, expect

from flows.profiles import resolve_profile
from models.retrieval.methods import METHODS, VERIFY
from storage.benchmarks.registry import BENCHMARKS
from tasks.profile_stages import caption_stage
from tasks.scoring.ledger import read_ledger
from tests.fakes.drawn import draw_folder
from tests.fakes.live_stack import LiveStack
from tests.ui.prefect_pages import DeploymentPage, RunPage
from tests.ui.team_stack import EVALUATED, PHOTOS

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(2400)]

NEW_BACKBONE = Path(__file__).resolve().parents[2] / "models" / "embedded" / "clip_small"
NEW_PHOTOS = 3
TEXTS = ("captions of", "edited captions of", "added objects of")
"""Stages that no backbone has a part in."""


def contents(pictures: Sequence[Path]) -> set[str]:
    """Ids of images: what their bytes hash to."""
    return {hashlib.sha256(picture.read_bytes()).hexdigest() for picture in pictures}


def run_names(stack: LiveStack) -> list[str]:
    """Names of all runs that were ever asked for, those of schedules left out."""
    with stack.client() as client:
        return sorted(run.name for run in client.read_flow_runs() if not run.auto_scheduled)


def test_a_new_backbone_is_evaluated_from_its_form(
    stack: LiveStack, page: Page, tmp_path: Path
) -> None:
    before = run_names(stack)
    form = DeploymentPage(page).open(stack.settings.url, "rerun-backbone").custom_run()
    assert "photos" in form.field("mapping_captions").choices()  # ingested after `cirflow up`
    form.field("backbone", "Name").pick(str(NEW_BACKBONE))
    form.field("backbone", "Pretrained").write("")
    form.field("methods").choose(*EVALUATED)
    form.field("mapping_captions").pick("photos")
    form.field("mapping_steps").write(20)
    page.screenshot(path=tmp_path / "form.png")
    run = form.submit()
    assert len(run_names(stack)) == len(before) + 1
    assert run.wait_for_end() == "Completed", run.log()
    page.screenshot(path=tmp_path / "run.png")

    shown = run.artifact("backbones-cirr-val")
    page.screenshot(path=tmp_path / "artifact.png")
    entries = read_ledger(str(stack.root))
    backbones = list(dict.fromkeys(entry["backbone"] for entry in entries))
    assert len(backbones) == 2
    rows = {row["method"]: row for row in shown.table("papers")}
    assert {row["method"] for row in rows.values()} == {METHODS[name].title for name in EVALUATED}
    for entry in entries:
        value = rows[METHODS[entry["method"]].title][entry["backbone"]]
        assert value == f"{entry['metrics']['recall@1']['value']:.2f}"
    stages = shown.table("reused")
    texts = [row for row in stages if row["stage"].startswith(TEXTS)]
    assert {row["stage"].split(" of ")[0] for row in texts} == {t[: -len(" of")] for t in TEXTS}
    assert {row["made"] for row in texts} == {"0"}
    features = next(row for row in stages if row["stage"] == "image features of cirr-val gallery")
    assert int(features["made"]) > 0


def test_the_form_offers_what_is_allowed_and_refuses_the_rest(
    stack: LiveStack, page: Page, tmp_path: Path
) -> None:
    before = run_names(stack)
    form = DeploymentPage(page).open(stack.settings.url, "rerun-backbone").custom_run()
    assert form.field("benchmarks", "Name").choices() == list(BENCHMARKS)
    assert "benchmarks/cirr" in form.field("benchmarks", "Folder").choices()
    splits = form.field("benchmarks", "Split").choices()
    assert splits[:3] == ["val", "test1", "test"]
    assert set(splits) == {split for facts in BENCHMARKS.values() for split in facts.offered_splits}
    runnable = {name for name, method in METHODS.items() if method.runs}
    offered = set(form.field("methods").choices())  # a long list is drawn as far as it is seen
    assert {"image-only", "lincir", "cvsi", "instructcir"} <= offered
    assert offered <= runnable | {name + VERIFY for name in runnable}

    editor = form.use_json()
    given = json.loads(editor.input_value())
    given["benchmarks"][0]["split"] = "valid"
    editor.fill(json.dumps(given, indent=2))
    complaint = form.submit_in_vain()
    page.screenshot(path=tmp_path / "refused.png")
    assert f"'valid' is not one of {splits}" in complaint
    assert run_names(stack) == before


def test_the_form_of_a_schedule_refuses_what_each_run_would(
    stack: LiveStack, page: Page, tmp_path: Path
) -> None:
    """Prefect's form of a schedule knows no limits, and its server takes what it sends."""
    deployment = DeploymentPage(page).open(stack.settings.url, "generate-triplets")
    said = deployment.schedule_in_vain("count", -3)
    page.screenshot(path=tmp_path / "schedule.png")
    assert "-3 is less than the minimum of 1" in said
    with stack.client() as client:
        found = client.read_deployment_by_name("generate-triplets/generate-triplets")
    assert found.schedules == []


def test_a_report_opens_from_its_artifact(stack: LiveStack, page: Page, tmp_path: Path) -> None:
    with stack.client() as client:
        runs = client.read_flow_runs()
        scored = next(run for run in runs if run.name.startswith("score cirr val"))
    page.goto(f"{stack.settings.url}/runs/flow-run/{scored.id}")
    shown = RunPage(page).artifact("scores-cirr-val.*")
    report = shown.opened("Full report")
    assert report.url.startswith(f"{stack.settings.service_url}/reports/")
    expect(report.get_by_role("heading", level=1)).to_be_visible()
    rows = report.get_by_role("table").first.inner_text()
    assert all(METHODS[name].title in rows for name in EVALUATED)
    report.screenshot(path=tmp_path / "report.png")


def test_a_scheduled_backfill_picks_up_just_the_new_images(
    stack: LiveStack, page: Page, tmp_path: Path
) -> None:
    table = caption_stage(resolve_profile("tiny", {"root": str(stack.root)}), "photos").table()
    before = table.read()
    parts = {part.path: part.stamp for part in table.parts()}

    nightly = DeploymentPage(page).open(stack.settings.url, "nightly")
    nightly.switch_schedule_on()
    drawn = draw_folder(stack.folder / "photos" / "of today", NEW_PHOTOS, seed=77)
    stack.cirflow("ingest", "photos", "--name", "photos")
    nightly.edit_schedule("* * * * *")  # night falls
    page.screenshot(path=tmp_path / "schedule.png")
    run = nightly.first_run("captions of all")
    assert run.wait_for_end() == "Completed", run.log()
    page.screenshot(path=tmp_path / "run.png")
    assert "auto-scheduled" in run.tags()
    assert run.detail("Created By") == "nightly"

    shown = run.artifact("backfill-all")
    page.screenshot(path=tmp_path / "artifact.png")
    made = {row["stage"]: (row["made"], row["reused"]) for row in shown.table("stage")}
    assert made.pop("captions of photos") == (str(NEW_PHOTOS), str(PHOTOS))
    assert {numbers[0] for numbers in made.values()} == {"0"}
    DeploymentPage(page).open(stack.settings.url, "nightly").switch_schedule_off()

    after = table.read()
    assert len(after) == len(before) + NEW_PHOTOS
    known = before["image_id"].implode()
    assert after.filter(pl.col("image_id").is_in(known)).equals(before)
    assert set(after.filter(~pl.col("image_id").is_in(known))["image_id"]) == contents(drawn)
    assert parts.items() <= {part.path: part.stamp for part in table.parts()}.items()
