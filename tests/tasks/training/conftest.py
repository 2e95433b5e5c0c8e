"""Drawn triplets and a small trained network, made once for all tests of trainings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from models.encoders.spec import EncoderSpec
    from tasks.training.reformulation_job import ReformulationJob
    from tasks.training.run_settings import RunSettings
    from tasks.training.triplet_sets import TripletSet
    from tests.fakes.small_trainings import Train


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums in one order, so that equal runs are equal to the bit."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def triplets(tmp_path_factory: pytest.TempPathFactory) -> TripletSet:
    """Sixty pairs of thirty drawn pictures; every tenth has no text. Tests only read them."""
    from tests.fakes.triplet_tables import write_triplets  # slow to import, and most do without

    return write_triplets(str(tmp_path_factory.mktemp("triplets")))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> EncoderSpec:
    """A small CLIP of two layers on the CPU; tests only read it."""
    from models.encoders.spec import EncoderSpec
    from tests.fakes.small_clip import write_small_clip

    folder = tmp_path_factory.mktemp("clip")
    merges = ["r e", "re d</w>", "b l", "a d"]
    return EncoderSpec(name=str(write_small_clip(folder, {"layers": 2}, merges)), device="cpu")


@pytest.fixture(scope="session")
def published(triplets: TripletSet, tmp_path_factory: pytest.TempPathFactory) -> ReformulationJob:
    """A job of two steps that is published; tests only read its folder."""
    from tasks.training.instructcir import train_reformulation_network
    from tasks.training.run_settings import RunSettings
    from tests.fakes.triplet_tables import small_job

    root = str(tmp_path_factory.mktemp("published"))
    job = small_job(root, triplets, training={"max_steps": 2})
    train_reformulation_network.fn(job, RunSettings(accelerator="cpu", loggers=()), {})
    return job


@pytest.fixture
def train(tmp_path: Path, triplets: TripletSet) -> Train:
    """Run stage one of a job; returns its history and kept weights."""
    import safetensors.torch

    from models.instructcir.network import build_network
    from tasks.training.trainer import fit
    from tests.fakes.small_trainings import run_settings, silent

    def run(job: ReformulationJob, run: RunSettings | None = None, report: Any = silent) -> Any:
        run = run or run_settings()
        network = build_network(job.encoder, job.network, job.training.seed)
        fit(job, run, job.load_data(run, network), network, report)
        folder = job.training_folder
        history = folder.finished()
        assert history is not None
        return history, safetensors.torch.load_file(folder.path / history.kept["file"])

    return run
