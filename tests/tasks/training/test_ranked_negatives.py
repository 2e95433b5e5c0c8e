"""Negatives of the re-ranker: the filter's own ranking of the training images, without right ones.

A drawing of them is part of a batch, and a batch follows from its number.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.small_trainings import composed_job

if TYPE_CHECKING:
    from models.encoders.spec import EncoderSpec
    from models.triplets import Triplet
    from tasks.training.composed import ComposedJob
    from tasks.training.triplet_sets import TripletSet

pytestmark = pytest.mark.usefixtures("one_thread")

OWN: dict[str, Any] = {"negatives": 3, "among": 7}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, clip: EncoderSpec) -> tuple[Path, Path]:
    """A filter and a re-ranker with random weights; tests only read them."""
    from tests.fakes.rerankers import write_rerankers

    return write_rerankers(tmp_path_factory.mktemp("folders"), backbone=clip)


def job_of(
    root: Path, triplets: TripletSet, clip: EncoderSpec, start: Path, **training: Any
) -> ComposedJob:
    chosen = {"batch_size": 4, "max_steps": 2, "validation": 4, **training}
    return composed_job("candidate-rerank", root, triplets, clip, OWN, chosen, str(start))


@pytest.mark.parametrize("augmentation", ["targetpad", "random_resized_crop"])
def test_they_are_the_filters_first_images_but_for_right_ones(
    augmentation: str,
    tmp_path: Path,
    triplets: TripletSet,
    clip: EncoderSpec,
    folders: tuple[Path, Path],
) -> None:
    """Each query and image alone, sorted by their cosine."""
    import torch
    from torch.nn.functional import cosine_similarity

    from tasks.training.run_settings import RunSettings

    job = job_of(tmp_path, triplets, clip, folders[0], augmentation=augmentation)
    run, network = RunSettings(accelerator="cpu"), job.new_network().eval()
    plain = job.load_data(run, network)
    data = job.made_ready(plain, run, network)
    trained = data.training.triplets
    names = sorted({image for t in trained for image in (t.reference, t.target)})

    def pixels(name: str) -> torch.Tensor:
        return plain.normalised(plain.still_images([name]))

    assert data.negatives is not None
    with torch.no_grad():
        gallery = {name: network.target(pixels(name))[0] for name in names}
        for triplet, found in list(zip(trained, data.negatives.lists, strict=True))[::5]:
            query = network.query(pixels(triplet.reference), network.tokenised([triplet.text]))[0]
            wrong = [name for name in names if name not in _right(trained, triplet)]
            near = {name: float(cosine_similarity(query, gallery[name], dim=0)) for name in wrong}
            best = sorted(near.values(), reverse=True)[: OWN["among"]]
            assert [near[name] for name in found] == pytest.approx(best, abs=1e-5)
    for triplet, found in zip(trained, data.negatives.lists, strict=True):
        assert not _right(trained, triplet) & set(found)
        assert len(set(found)) == len(found) == OWN["among"]


def _right(triplets: Any, query: Triplet) -> set[str]:
    """Every image that some triplet calls right for this reference and text."""
    return {t.target for t in triplets if (t.reference, t.text) == (query.reference, query.text)}


def test_a_batch_holds_some_of_each_list_and_an_epoch_others(
    tmp_path: Path, triplets: TripletSet, clip: EncoderSpec, folders: tuple[Path, Path]
) -> None:
    import torch

    from tasks.training.run_settings import RunSettings

    job = job_of(tmp_path, triplets, clip, folders[0])
    run, network = RunSettings(accelerator="cpu"), job.new_network()
    data = job.made_ready(job.load_data(run, network), run, network)
    batches = data.batches(0, 1)
    drawn = []
    assert data.negatives is not None
    for number in (0, batches.per_epoch):
        batch = batches[number]
        assert len(batch["negatives"]) == 4 * OWN["negatives"]
        for row, beside in zip(
            batches.members(number), batch["negatives"].unflatten(0, (4, -1)), strict=True
        ):
            states = data.still_images(data.negatives.lists[row])
            same = [[bool(torch.equal(each, state)) for state in states] for each in beside]
            places = [line.index(True) for line in same]
            assert len(set(places)) == OWN["negatives"]
            drawn.append((row, tuple(places)))
        again = batches[number]
        assert all(torch.equal(again[name], batch[name]) for name in batch)
    assert len({places for _, places in drawn}) > 4


def test_right_images_of_one_query_are_left_out_and_too_few_are_refused() -> None:
    """Three images, of which two are right for the first query: worked by hand."""
    import torch

    from models.composed.network import RankedNegatives
    from models.composed.ranked_negatives import ranked, right_images
    from models.triplets import Triplet

    def triplet(target: str, text: str) -> Triplet:
        return Triplet(target, 0, "r", target, "s", "c", "", "", text)

    triplets = [triplet("a", "redder"), triplet("b", "redder"), triplet("a", "bluer")]
    similarity = torch.tensor([[0.9, 0.8, 0.1, 0.5], [0.9, 0.8, 0.1, 0.5], [0.1, 0.8, 0.9, 0.2]])
    right = right_images(triplets)
    assert right == {("r", "redder"): {"a", "b"}, ("r", "bluer"): {"a"}}
    names = ["a", "b", "c", "r"]
    found = ranked(similarity.clone(), triplets, names, right, RankedNegatives(2, 3))
    assert found == [["r", "c"], ["r", "c"], ["c", "b", "r"]]
    with pytest.raises(ValueError, match=r"negatives is 3, and a query has 2 wrong images"):
        ranked(similarity.clone(), triplets, names, right, RankedNegatives(3, 4))


def test_training_goes_on_from_a_re_ranker(
    tmp_path: Path, triplets: TripletSet, clip: EncoderSpec, folders: tuple[Path, Path]
) -> None:
    """Its weights are taken over, and the cross-encoder alone is trained."""
    import torch

    from flows.requests.train_composed import train_composed
    from tasks.networks import load_composed_network

    before = load_composed_network(str(folders[1])).state_dict()
    network = job_of(tmp_path, triplets, clip, folders[1]).new_network()
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"cross"}
    given: Any = triplets.model_dump(mode="json")
    settings: Any = {"root": str(tmp_path)}
    train_composed("candidate-rerank", given, settings=settings, start=str(folders[1]))
    with pytest.raises(ValueError, match="is a network of candidate-rerank"):
        train_composed("clip4cir", given, settings=settings, start=str(folders[1]))


def test_settings_that_came_later_change_no_key_at_their_defaults() -> None:
    from models.composed.candidate_rerank import RerankSettings

    assert RerankSettings().model_dump() == {"mask_repeats": True, "filter_dropout": True}
    own = RerankSettings(dropout=0.0, negatives=7)
    assert RerankSettings.model_validate(own.model_dump()) == own
    assert own.model_dump()["among"] == 50
