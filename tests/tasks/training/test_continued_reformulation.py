"""A reformulation network that is trained further: what it starts as, its key and its label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.profiles import tiny
from flows.requests.train_reformulation import train_reformulation
from tasks.networks import network_facts
from tests.fakes.networks import ZERO_SHOT, write_network
from tests.fakes.triplet_tables import small_job, write_triplets

LABELLED = {**ZERO_SHOT, "zero_shot": False, "zero_shot_reason": "it saw annotated texts"}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zero-shot network."""
    return write_network(tmp_path_factory.mktemp("start") / "network")


def test_training_starts_from_the_trained_branch(tmp_path: Path, start: Path) -> None:
    import torch

    from models.instructcir.checkpoint import load_network
    from models.instructcir.network import build_network

    job = small_job(str(tmp_path), write_triplets(str(tmp_path)), start=str(start))
    network = job.new_network()
    wanted = load_network(start).online.state_dict()
    assert network.state_dict().keys() == wanted.keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name
    assert network.training
    fresh = build_network(tiny().query_encoder, network.settings)
    trained = {name: each.requires_grad for name, each in fresh.named_parameters()}
    assert {name: each.requires_grad for name, each in network.named_parameters()} == trained


def test_it_is_published_under_a_key_of_its_own(tmp_path: Path, start: Path) -> None:
    import torch

    from models.instructcir.checkpoint import load_network
    from tasks.training.instructcir import train_reformulation_network
    from tasks.training.run_settings import RunSettings

    triplets = write_triplets(str(tmp_path))
    facts = network_facts(str(start))

    def job(**changes: Any) -> Any:
        return small_job(str(tmp_path), triplets, training={"max_steps": 2}, **changes)

    continued = job(start=str(start))
    assert continued.spec["start"] == facts.identity
    assert continued.key != job().key
    train_reformulation_network.fn(continued, RunSettings(accelerator="cpu", loggers=()), {})
    made = load_network(continued.place)
    assert dict(made.online.parts.base) == dict(load_network(start).online.parts.base)
    before = load_network(start).online.state_dict()
    moved = [n for n, each in made.online.state_dict().items() if not torch.equal(each, before[n])]
    assert moved
    assert network_facts(continued.place).zero_shot


def test_the_label_of_the_start_stays(tmp_path: Path) -> None:
    from tasks.training.instructcir import train_reformulation_network
    from tasks.training.run_settings import RunSettings

    labelled = write_network(tmp_path / "labelled", LABELLED)
    reason = network_facts(str(labelled)).zero_shot_reason
    assert reason == "it saw annotated texts"
    triplets = write_triplets(str(tmp_path))
    job = small_job(str(tmp_path), triplets, training={"max_steps": 1}, start=str(labelled))
    train_reformulation_network.fn(job, RunSettings(accelerator="cpu", loggers=()), {})
    assert network_facts(job.place).zero_shot_reason == reason


def test_what_does_not_fit_is_refused(tmp_path: Path, start: Path) -> None:
    from tests.fakes.rerankers import write_rerankers

    triplets = write_triplets(str(tmp_path)).model_dump(mode="json")
    given: dict[str, Any] = {"triplets": triplets, "settings": {"root": str(tmp_path)}}
    asked = train_reformulation(start=str(start), **given)
    assert asked.groups.network.model_dump() == network_settings(start)
    with pytest.raises(ValueError, match="brings its own"):
        train_reformulation(start=str(start), network={"gate": "zero_init"}, **given)
    stage_one, _ = write_rerankers(tmp_path)
    with pytest.raises(ValueError, match="is a network of candidate-filter; InstructCIR starts"):
        train_reformulation(start=str(stage_one), **given)
    with pytest.raises(ValueError, match="nowhere"):
        train_reformulation(start=str(tmp_path / "nowhere"), **given)


def network_settings(folder: Path) -> dict[str, Any]:
    """As its configuration has them."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())["network"]
    return found
