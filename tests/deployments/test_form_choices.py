"""Forms that offer what exists: drop-downs from a root, folders of runs, summaries of states."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deployments.commands.run import FLOWS
from flows.choices import choices_of
from flows.form_choices import (
    ADVANCED,
    FIELDS,
    LAST,
    asked_root,
    offering,
    with_latest_triplets,
)
from flows.requests.checks import out_folder

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "collection": {"type": "string", "default": "all", "position": 0, "title": "collection"},
        "backbone": {"$ref": "#/definitions/Clip", "position": 1, "title": "backbone"},
        "triplets": {"anyOf": [{"type": "string"}, {"type": "object"}], "position": 2},
        "runs": {"type": "integer", "default": 1, "position": 3, "title": "runs"},
        "kind": {"type": "string", "enum": ["a", "b"], "position": 4, "title": "kind"},
    },
    "definitions": {"Clip": {"type": "object", "properties": {"name": {"type": "string"}}}},
}
CHOICES = {"collection": ("photos",), "backbone": ("ViT-B-32",), "triplets": ("t.json",)}


def offered(field: Mapping[str, Any]) -> list[str]:
    """The names in a field's drop-down."""
    (names,) = [each["enum"] for each in field["anyOf"] if "enum" in each]
    return list(names)


def test_what_exists_is_a_choice_and_any_other_name_may_be_typed() -> None:
    from prefect.utilities.schema_tools.validation import ValidationError, validate

    made = offering(SCHEMA, CHOICES, {"collection": "mine"})
    fields = made["properties"]
    assert offered(fields["collection"]) == ["photos", "all", "mine"]
    assert offered(made["definitions"]["Clip"]["properties"]["name"]) == ["ViT-B-32"]
    assert offered(fields["triplets"]) == ["t.json"]
    assert {"type": "object"} in fields["triplets"]["anyOf"]
    assert fields["kind"] == SCHEMA["properties"]["kind"]
    order = sorted(fields, key=lambda name: fields[name]["position"])
    assert order == ["collection", "backbone", "triplets", "kind", "runs"]
    assert fields["runs"] == {**SCHEMA["properties"]["runs"], **LAST_OF_RUNS}
    for collection in ("photos", "new ones"):
        validate({"collection": collection}, made, raise_on_error=True)
    with pytest.raises(ValidationError):
        validate({"collection": 5}, made, raise_on_error=True)


def test_forms_offer_what_lies_under_the_root_that_a_run_was_asked_for() -> None:
    """The demo keeps its tables in a folder of its own, where no other form looks."""
    assert asked_root({"out": "out/demo", "profile": "tiny", "settings": None}) == ".cirflow"
    assert asked_root({"collection": "a", "settings": {"root": "tables"}}) == "tables"


def test_a_list_of_names_says_in_its_text_what_exists() -> None:
    items = {"type": "string"}
    field = {"type": "array", "items": items, "description": "Names.", "position": 0}
    schema = {"type": "object", "properties": {"collections": field}}
    given = {"collections": ["photos"]}
    made = offering(schema, {"collection": ("shirts",)}, given)
    shown = made["properties"]["collections"]
    assert shown == {**field, "description": "Names. There are: shirts, photos."}
    assert offering(made, {"collection": ("shirts",)}, given) == made
    later = offering(made, {"collection": ("dogs",)}, {})["properties"]["collections"]
    assert later["description"] == "Names. There are: dogs, shirts, photos."
    offers = [{"type": "string", "title": "a name"}]
    offers += [{"type": "string", "title": "one that exists", "enum": ["old"]}]
    before = {**schema, "properties": {"collections": {**field, "items": {"anyOf": offers}}}}
    again = offering(before, {"collection": ("new",)}, {})["properties"]["collections"]
    assert again == {**field, "description": "Names. There are: new, old."}


def test_a_switch_says_its_default_once() -> None:
    group = {"type": "object", "properties": {"gather": {"type": "boolean", "default": True}}}
    switch = {"type": "boolean", "default": False, "description": "Stop.", "position": 0}
    schema = {"type": "object", "properties": {"dry_run": switch, "loss": group}}
    made = offering(schema, {}, {})
    assert made["properties"]["dry_run"]["description"] == "Stop. Default: off."
    assert made["properties"]["loss"]["properties"]["gather"]["description"] == "Default: on."
    assert offering(made, {}, {}) == made


LAST_OF_RUNS = {"position": 3 + LAST, "title": "advanced: runs"}


def test_a_repetition_adds_names_and_changes_nothing_else() -> None:
    once = offering(SCHEMA, CHOICES, {})
    assert offering(once, CHOICES, {}) == once
    more = offering(once, {**CHOICES, "collection": ("later",)}, {})
    assert offered(more["properties"]["collection"]) == ["later", "all", "photos"]
    assert offering(SCHEMA, {}, {})["properties"]["triplets"] == {
        "anyOf": [{"type": "string"}, {"type": "object"}],
        "position": 2,
    }


def test_triplets_that_are_gone_are_offered_no_longer() -> None:
    """A deployment of an earlier version: its value was offered, and the file is not there."""
    shipped = {"triplets": "out/triplets/triplets.json"}
    earlier = offering(SCHEMA, {"triplets": (shipped["triplets"], "old.json")}, shipped)
    assert offered(earlier["properties"]["triplets"]) == [shipped["triplets"], "old.json"]
    again = offering(earlier, {"triplets": ("new.json",)}, shipped)["properties"]["triplets"]
    assert offered(again) == ["new.json"]
    assert {"type": "object"} in again["anyOf"]
    none = offering(earlier, {"triplets": ()}, shipped)["properties"]["triplets"]
    assert [each["type"] for each in none["anyOf"]] == ["string", "object"]
    assert not [each for each in none["anyOf"] if "enum" in each]


