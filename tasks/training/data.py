"""The images of triplets: read, decoded, kept in memory, and joined with the triplets."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Final, TypeAlias

from PIL import Image
from PIL import __version__ as pillow_version

from models.encoders.preprocess import ImagePreprocess
from models.training.crops import Pixels, still_pixels, still_preprocess, whole_pixels
from models.training.settings import TripletTraining
from models.training.triplet_batches import Tokenised, TripletRows
from models.training.triplet_data import TripletData
from models.triplets import Triplet
from storage.collections.decoding import ImageProblem, decode_image
from storage.collections.packed import PackedPictures, open_packed, pack
from storage.tables.keys import content_key
from storage.tables.table import IncompleteTable
from tasks.training.folder import TrainingFolder
from tasks.training.triplet_sets import TripletSet, TripletSplit

if TYPE_CHECKING:
    from models.protocols import Json
    from tasks.training.run_settings import RunSettings

ReadImages: TypeAlias = Callable[[Sequence[str]], Iterator[tuple[str, bytes]]]
"""Streams (image id, bytes) of the images asked for, in any order.

It may raise IncompleteTable after all others if some are not stored."""

_AHEAD: Final = 64
_THREADS: Final = 4


def load_triplets(
    split: TripletSplit,
    triplets: TripletSet,
    *,
    preprocess: ImagePreprocess,
    tokenised: Tokenised,
    settings: TripletTraining,
    run: RunSettings,
    folder: TrainingFolder,
) -> TripletData:
    """The triplets of a set with their images; see `decoded_triplets`.

    Several processes share the decoded pictures by a file of the training's folder.
    """
    return decoded_triplets(
        split,
        triplets.images().read_images,
        preprocess=preprocess,
        tokenised=tokenised,
        settings=settings,
        cache_bytes=run.cache_mb * 2**20,
        workers=run.workers,
        shared=folder if run.devices > 1 else None,
    )


def decoded_triplets(
    split: TripletSplit,
    read: ReadImages,
    *,
    preprocess: ImagePreprocess,
    tokenised: Tokenised,
    settings: TripletTraining,
    cache_bytes: int = 2 * 2**30,
    workers: int = 0,
    shared: TrainingFolder | None = None,
) -> TripletData:
    """Decode the images that fit into memory, and leave out triplets with unreadable images.

    Args:
        split: Training and validation triplets.
        read: Where image bytes come from.
        preprocess: The backbone's; its mode is replaced by the augmentation's.
        tokenised: The network's, from texts to what it reads.
        settings: Of the training.
        cache_bytes: Most memory for decoded pictures, in each process unless they are shared; with
            random crops as much again in each, for pictures to validate with.
        workers: Threads that make batches ahead; 0 makes each when it is asked for.
        shared: Where the pictures lie decoded for all processes of the training; None keeps them
            in the memory of this one.

    Raises:
        ValueError: There is no triplet, or too few for one batch.
    """
    if not split.training:
        raise ValueError("there is no triplet to train on; generate some first")
    still = PictureCache(read, still_pixels(preprocess, settings.augmentation), cache_bytes)
    crops = settings.augmentation == "random_resized_crop"
    pictures = PictureCache(read, whole_pixels, cache_bytes) if crops else still
    if shared is None:
        left_out = pictures.fill(split.image_ids())
    else:
        made_by: dict[str, Json] = {
            "pillow": pillow_version,
            "bytes": cache_bytes,
            "pixels": None if crops else still_preprocess(preprocess, settings.augmentation).record,
        }
        left_out = pictures.fill_shared(split.image_ids(), shared, made_by)

    def usable(triplets: Sequence[Triplet]) -> list[Triplet]:
        return [t for t in triplets if left_out.keys().isdisjoint((t.reference, t.target))]

    training, validation = usable(split.training), usable(split.validation)
    given = len(split.training) + len(split.validation)
    return TripletData(
        TripletRows(training, tokenised),
        TripletRows(validation, tokenised),
        settings,
        preprocess=preprocess,
        pictures=pictures,
        still=still,
        workers=workers,
        left_out=left_out,
        skipped=given - len(training) - len(validation),
    )


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
            prepare: From a decoded picture to the pixels that are kept.
            memory_bytes: Most bytes of pixels to keep.
        """
        self._read = read
        self._prepare = prepare
        self._room = memory_bytes
        self._kept: dict[str, Pixels] = {}
        self._packed: PackedPictures | None = None
        self._lock = threading.Lock()

    def fill(self, image_ids: Sequence[str], threads: int = _THREADS) -> dict[str, str]:
        """Decode images until the memory is full; returns those that cannot be read, and why."""
        problems: dict[str, str] = {}
        wanted = sorted(set(image_ids) - set(self._kept))
        with closing(self._outcomes(wanted, threads)) as outcomes:
            for image_id, outcome in outcomes:
                if isinstance(outcome, str):
                    problems[image_id] = outcome
                elif not self._keep(image_id, outcome):
                    break
        return problems

    def fill_shared(
        self, image_ids: Sequence[str], folder: TrainingFolder, made_by: Mapping[str, Json]
    ) -> dict[str, str]:
        """`fill` by a file that the first process writes, and that all others map.

        Args:
            image_ids: Images to decode.
            folder: Of the training; it is cleared when the training is published.
            made_by: All that pixels depend on besides the images.

        Raises:
            OSError: The file cannot be written; the message says what to do.
        """
        wanted = sorted(set(image_ids))
        file = folder.pictures(content_key({**made_by, "images": wanted}))
        self._packed = open_packed(file)
        if self._packed is None:
            try:
                with closing(self._outcomes(wanted, _THREADS)) as outcomes:
                    pack(file, outcomes, self._room)
            except OSError as error:
                raise OSError(
                    f"decoded pictures cannot be shared in {file}: {error}. They take up to "
                    f"{self._room // 2**20:,} MiB there; make room, or lower run.cache_mb"
                ) from error
            self._packed = open_packed(file)
        if self._packed is None:
            raise OSError(f"{file} is damaged right after it was written; check the disk")
        self._room = 0
        return dict(self._packed.problems)

    def get(self, image_ids: Sequence[str]) -> list[Pixels]:
        """Pixels of images, in order.

        Raises:
            ValueError: An image cannot be read.
        """
        found = {name: self._kept[name] for name in image_ids if name in self._kept}
        if self._packed is not None:
            found |= self._packed.among(image_ids)
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

    def _outcomes(
        self, wanted: Sequence[str], threads: int
    ) -> Generator[tuple[str, Pixels | str], None, None]:
        """Each image with its pixels, or with the reason why it has none."""
        found: set[str] = set()
        with closing(self._decoded(wanted, threads)) as decoded:
            for image_id, outcome in decoded:
                found.add(image_id)
                yield image_id, str(outcome) if isinstance(outcome, ImageProblem) else outcome
        yield from ((name, "not stored") for name in wanted if name not in found)

    def _decoded(
        self, image_ids: Sequence[str], threads: int
    ) -> Generator[tuple[str, Pixels | ImageProblem], None, None]:
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
        "more memory (run.cache_mb): pictures that fit are decoded before training starts"
    )
