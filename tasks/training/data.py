"""Triplets as batches of pixels and tokens, the same ones whoever asks, in whatever process.

Which triplets form a batch follows from (seed, epoch), and a crop from (seed, epoch, triplet,
side): the position in the data is a number, and a run goes on exactly where it stopped.
"""

from __future__ import annotations

import functools
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch.nn import functional

from models.encoders.preprocess import ImagePreprocess
from models.encoders.text_tower import pad_rows
from models.instructcir.text_sequence import TextIds
from models.instructcir.training_settings import TrainingSettings
from models.instructcir.triplets import Triplet
from storage.collections.decoding import ImageProblem, decode_image
from storage.tables.table import IncompleteTable
from tasks.training.triplet_sets import TripletSplit

Pixels: TypeAlias = np.ndarray
"""(H, W, 3) uint8."""

ReadImages: TypeAlias = Callable[[Sequence[str]], Iterator[tuple[str, bytes]]]
"""Streams (image id, bytes) of the images asked for, in any order.

It may raise IncompleteTable after all others if some are not stored."""

Batch: TypeAlias = dict[str, torch.Tensor]

_SMALLEST_CROP: Final = 0.8
_CROP_RATIOS: Final = (3 / 4, 4 / 3)
_AHEAD: Final = 64
_BATCHES_AHEAD: Final = 2
_THREADS: Final = 4


def epoch_order(classes: Sequence[str], grouping: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch takes its triplets.

    Args:
        classes: The meta class of each triplet.
        grouping: Triplets of one class that stand together; 0 and 1 shuffle freely.
        seed: Seed of the run.
        epoch: Number of the epoch; another one has another order.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(classes))
    if grouping < 2:
        return order
    members: defaultdict[str, list[int]] = defaultdict(list)
    for row in order.tolist():
        members[classes[row]].append(row)
    groups = [
        rows[start : start + grouping]
        for rows in members.values()
        for start in range(0, len(rows), grouping)
    ]
    shuffled = np.random.default_rng((seed, epoch, grouping)).permutation(len(groups))
    return np.array([row for group in shuffled for row in groups[group]])


class PictureCache:
    """Images as pixels, kept up to a bound of memory and otherwise decoded again.

    An epoch takes every image once, in a new order, so that no rule of replacement beats keeping
    the first ones that fit.
    """

    def __init__(
        self, read: ReadImages, prepare: Callable[[Image.Image], Pixels], memory_bytes: int
    ) -> None:
        """Make an empty cache.

        Args:
            read: Where image bytes come from.
            prepare: What is kept of a decoded picture.
            memory_bytes: Most bytes of pixels to keep.
        """
        self._read = read
        self._prepare = prepare
        self._room = memory_bytes
        self._kept: dict[str, Pixels] = {}
        self._lock = threading.Lock()

    def fill(self, image_ids: Sequence[str], threads: int = _THREADS) -> dict[str, str]:
        """Decode images until the memory is full; returns those that cannot be read, and why."""
        problems: dict[str, str] = {}
        wanted = sorted(set(image_ids) - set(self._kept))
        found: set[str] = set()
        for image_id, outcome in self._decoded(wanted, threads):
            found.add(image_id)
            if isinstance(outcome, ImageProblem):
                problems[image_id] = str(outcome)
            elif not self._keep(image_id, outcome):
                return problems
        return problems | {name: "not stored" for name in wanted if name not in found}

    def get(self, image_ids: Sequence[str]) -> list[Pixels]:
        """Pixels of images, in order.

        Raises:
            ValueError: An image cannot be read.
        """
        found = {name: self._kept[name] for name in image_ids if name in self._kept}
        missing = [name for name in dict.fromkeys(image_ids) if name not in found]
        for image_id, outcome in self._decoded(missing, _THREADS):
            if isinstance(outcome, ImageProblem):
                raise ValueError(_unreadable(image_id, str(outcome))) from outcome
            found[image_id] = outcome
            self._keep(image_id, outcome)
        for name in missing:
            if name not in found:
                raise ValueError(_unreadable(name, "not stored"))
        return [found[name] for name in image_ids]

    def _stored(self, image_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        try:
            yield from self._read(image_ids) if image_ids else ()
        except IncompleteTable:
            return  # the callers see which ones did not come

    def _keep(self, image_id: str, pixels: Pixels) -> bool:
        with self._lock:
            if image_id not in self._kept:
                if pixels.nbytes > self._room:
                    return False
                self._room -= pixels.nbytes
                self._kept[image_id] = pixels
        return True

    def _decoded(
        self, image_ids: Sequence[str], threads: int
    ) -> Iterator[tuple[str, Pixels | ImageProblem]]:
        """Decode in a few threads, a few pictures ahead."""

        def work(data: bytes) -> Pixels | ImageProblem:
            try:
                return self._prepare(decode_image(data))
            except ImageProblem as problem:
                return problem

        ahead: deque[tuple[str, Future[Pixels | ImageProblem]]] = deque()
        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            for image_id, data in self._stored(image_ids):
                ahead.append((image_id, pool.submit(work, data)))
                if len(ahead) > _AHEAD:
                    name, future = ahead.popleft()
                    yield name, future.result()
            while ahead:
                name, future = ahead.popleft()
                yield name, future.result()


def _unreadable(image_id: str, why: str) -> str:
    return (
        f"image {image_id} cannot be read: {why}. Ingest its source again, or give the pixels "
        "more memory (run.cache_mb): what is decoded before training is checked there"
    )


def random_crop(pixels: Pixels, size: tuple[int, int], key: Sequence[int]) -> Pixels:
    """A random resized crop: 0.8 to 1.0 of the area, bicubic.

    Its sides are 3:4 to 4:3, or as near to that as a part of that area can be.

    Args:
        pixels: (H, W, 3) of a whole picture.
        size: Height and width of the result.
        key: Seeds of this crop.
    """
    chance = np.random.default_rng(tuple(key))
    height, width = pixels.shape[:2]
    area = height * width * chance.uniform(_SMALLEST_CROP, 1.0)
    ratio = np.exp(chance.uniform(*np.log(_CROP_RATIOS)))
    ratio = np.clip(ratio, area / height**2, width**2 / area)  # what fits into the picture
    across = min(width, max(1, round((area * ratio) ** 0.5)))
    down = min(height, max(1, round((area / ratio) ** 0.5)))
    left, top = chance.integers(0, width - across + 1), chance.integers(0, height - down + 1)
    box = (int(left), int(top), int(left) + across, int(top) + down)
    picture = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC, box=box)
    return np.asarray(picture)