def test_trainings_begin_with_the_latest_triplets_unless_somebody_chose_others(
    tmp_path: Path,
) -> None:
    for age, name in enumerate(("triplets-2", "triplets-1")):  # the second by name is the latest
        file = tmp_path / "out" / name / "triplets.json"
        file.parent.mkdir(parents=True)
        file.write_text("{}")
        os.utime(file, (1000 - age, 1000 - age))
    choices = choices_of(str(tmp_path / "root"), tmp_path)
    latest, other = (f"out/triplets-{number}/triplets.json" for number in (2, 1))
    assert choices["triplets"] == (latest, other)
    shipped = {"triplets": "out/triplets/triplets.json", "system": "covr"}
    assert with_latest_triplets(shipped, choices) == {"triplets": latest, "system": "covr"}
    for given in ({"triplets": other}, {"triplets": "mine.json"}, {"name": "photos"}):
        assert with_latest_triplets(given, choices) == given
    earlier = {"triplets": "triplets.json", "method": "cvsi"}
    assert with_latest_triplets(earlier, choices) == {"triplets": latest, "method": "cvsi"}
    assert with_latest_triplets(shipped, {"triplets": ()}) == shipped
    there = {"triplets": (latest, "out/triplets/triplets.json")}
    assert with_latest_triplets(shipped, there) == shipped


def test_every_field_that_offers_something_exists() -> None:
    found: set[tuple[str, str]] = set()
    for entry in FLOWS.values():
        flow = getattr(importlib.import_module(entry.module), entry.function)
        schema = flow.parameters.model_dump_for_openapi()
        found |= {("", name) for name in schema["properties"]}
        for group, own in schema.get("definitions", {}).items():
            found |= {(group, name) for name in own.get("properties", {})}
    assert set(FIELDS) <= found
    assert {("", name) for name in ADVANCED} <= found


def test_choices_are_what_lies_in_the_root_and_the_folder(tmp_path: Path) -> None:
    root = tmp_path / ".cirflow"
    for file in (
        root / "collections" / "photos.json",
        root / "checkpoints" / "mapping" / "aa11" / "config.json",
        root / "checkpoints" / "reformulation" / "bb22" / "config.json",
        root / "checkpoints" / "reformulation" / "unfinished" / "weights.safetensors",
        tmp_path / "benchmarks" / "cirr" / "images.txt",
        tmp_path / "out" / "triplets" / "r1" / "triplets.json",
        tmp_path / "checkpoints" / "mine" / "open_clip_config.json",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    (tmp_path / "team.toml").write_text('extends = "tiny"\n')
    (tmp_path / "other.toml").write_text("[tool]\n")
    found = choices_of(str(root), tmp_path)
    assert found["collection"] == ("photos",)
    assert found["benchmark"] == ("benchmarks/cirr",)
    assert f"{root}/checkpoints/mapping/aa11" in found["mapping"]
    assert [n for n in found["network"] if str(root) in n] == [
        f"{root}/checkpoints/reformulation/bb22"
    ]
    assert "checkpoints/mine" in found["backbone"]
    assert found["triplets"] == ("out/triplets/r1/triplets.json",)
    assert found["profile"][-1] == "team.toml"


def test_each_run_of_a_deployment_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT__FLOW_RUN_ID", raising=False)
    assert out_folder("", "out/rerun") == Path("out/rerun")
    made = set()
    for run in ("0192b0c1-0000-7000-8000-0000000000aa", "0192b0c1-0000-7000-8000-0000000000bb"):
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", run)
        assert out_folder("mine", "out/rerun") == Path("mine")
        made.add(out_folder("", "out/rerun"))
    assert len(made) == 2
    assert {place.parent for place in made} == {Path("out/rerun")}


def test_the_final_state_sums_up() -> None:
    from flows.summaries import summed_up

    stage = {"made": 3, "reused": 10, "failed": 1}
    state = summed_up(
        {
            "scores": {"cirr val": {"cvsi": {"recall@1": 31.25}, "lincir": {"recall@1": 20.0}}},
            "main_metrics": {"cirr val": "recall@1"},
            "stages": [stage, stage],
            "left out": {"palavra": "it lacks a checkpoint"},
            "report": "out/report.html",
        }
    )
    assert state.message == (
        "cirr val: cvsi 31.25 recall@1, best of 2; 6 rows made, 20 reused, 2 failed in 2 stages; "
        "1 method left out, with reasons in the artifact; report out/report.html"
    )
    elsewhere = {"scores": {"cirr val on B": {"lincir": {"recall@1": 20.0}}}}
    said = summed_up(state.data, elsewhere | {"main_metrics": {"cirr val on B": "recall@1"}})
    assert str(said.message).startswith("cirr val on B: lincir 20.00 recall@1, best of 1; 6 rows")
    assert said.data == state.data


def test_the_final_state_of_one_row_counts_it_as_one() -> None:
    """A rerun with one missing row."""
    from flows.summaries import summed_up

    stage = {"made": 1, "reused": 20, "failed": 0}
    said = "1 row made, 20 reused, 0 failed in 1 stage"
    assert summed_up({"stages": [stage]}).message == said
