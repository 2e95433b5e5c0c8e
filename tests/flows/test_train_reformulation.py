"""The training flow under a real Prefect server: it trains once, shows how, and is then reused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.prefect

TASK = "train reformulation network"
"""Of the flow's one task."""
NAME = "train InstructCIR with drawn, first 50"
"""Of the flow run."""


def test_trains_once_and_is_reused(
    tmp_path: Path, task_states: Callable[[str], dict[str, str]]
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    from flows.train_reformulation import train_reformulation
    from models.instructcir.checkpoint import load_network
    from tests.fakes.triplet_tables import write_triplets

    triplets = write_triplets(str(tmp_path))

    def run() -> dict[str, object]:
        return train_reformulation(
            triplets.model_dump(mode="json"),
            settings={"root": str(tmp_path)},
            n=50,
            batch_size=8,
            learning_rate=1e-4,
            training={"max_steps": 3, "validation": 4},
            network={"cross_attended_blocks": 1},
            run={"accelerator": "cpu", "log_steps": 1},
            notes={"rewriter": "small"},
        )

    first = run()
    assert first["steps"] == 3
    assert task_states(NAME) == {TASK: "Completed"}
    loaded = load_network(str(first["checkpoint"]))
    assert loaded.online.settings.cross_attended_blocks == 1
    logs = Path(tmp_path, "training", "reformulation", str(first["key"]), "logs")
    assert (logs / "csv" / "start-1" / "metrics.csv").is_file()
    assert list((logs / "tensorboard" / "start-1").glob("events.out.tfevents.*"))
    shown = [f"training-{first['key']}", f"curves-{first['key']}"]
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=shown))
        found = {each.key: each.data for each in client.read_artifacts(artifact_filter=wanted)}
    assert found[shown[0]] == 100.0
    assert "data:image/svg+xml" in found[shown[1]]
    assert run() == first
    assert task_states(NAME) == {TASK: "Cached"}


def test_a_parameter_is_given_in_one_place(tmp_path: Path) -> None:
    from prefect.exceptions import ParameterTypeError

    from flows.train_reformulation import train_reformulation

    triplets = {"root": str(tmp_path), "spec_key": "0" * 20, "collections": ["c"], "count": 9}
    with pytest.raises(ParameterTypeError, match="give batch_size as a parameter, not in training"):
        train_reformulation.validate_parameters(
            {"triplets": triplets, "training": {"batch_size": 4}}
        )
