"""Train the comparison systems one after the other, and write a profile that names them all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prefect import flow
from prefect.states import State

from flows import run_names
from flows.profiles import extended
from flows.requests import train_systems as requests
from flows.requests.prepared import prepared_by
from flows.requests.train_systems import COMPODIFF, TRAINABLE, SystemsRequest, Wanted, prepared
from flows.summaries import summed_up
from flows.train_compodiff import train_compodiff
from flows.train_composed import train_composed
from flows.train_mapping import train_mapping
from models.textual_inversion.learner_settings import INVERSIONS
from storage.locations.location import Location
from tasks.artifacts import publish_markdown
from tasks.redacted import redacting
from tasks.report.markdown import markdown_table, plain
from tasks.unrecorded import run_subflow

PROFILE_FILE = "trained.toml"


@flow(
    name="train-systems",
    flow_run_name=run_names.training("train comparison systems"),
    persist_result=False,
    result_serializer="json",
)
@redacting
@prepared_by(requests.train_systems)
def train_systems(asked: SystemsRequest) -> State[Any]:
    """Train what is not published yet; whatever is finished stays, also where a later one fails."""
    folders: dict[str, str] = {}
    for each in asked.trainings:
        folders[each.system] = _trained(asked, each, folders)
    named = {TRAINABLE[name]: folder for name, folder in folders.items()}
    file = _write_profile(asked, named)
    publish_markdown(
        "trained-systems",
        markdown_table(("setting", "folder"), [(plain(k), plain(v)) for k, v in named.items()]),
        "trained comparison systems",
    )
    return summed_up({"settings": named, "profile": file})


def _trained(asked: SystemsRequest, wanted: Wanted, folders: Mapping[str, str]) -> str:
    values = prepared(asked, wanted, folders)
    if wanted.system in INVERSIONS:
        made = run_subflow(train_mapping, **values)
    elif wanted.system == COMPODIFF:
        made = run_subflow(train_compodiff, **values)
    else:
        made = run_subflow(train_composed, **values)
    return str(made["checkpoint"])


def _write_profile(asked: SystemsRequest, named: Mapping[str, str]) -> str:
    """A profile that extends the given one, with its settings and the trained networks."""
    place = Location(str(asked.out))
    base, values = extended(asked.profile_name)
    flat = {**values, "root": asked.profile.root, **asked.changes, **named}
    lines = [f"extends = {json.dumps(base)}"]
    # A JSON value that is neither null nor an object is a TOML value too.
    lines += [f"{name} = {json.dumps(value)}" for name, value in flat.items()]
    place.replace(PROFILE_FILE, ("\n".join(lines) + "\n").encode())
    return place.join(PROFILE_FILE)