@dataclass(frozen=True)
class TripletRows:
    """Triplets ready to be trained on.

    Attributes:
        triplets: The rows, in their order.
        text_ids: How texts become token ids.
        numbers: Target image id -> a number, the same in every process.
        texts: The triplets' tokenised texts, each tokenised once.
    """

    triplets: Sequence[Triplet]
    text_ids: TextIds
    numbers: Mapping[str, int] = field(init=False)
    texts: Sequence[Any] = field(init=False)

    def __post_init__(self) -> None:
        targets = sorted({triplet.target for triplet in self.triplets})
        object.__setattr__(self, "numbers", {name: i for i, name in enumerate(targets)})
        row = functools.lru_cache(maxsize=None)(self.text_ids.tokens.row)
        object.__setattr__(self, "texts", [row(triplet.text) for triplet in self.triplets])

    def text_and_targets(self, rows: Sequence[int]) -> Batch:
        """Token ids cropped to the longest text (B, L), and the targets' numbers (B,)."""
        targets = [self.numbers[self.triplets[row].target] for row in rows]
        ids, _, _ = pad_rows([self.texts[row] for row in rows])
        if self.text_ids.whole_context:
            ids = functional.pad(ids, (0, self.text_ids.tokens.context_length - ids.shape[1]))
        return {"texts": ids, "target_ids": torch.tensor(targets)}


