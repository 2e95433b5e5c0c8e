"""Image bytes decoded on the way to a model; the problem of each image is kept."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

from PIL import Image

from models.ahead import in_order, worker_threads
from storage.collections.decoding import ImageProblem, decode_image
from storage.tables.schemas import OK
from tasks.settings import PictureSettings
from tasks.stages.stage import Tick


def decoded(
    images: Iterator[tuple[str, bytes]],
    problems: dict[str, ImageProblem],
    pictures: PictureSettings,
    side: int | None,
) -> Generator[tuple[str, Image.Image], None, None]:
    """Decode a stream in threads, a few pictures ahead of the reader; `side` as in `picture`.

    An image that does not decode is noted in `problems` and left out.
    """

    def read(item: tuple[str, bytes]) -> tuple[str, Image.Image | ImageProblem]:
        try:
            return item[0], picture(item[1], pictures, side)
        except ImageProblem as problem:
            return item[0], problem

    threads = worker_threads(pictures.threads)
    with closing(in_order(read, images, threads, ahead=threads + 1)) as found:
        for image_id, outcome in found:
            if isinstance(outcome, ImageProblem):
                problems[image_id] = outcome
            else:
                yield image_id, outcome


def picture(data: bytes, pictures: PictureSettings, side: int | None) -> Image.Image:
    """An image file as the settings read it.

    Args:
        data: The file.
        pictures: The settings.
        side: Pixels of the shorter side that its reader needs; None: it reads pictures whole.

    Raises:
        ImageProblem: The bytes give no image.
    """
    shortest = pictures.draft * side if side else None
    return decode_image(
        data, alpha=pictures.alpha, orientation=pictures.orientation, shortest=shortest
    )


class OnePicture:
    """An image file for readers of several sizes; decoded once for each."""

    def __init__(self, data: bytes, pictures: PictureSettings) -> None:
        self._data = data
        self._pictures = pictures
        self._made: dict[int | None, Image.Image] = {}

    def at(self, side: int | None) -> Image.Image:
        """The picture for a reader; see `picture`.

        Raises:
            ImageProblem: The bytes give no image.
        """
        side = side if self._pictures.draft else None
        if side not in self._made:
            self._made[side] = picture(self._data, self._pictures, side)
        return self._made[side]


class Decoding(Sequence[Image.Image]):
    """Images that are decoded when they are asked for, so that few are in memory at once."""

    def __init__(
        self, data: Sequence[bytes], tick: Tick, pictures: PictureSettings, side: int | None
    ) -> None:
        """Read files by the settings for a reader; `side` as in `picture`."""
        self._data = data
        self._side = side
        self._pictures = pictures
        self._tick = tick
        self._problems: dict[int, ImageProblem] = {}

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: Any) -> Any:
        self._tick(1)
        try:
            return picture(self._data[index], self._pictures, self._side)
        except ImageProblem as problem:
            self._problems[index] = problem
            return Image.new("RGB", (1, 1))  # keeps the batch whole; its vector is dropped

    @property
    def statuses(self) -> list[str]:
        """For each image `ok`, or the status of its problem, once it was asked for."""
        problems = [self._problems.get(index) for index in range(len(self))]
        return [problem.status if problem else OK for problem in problems]

    @property
    def reasons(self) -> list[str]:
        """For each image the reason of its problem; empty without one."""
        problems = [self._problems.get(index) for index in range(len(self))]
        return [problem.reason if problem else "" for problem in problems]
