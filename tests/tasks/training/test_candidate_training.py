"""Trainings of BLIP4CIR+Bi and of candidate re-ranking: two stages each, stopped and resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.killed_trainings import assert_kills_change_nothing
from tests.fakes.small_trainings import Interrupted, composed_job, published_folder

if TYPE_CHECKING:
    from models.encoders.spec import EncoderSpec
    from tasks.training.composed import ComposedJob
    from tasks.training.triplet_sets import TripletSet

pytestmark = pytest.mark.usefixtures("one_thread")

TRAINING: dict[str, Any] = {
    "batch_size": 4,
    "max_steps": 6,
    "validation": 5,
    "validate_every": 3,
    "learning_rate": 1e-3,
    "new_learning_rate": 3e-3,
}
OWN: dict[str, dict[str, Any]] = {
    "blip4cir-bi-sum": {"scale": 10},
    "blip4cir-bi": {"scale": 10, "projection": 6, "hidden": 10},
    "candidate-filter": {"text_layers": 2},
    "candidate-rerank": {},
}
NEGATIVES: dict[str, Any] = {"negatives": 2, "among": 6}
STAGES: list[tuple[str, str, dict[str, Any]]] = [
    ("blip4cir-bi-sum", "blip4cir-bi", {}),
    ("candidate-filter", "candidate-rerank", {}),
    ("candidate-filter", "candidate-rerank", NEGATIVES),
]


def job_of(
    name: str,
    root: Path,
    triplets: TripletSet,
    clip: EncoderSpec,
    start: str = "",
    more: Mapping[str, Any] = MappingProxyType({}),
    **training: Any,
) -> ComposedJob:
    own = {**OWN[name], **more}
    return composed_job(name, root, triplets, clip, own, TRAINING | training, start)


def finished(job: ComposedJob, stop: int = 0) -> Path:
    """The published folder; `stop`: the training is interrupted after so many steps."""
    return published_folder(job, stop, save_steps=2, log_steps=1)


@pytest.mark.parametrize(("first", "second", "more"), STAGES)
def test_both_stages_end_alike_when_stopped_and_the_second_leaves_the_first_alone(
    first: str,
    second: str,
    more: dict[str, Any],
    tmp_path: Path,
    triplets: TripletSet,
    clip: EncoderSpec,
) -> None:
    import safetensors.torch
    import torch

    start = finished(job_of(first, tmp_path, triplets, clip))
    job = job_of(second, tmp_path, triplets, clip, str(start), more)
    with pytest.raises(Interrupted):
        finished(job, stop=3)
    again = finished(job)
    undisturbed = finished(job_of(second, tmp_path / "b", triplets, clip, str(start), more))
    for file in ("model.safetensors", "curves.csv"):
        assert (again / file).read_bytes() == (undisturbed / file).read_bytes()
    before, after = (
        safetensors.torch.load_file(folder / "model.safetensors") for folder in (start, again)
    )
    prefix = "filter." if second == "candidate-rerank" else ""
    assert all(torch.equal(after[f"{prefix}{name}"], tensor) for name, tensor in before.items())
    new = {name.split(".")[0] for name in after.keys() - {f"{prefix}{name}" for name in before}}
    assert new == {"cross" if second == "candidate-rerank" else "combiner"}
    fresh = job.new_network().state_dict()
    moved = [name for name in after if not torch.equal(after[name], fresh[name])]
    assert {name.split(".")[0] for name in moved} == new


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second", "more"), [STAGES[0], STAGES[2]])
def test_killed_at_random_moments_and_resumed(
    first: str,
    second: str,
    more: dict[str, Any],
    tmp_path: Path,
    triplets: TripletSet,
    clip: EncoderSpec,
) -> None:
    """SIGKILL while steps, validations, saves and publishing run; the end is always the same."""
    start = finished(job_of(first, tmp_path / "start", triplets, clip))
    for name, beginning, own in ((first, "", {}), (second, str(start), more)):
        place = tmp_path / name
        place.mkdir()
        job = job_of(name, place, triplets, clip, beginning, own, max_steps=16)
        assert_kills_change_nothing(job, place, steps=16, kills=4, longest=4)
