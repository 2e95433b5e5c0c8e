"""Batches: their order, their shares, their pixels, and what is kept of pictures."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from models.encoders.spec import EncoderSpec
from models.instructcir.training_settings import ReformulationTraining
from models.triplets import Triplet
from storage.collections.collection import Collection
from storage.locations.location import Location
from tasks.training.folder import TrainingFolder
from tasks.training.triplet_sets import TripletSet, TripletSplit
from tests.fakes import pictures
from tests.fakes.small_clip import write_small_clip
from tests.fakes.triplet_tables import COLLECTION, small_job, write_triplets

if TYPE_CHECKING:
    from models.encoders.open_clip import OpenClipEncoder
    from models.training.triplet_data import TripletData

TEXTS = ("make it red", "a large blue star on top", "larger")


def triplet(number: int) -> Triplet:
    reference, target = f"{number % 7:064x}", f"{(number + 1) % 7:064x}"
    text = TEXTS[number % 3]
    return Triplet(str(number), number, reference, target, "s", f"c{number % 4}", "", "", text)


class Images:
    """Pictures by id, and how often each was read."""

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()

    def __call__(self, ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for name in sorted(ids):
            self.read[name] += 1
            yield name, pictures.encoded(picture(name), "PNG")


def picture(name: str) -> Image.Image:
    return pictures.pixels(int(name, 16), width=50, height=40)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> OpenClipEncoder:
    from models.encoders.loading import load_encoder

    folder = write_small_clip(tmp_path_factory.mktemp("clip"), merges=["r e", "re d</w>"])
    return load_encoder(EncoderSpec(name=str(folder), preprocess="clip", device="cpu"))


def make_data(
    encoder: OpenClipEncoder,
    images: Callable[[Sequence[str]], Iterator[tuple[str, bytes]]],
    count: int = 20,
    *,
    shared: TrainingFolder | None = None,
    **changes: object,
) -> TripletData:
    from models.instructcir.text_sequence import TextIds
    from tasks.training.data import decoded_triplets

    settings = ReformulationTraining(**{"batch_size": 4, "epochs": 3, **changes})  # type: ignore[arg-type]
    return decoded_triplets(
        TripletSplit(tuple(triplet(i) for i in range(count)), (), 0),
        images,
        preprocess=encoder.preprocess,
        tokenised=TextIds(encoder.tower.tokens).batch,
        settings=settings,
        shared=shared,
    )


def test_every_epoch_has_an_order_of_its_own() -> None:
    from models.training.batches import epoch_order

    orders = [epoch_order([""] * 50, 0, 1, epoch).tolist() for epoch in (0, 1)]
    assert [sorted(order) for order in orders] == [list(range(50))] * 2
    assert orders[0] != orders[1]
    assert epoch_order([""] * 50, 0, 1, 1).tolist() == orders[1]
    assert epoch_order([""] * 50, 0, 2, 1).tolist() != orders[1]


def test_grouped_orders_put_pairs_of_a_class_together() -> None:
    from models.training.batches import epoch_order

    classes = [f"c{i % 5}" for i in range(40)]
    order = epoch_order(classes, 4, 0, 0)
    assert sorted(order.tolist()) == list(range(40))
    groups = [[classes[row] for row in order[start : start + 4]] for start in range(0, 40, 4)]
    assert all(len(set(group)) == 1 for group in groups)
    assert len({tuple(group) for group in groups[:5]}) > 1  # groups of a class are not in a row
    # Classes that do not divide evenly lose nothing.
    uneven = epoch_order(["a"] * 7 + ["b"] * 2, 4, 0, 0)
    assert sorted(uneven.tolist()) == list(range(9))


def test_batches_are_those_of_the_library_and_the_tokenizer(encoder: OpenClipEncoder) -> None:
    import torch

    data = make_data(encoder, Images())
    dataset = data.train_dataloader()._dataset
    batch = dataset[3]
    rows = [data.training.triplets[row] for row in dataset.members(3)]
    preprocess = encoder.preprocess
    for side, name in (("references", "reference"), ("targets", "target")):
        wanted = next(preprocess.batches([picture(getattr(t, name)) for t in rows], 4))
        torch.testing.assert_close(data.normalised(batch[side]), wanted)
    ids = encoder.tokenize([t.text for t in rows])
    assert torch.equal(batch["texts"], ids[:, : batch["texts"].shape[1]])
    assert not ids[:, batch["texts"].shape[1] :].any()
    same = [[a.target == b.target for b in rows] for a in rows]
    assert torch.equal(batch["target_ids"][:, None] == batch["target_ids"], torch.tensor(same))


def test_a_reference_that_is_a_target_has_its_number() -> None:
    """Sorted apart, `b` would be 0 among the targets and 1 among the references."""
    import torch

    from models.training.triplet_batches import TripletRows

    pairs = (("a", "b"), ("b", "c"), ("d", "b"))
    triplets = [replace(triplet(0), reference=one, target=other) for one, other in pairs]
    rows = TripletRows(triplets, lambda _: {})
    batch = rows.text_and_targets([0, 1, 2])
    same = [[reference == target for reference, _ in pairs] for _, target in pairs]
    found = batch["target_ids"][:, None] == batch["reference_ids"]
    assert torch.equal(found, torch.tensor(same))


def test_each_picture_is_decoded_once_where_memory_allows(encoder: OpenClipEncoder) -> None:
    images = Images()
    data = make_data(encoder, images)
    list(data.train_dataloader())
    assert images.read == {f"{i:064x}": 1 for i in range(7)}


def test_memory_is_bounded_and_pixels_do_not_depend_on_it() -> None:
    from tasks.training.data import PictureCache

    images, names = Images(), [f"{i:064x}" for i in range(7)]
    size = 50 * 40 * 3
    small, large = (PictureCache(images, np.asarray, n * size) for n in (2, 7))
    assert small.fill(names, threads=2) == large.fill(names) == {}
    assert sum(each.nbytes for each in small._kept.values()) == 2 * size
    for mine, theirs in zip(small.get(names), large.get(names), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("augmentation", ["targetpad", "random_resized_crop"])
def test_processes_share_pictures_that_one_of_them_decoded(
    encoder: OpenClipEncoder, tmp_path: Path, augmentation: str
) -> None:
    import torch

    folder = TrainingFolder(str(tmp_path), "training/kind/key")
    alone, first, second = Images(), Images(), Images()
    wanted = make_data(encoder, alone, augmentation=augmentation).train_dataloader()._dataset
    for images, decoded in ((first, 7), (second, 0)):
        data = make_data(encoder, images, augmentation=augmentation, shared=folder)
        shares = data.train_dataloader()._dataset
        for number in range(wanted.batches):
            mine, theirs = shares[number], wanted[number]
            assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
        assert images.read.total() == decoded
    # Pictures for other eyes are decoded again, and take the place of the first ones.
    make_data(encoder, second, augmentation="clip", shared=folder)
    assert second.read.total() == 7
    assert len(list(folder.path.iterdir())) == 1
    folder.clear()
    assert not list(folder.path.iterdir())


def test_a_damaged_file_of_shared_pictures_is_made_again(
    encoder: OpenClipEncoder, tmp_path: Path
) -> None:
    folder = TrainingFolder(str(tmp_path), "training/kind/key")
    make_data(encoder, Images(), shared=folder)
    (file,) = folder.path.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:40], b"", bytes([whole[0] ^ 1]) + whole[1:]):
        file.write_bytes(damaged)
        images = Images()
        make_data(encoder, images, shared=folder)
        assert images.read.total() == 7
        assert file.read_bytes() == whole


def test_shared_pictures_say_which_cannot_be_read(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    folder, images = TrainingFolder(str(tmp_path), "training/kind/key"), Images()
    bad, gone = f"{1:064x}", f"{4:064x}"

    def read(ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for name, data in images([each for each in ids if each != gone]):
            yield name, b"no picture" if name == bad else data

    alone = make_data(encoder, read)
    for _ in range(2):
        data = make_data(encoder, read, shared=folder)
        assert data.left_out == alone.left_out
        assert data.left_out.keys() == {bad, gone}
        assert data.training.triplets == alone.training.triplets
    assert max(images.read.values()) == 2  # alone, and for all who share


def test_shared_pictures_have_a_bound_too(tmp_path: Path) -> None:
    from tasks.training.data import PictureCache

    folder = TrainingFolder(str(tmp_path), "training/kind/key")
    images, names = Images(), [f"{i:064x}" for i in range(7)]
    size = 50 * 40 * 3
    cache = PictureCache(images, np.asarray, 2 * size)
    assert cache.fill_shared(names, folder, {}) == {}
    (file,) = folder.path.iterdir()
    assert 2 * size < file.stat().st_size < 3 * size
    for _ in range(2):
        for name, pixels in zip(names, cache.get(names), strict=True):
            np.testing.assert_array_equal(pixels, np.asarray(picture(name)))


def test_a_full_disk_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.training import data

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(data, "pack", full)
    cache = data.PictureCache(Images(), np.asarray, 3 * 2**20)
    with pytest.raises(OSError, match=r"No space left .* up to 3 MiB .* lower run.cache_mb"):
        cache.fill_shared([f"{1:064x}"], TrainingFolder(str(tmp_path), "training/kind/key"), {})


def test_misses_are_read_at_once_and_decoded_in_threads() -> None:
    from tasks.training.data import PictureCache

    images, names = Images(), [f"{i:064x}" for i in range(7)]
    asked: list[list[str]] = []
    threads: set[str] = set()

    def read(ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        asked.append(sorted(ids))
        yield from images(ids)

    def prepare(image: Image.Image) -> np.ndarray:
        threads.add(threading.current_thread().name)
        return np.asarray(image)

    cache = PictureCache(read, prepare, 0)
    first, *_, last = cache.get(names)
    assert asked == [names]
    assert all(name.startswith("decode") for name in threads)
    np.testing.assert_array_equal(first, np.asarray(picture(names[0])))
    np.testing.assert_array_equal(last, np.asarray(picture(names[-1])))
    broken = PictureCache(lambda ids: iter([(ids[0], b"no picture")]), np.asarray, 0)
    with pytest.raises(ValueError, match=r"cannot be read: .*not_an_image"):
        broken.get(names[:1])


def test_the_collection_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.instructcir.network import build_network
    from tasks.training.run_settings import RunSettings

    job = small_job(str(tmp_path), write_triplets(str(tmp_path)))
    network = build_network(job.encoder, job.network)
    opened: list[str] = []
    plain = Collection.open

    def counted(location: Location, name: str) -> Collection:
        opened.append(name)
        return plain(location, name)

    monkeypatch.setattr(Collection, "open", counted)
    data = job.load_data(RunSettings(cache_mb=0), network)
    assert len(list(data.train_dataloader())) == 10
    assert opened == [COLLECTION]


def test_processes_share_a_batch_in_order(encoder: OpenClipEncoder) -> None:
    from models.training.triplet_batches import TripletBatches

    data = make_data(encoder, Images())
    whole, *shares = (
        TripletBatches(data.training, data._pictures, data.settings, size=(32, 32), **place)
        for place in ({}, {"rank": 0, "world_size": 2}, {"rank": 1, "world_size": 2})
    )
    for number in range(whole.batches):
        assert whole.members(number) == shares[0].members(number) + shares[1].members(number)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_at_any_position(encoder: OpenClipEncoder, workers: int) -> None:
    import torch

    from models.training.batches import StepLoader

    data = make_data(encoder, Images(), augmentation="random_resized_crop")
    dataset = data.train_dataloader()._dataset
    batches = list(StepLoader(dataset, 0))
    assert len(batches) == len(StepLoader(dataset, 0)) == 15
    later = StepLoader(dataset, workers)
    later.load_state_dict({"position": 6})
    rest = list(later)
    assert later.state_dict() == {"position": 15}
    assert len(rest) == 9
    for mine, theirs in zip(rest, batches[6:], strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_loader_counts_the_time_in_which_its_batches_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from types import SimpleNamespace
    from typing import Any

    from models.training import batches

    clock = {"now": 0.0}

    class Slow:
        """Four batches of two seconds each."""

        batches = 4

        def __getitem__(self, number: int) -> dict[str, Any]:
            clock["now"] += 2
            return {}

    monkeypatch.setattr(batches, "time", SimpleNamespace(monotonic=lambda: clock["now"]))
    loader = batches.StepLoader(Slow(), 0)  # type: ignore[arg-type]
    for _ in loader:
        clock["now"] += 5  # a step
    assert (loader.waited, clock["now"]) == (8.0, 28.0)


def test_crops_take_most_of_a_picture_and_differ_by_epoch() -> None:
    from models.training.crops import random_crop

    y, x = np.mgrid[0:60, 0:80]
    ramp = np.stack([3 * x, 4 * y, 0 * x], axis=-1).astype(np.uint8)
    crops = [random_crop(ramp, (24, 24), (0, epoch, 5, 1)) for epoch in range(40)]
    assert crops[0].shape == (24, 24, 3)
    np.testing.assert_array_equal(random_crop(ramp, (24, 24), (0, 0, 5, 1)), crops[0])
    assert len({crop.tobytes() for crop in crops}) > 30
    # The ramp tells which part was taken: its sides in pixels, a little less at the edges.
    for crop in crops:
        across = (int(crop[12, -1, 0]) - int(crop[12, 0, 0])) / 3 * 24 / 23
        down = (int(crop[-1, 12, 1]) - int(crop[0, 12, 1])) / 4 * 24 / 23
        assert 0.74 < across * down / (60 * 80) < 1.03


def test_full_context_where_the_network_looks_at_padding(encoder: OpenClipEncoder) -> None:
    from models.instructcir.text_sequence import TextIds
    from models.training.triplet_batches import TripletRows

    tokens = encoder.tower.tokens
    rows = TripletRows([triplet(0)], TextIds(tokens, whole_context=True).batch)
    assert rows.text_and_targets([0])["texts"].shape == (1, 77)


def test_too_few_triplets(encoder: OpenClipEncoder) -> None:
    with pytest.raises(ValueError, match="3 training examples do not fill a batch of 4"):
        make_data(encoder, Images(), count=3)
    with pytest.raises(ValueError, match="no triplet to train on"):
        make_data(encoder, Images(), count=0)


def test_data_says_what_it_left_out(tmp_path: Path, triplets: TripletSet) -> None:
    from models.instructcir.network import build_network
    from tasks.training.data import decoded_triplets

    job = small_job(str(tmp_path), triplets, training={"batch_size": 2})
    network = build_network(job.encoder, job.network)
    split = job.split()
    bad, gone = split.training[0].reference, split.training[1].target

    def read(ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for name, data in triplets.images().read_images([i for i in ids if i != gone]):
            yield name, b"no picture" if name == bad else data

    data = decoded_triplets(
        split,
        read,
        preprocess=network.parts.preprocess,
        tokenised=network.text_ids.batch,
        settings=job.training,
    )
    assert data.left_out.keys() == {bad, gone}
    assert "not_an_image" in data.left_out[bad]
    rows = (*data.training.triplets, *data.validation.triplets)
    assert all({t.reference, t.target}.isdisjoint({bad, gone}) for t in rows)
    everything = (*split.training, *split.validation)
    lost = [t for t in everything if {t.reference, t.target} & {bad, gone}]
    assert data.skipped == len(lost) > 0