class StepDataset:
    """The batches of a run by their number; any number of threads may ask at once."""

    def __init__(
        self,
        rows: TripletRows,
        pictures: PictureCache,
        settings: TrainingSettings,
        *,
        size: tuple[int, int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Prepare the share of one process.

        Args:
            rows: Training triplets.
            pictures: Their images; whole ones where crops are random.
            settings: Batch size, order, crops, epochs.
            size: Height and width that the vision tower reads.
            rank: Which process this is.
            world_size: Processes that share a batch.

        Raises:
            ValueError: The processes cannot share a batch equally.
        """
        self.per_epoch, steps = settings.steps_of(len(rows.triplets))
        self.batches = steps * settings.accumulate
        self._rows = rows
        self._pictures = pictures
        self._settings = settings
        self._size = size
        self._rank, self._share = rank, settings.share(world_size)
        self._classes = [f"{t.source}\n{t.meta_class}" for t in rows.triplets]
        self._order = functools.lru_cache(maxsize=2)(self._order_of)  # this epoch's and the next

    def _order_of(self, epoch: int) -> np.ndarray:
        settings = self._settings
        return epoch_order(self._classes, settings.class_grouping, settings.seed, epoch)

    def members(self, number: int) -> list[int]:
        """Rows of batch `number` that this process trains on."""
        epoch, place = divmod(number, self.per_epoch)
        start = place * self._settings.batch_size + self._rank * self._share
        return self._order(epoch)[start : start + self._share].tolist()

    def __getitem__(self, number: int) -> Batch:
        """`references` and `targets` (B, H, W, 3) uint8, `texts` (B, L), `target_ids` (B,)."""
        rows = self.members(number)
        triplets = [self._rows.triplets[row] for row in rows]
        ids = [t.reference for t in triplets] + [t.target for t in triplets]
        pixels = self._pictures.get(ids)
        if self._settings.augmentation == "random_resized_crop":
            epoch = number // self.per_epoch
            keys = [(row, side) for side in (0, 1) for row in rows]
            pixels = [
                random_crop(each, self._size, (self._settings.seed, epoch, *key))
                for each, key in zip(pixels, keys, strict=True)
            ]
        stacked = torch.from_numpy(np.stack(pixels))
        halves = {"references": stacked[: len(rows)], "targets": stacked[len(rows) :]}
        return halves | self._rows.text_and_targets(rows)


class StepLoader:
    """Batches from a position on. Lightning keeps the position in its checkpoints.

    Threads make the batches ahead, not processes: decoding and resizing release the interpreter's
    lock, the pictures are kept once, and a flow run, which has threads of its own, is never forked.
    """

    def __init__(self, dataset: StepDataset, workers: int) -> None:
        """Start at the first batch.

        Args:
            dataset: The batches.
            workers: Threads that make batches ahead; 0 makes each when it is asked for.
        """
        self._dataset = dataset
        self._workers = workers
        self.position = 0

    def __len__(self) -> int:
        return self._dataset.batches

    def __iter__(self) -> Iterator[Batch]:
        numbers = range(self.position, len(self))
        for batch in self._ahead(numbers) if self._workers else map(self._batch, numbers):
            self.position += 1
            yield batch

    def _batch(self, number: int) -> Batch:
        batch = self._dataset[number]
        if torch.cuda.is_available():
            return {name: tensor.pin_memory() for name, tensor in batch.items()}
        return batch

    def _ahead(self, numbers: Sequence[int]) -> Iterator[Batch]:
        """Batches in order, two for each thread begun before they are asked for."""
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="batches")
        try:
            begun: deque[Future[Batch]] = deque()
            for number in numbers:
                begun.append(pool.submit(self._batch, number))
                if len(begun) >= _BATCHES_AHEAD * self._workers:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def state_dict(self) -> dict[str, int]:
        """Where the run is."""
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from there."""
        self.position = int(state["position"])


class ReformulationData(LightningDataModule):
    """Training and validation triplets with their images.

    Attributes:
        training: Triplets that are trained on.
        validation: Triplets held out.
        left_out: Image id -> why it cannot be read.
        skipped: Triplets left out because of those.
        settings: Of the training.
    """

    def __init__(
        self,
        split: TripletSplit,
        read: ReadImages,
        *,
        preprocess: ImagePreprocess,
        text_ids: TextIds,
        settings: TrainingSettings,
        cache_bytes: int = 2 * 2**30,
        workers: int = 0,
    ) -> None:
        """Decode what fits into memory, and leave out triplets whose images cannot be read.

        Args:
            split: Training and validation triplets.
            read: Where image bytes come from.
            preprocess: The backbone's; its mode is replaced by the augmentation's.
            text_ids: The network's, from texts to token ids.
            settings: Of the training.
            cache_bytes: Most memory for decoded pictures, in each process; with random crops
                twice that, for whole pictures and for those that are validated with.
            workers: Threads that make batches ahead; 0 makes each when it is asked for.

        Raises:
            ValueError: There is no triplet, or too few for one batch.
        """
        super().__init__()
        if not split.training:
            raise ValueError("there is no triplet to train on; generate some first")
        self.settings = settings
        self._workers = workers
        self._preprocess = preprocess
        padded = settings.augmentation == "targetpad"
        geometry = ImagePreprocess(
            "targetpad" if padded else "clip", preprocess.pad_ratio, preprocess.config
        ).geometry()
        whole = settings.augmentation == "random_resized_crop"
        self._size = _height_and_width(preprocess.config.size)
        self._still = PictureCache(read, lambda image: np.asarray(geometry(image)), cache_bytes)
        self._pictures = PictureCache(read, np.asarray, cache_bytes) if whole else self._still
        self.left_out = self._pictures.fill(split.image_ids())
        self.training = TripletRows(self._usable(split.training), text_ids)
        self.validation = TripletRows(self._usable(split.validation), text_ids)
        kept = len(self.training.triplets) + len(self.validation.triplets)
        self.skipped = len(split.training) + len(split.validation) - kept
        settings.steps_of(len(self.training.triplets))

    def _usable(self, triplets: Sequence[Triplet]) -> list[Triplet]:
        return [t for t in triplets if self.left_out.keys().isdisjoint((t.reference, t.target))]

    def train_dataloader(self) -> StepLoader:
        """The batches of this process."""
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        dataset = StepDataset(
            self.training,
            self._pictures,
            self.settings,
            size=self._size,
            rank=rank,
            world_size=world_size,
        )
        return StepLoader(dataset, self._workers)

    def still_batches(self, rows: TripletRows, chosen: Sequence[int], size: int) -> Iterator[Batch]:
        """Triplets in order, without random crops, in batches of at most `size`."""
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            triplets = [rows.triplets[row] for row in part]
            pixels = self._still.get([t.reference for t in triplets] + [t.target for t in triplets])
            stacked = torch.from_numpy(np.stack(pixels))
            halves = {"references": stacked[: len(part)], "targets": stacked[len(part) :]}
            yield halves | rows.text_and_targets(part)

    def still_images(self, image_ids: Sequence[str]) -> torch.Tensor:
        """Images without random crops, (B, H, W, 3) uint8."""
        return torch.from_numpy(np.stack(self._still.get(image_ids)))

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 as the vision tower reads them."""
        return self._preprocess.normalised(images.numpy())


def _height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
