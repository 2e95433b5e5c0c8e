"""Every comparison system is trained by one flow; the profile that it writes uses them all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.profiles import extended, resolve_profile
from flows.requests.train_systems import TRAINABLE, in_order
from models.composed.registry import SYSTEMS
from models.retrieval.methods import METHODS


def test_a_start_is_trained_before_what_starts_from_it() -> None:
    assert in_order(["clip4cir", "covr"]) == [
        ("clip4cir-sum", ""),
        ("clip4cir", "clip4cir-sum"),
        ("covr", ""),
    ]
    everything = in_order(list(TRAINABLE))
    places = {name: place for place, (name, _) in enumerate(everything)}
    assert places.keys() == TRAINABLE.keys()
    assert all(places[start] < places[name] for name, start in everything if start)
    assert {name for name, start in everything if start} == {
        name for name, system in SYSTEMS.items() if system.build is None and name in TRAINABLE
    }
    assert SYSTEMS.keys() - TRAINABLE.keys() == {"tuned-embedding"}


def test_a_file_gives_what_it_extends_and_changes(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('extends = "tiny"\nroot = "r"\n[composed]\ncandidate-filter = "f"\n')
    assert extended(str(file)) == ("tiny", {"root": "r", "composed.candidate-filter": "f"})
    assert extended("production") == ("production", {})


def test_what_a_system_does_not_take_is_refused_by_name() -> None:
    from flows.requests.train_systems import train_systems

    for given, said in (
        ({"searle": {"joined": 5}}, "parameters.searle has network, training; given"),
        ({"covr": {"n": 5}}, "parameters.covr has network, training, joined; given"),
    ):
        with pytest.raises(ValueError, match=said):
            train_systems("triplets.json", parameters=given)


@pytest.mark.slow
@pytest.mark.prefect
def test_all_are_trained_once_and_run(tmp_path: Path, prefect_results: Path) -> None:
    from flows.train_systems import train_systems
    from tasks.methods import why_not_ready
    from tests.fakes.triplet_tables import write_triplets

    triplets = write_triplets(str(tmp_path))
    training = {"max_steps": 2, "batch_size": 4, "validation": 4}
    asked: dict[str, Any] = {
        "triplets": triplets.model_dump(mode="json"),
        "parameters": {
            name: {"training": training, **({"joined": 2} if name == "covr" else {})}
            for name in TRAINABLE
        },
        "settings": {"root": str(tmp_path), "inversion.oti.steps": 2},
        "out": str(tmp_path / "out"),
    }
    made = train_systems(**asked)
    profile = resolve_profile(made["profile"])
    assert profile.root == str(tmp_path)
    assert profile.composed == {
        name: made["settings"][TRAINABLE[name]] for name in TRAINABLE if name in SYSTEMS
    }
    compared = [name for name in TRAINABLE if name in METHODS]  # some are first stages alone
    assert {why_not_ready(name, profile) for name in compared} == {""}
    states = sorted(Path(tmp_path, "checkpoints").rglob("config.json"))
    stamps = [path.stat().st_mtime_ns for path in states]
    assert len(states) == len(TRAINABLE)
    card = json.loads(Path(made["settings"]["composed.covr"], "config.json").read_text())
    assert card["provenance"]["triplets"]["joined"] == 2
    assert train_systems(**asked)["settings"] == made["settings"]
    assert [path.stat().st_mtime_ns for path in states] == stamps
