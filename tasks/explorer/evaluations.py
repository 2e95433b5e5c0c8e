"""Finished evaluations: written down when they end, and listed from the root afterwards."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.redaction import redact
from models.spelling import unknown
from storage.locations.location import Location
from storage.tables.keys import content_key
from storage.tables.listing import list_tables
from storage.tables.schemas import OK
from storage.tables.table import load_table, open_table
from tasks.query_sets import BenchmarkRef, is_embedded_world
from tasks.settings import Profile
from tasks.stages.rankings import RankingStage

EVALUATIONS_SPEC: Final[Mapping[str, Any]] = {"producer": "cirflow/evaluations/1"}


class UnknownEvaluation(LookupError):
    """The root knows no evaluation of a key; the message lists some that it knows."""


@dataclass(frozen=True)
class Evaluation:
    """Methods that ranked one benchmark in one run of a flow.

    Attributes:
        key: Identity: the benchmark, the settings, the rankings and the report's folder.
        root: Root of the tables.
        benchmark: Name of the benchmark.
        split: Its split.
        title: Name of what was evaluated, as in reports.
        backbone: Name of the query encoder.
        world: `embedded` for drawn pictures, else `real`.
        queries: Number of queries.
        runs: Method -> spec key of its ranking.
        ref: The benchmark with its listing.
        profile: The settings, as JSON.
        folder: Folder of the report, on the machine that made it.
        created: When it finished, in ISO form.
    """

    key: str
    root: str
    benchmark: str
    split: str
    title: str
    backbone: str
    world: str
    queries: int
    runs: Mapping[str, str]
    ref: BenchmarkRef
    profile: str
    folder: str
    created: str


def record_evaluation(
    profile: Profile, rankings: Sequence[RankingStage], backbone: str, folder: Path
) -> str:
    """Write down a finished evaluation of one benchmark, once; returns its key.

    Args:
        profile: Settings of the run.
        rankings: Its rankings, at least one, all of one benchmark.
        backbone: Name of the query encoder for people.
        folder: Folder of the report.
    """
    ref = rankings[0].benchmark
    runs = {stage.method: stage.spec_key for stage in rankings}
    said = {
        "ref": ref.model_dump_json(),
        "profile": redact(profile.model_dump_json()),
        "folder": str(folder.resolve()),
    }
    key = content_key({**said, "runs": runs})
    table = open_table(Location(profile.root), "evaluations", EVALUATIONS_SPEC)
    for shard in table.plan([key], 1).shards:
        row = {
            "evaluation_key": key,
            "benchmark": ref.name,
            "split": ref.split,
            "title": ref.title,
            "backbone": backbone,
            "world": "embedded" if is_embedded_world(ref.root) else "real",
            "queries": len(ref.load().queries),
            "methods": list(runs),
            "runs": list(runs.values()),
            **said,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        table.publish(shard, table.rows(**{name: [value] for name, value in row.items()}))
    return key


def finished_evaluations(root: str) -> list[Evaluation]:
    """The evaluations that a root knows of, the latest first.

    One that was run again is listed once, also where settings changed that change no ranking.
    """
    latest: dict[str, Evaluation] = {}
    for each in _recorded(root):
        same = {"ref": each.ref.model_dump_json(), "runs": dict(each.runs), "folder": each.folder}
        latest.setdefault(content_key(same), each)
    return list(latest.values())


def _recorded(root: str) -> list[Evaluation]:
    location = Location(root)
    found = []
    for info in list_tables(location, ["evaluations"]):
        for row in load_table(location, "evaluations", info.spec_key).read().to_dicts():
            if row["status"] == OK:
                found.append(_evaluation(location.root, row))
    return sorted(found, key=lambda each: (each.created, each.key), reverse=True)


def evaluation_of(root: str, key: str) -> Evaluation:
    """One evaluation by its key.

    Raises:
        UnknownEvaluation: the root knows none of this key.
    """
    known = {each.key: each for each in _recorded(root)}
    if key not in known:
        raise UnknownEvaluation(unknown("evaluation", key, list(known)[:6], also=known))
    return known[key]


def report_folders(root: str) -> dict[str, Path]:
    """Name in addresses -> a folder that an evaluation wrote its report to."""
    folders = dict.fromkeys(each.folder for each in finished_evaluations(root))
    return {folder_key(Path(folder)): Path(folder) for folder in folders}


def folder_key(folder: Path) -> str:
    """The name of a report's folder in addresses, which does not tell its path."""
    return content_key({"folder": str(folder.resolve())})[:16]


def _evaluation(root: str, row: Mapping[str, Any]) -> Evaluation:
    same = ("benchmark", "split", "title", "backbone", "world", "queries", "profile")
    return Evaluation(
        key=row["evaluation_key"],
        root=root,
        runs=dict(zip(row["methods"], row["runs"], strict=True)),
        ref=BenchmarkRef.model_validate_json(row["ref"]),
        folder=row["folder"],
        created=row["created"],
        **{name: row[name] for name in same},
    )
