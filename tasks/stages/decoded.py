"""Image bytes decoded on the way to a model; the problem of each image is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from storage.collections.decoding import ImageProblem, decode_image
from storage.tables.schemas import OK
from tasks.stages.stage import Tick


def decoded(
    images: Iterator[tuple[str, bytes]], problems: dict[str, ImageProblem]
) -> Iterator[tuple[str, Image.Image]]:
    """Decode a stream; an image that does not decode is noted in `problems` and left out."""
    for image_id, data in images:
        try:
            yield image_id, decode_image(data)
        except ImageProblem as problem:
            problems[image_id] = problem


class Decoding(Sequence[Image.Image]):
    """Images that are decoded when they are asked for, so that few are in memory at once."""

    def __init__(self, data: Sequence[bytes], tick: Tick) -> None:
        self._data = data
        self._tick = tick
        self._problems: dict[int, ImageProblem] = {}

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: Any) -> Any:
        self._tick(1)
        try:
            return decode_image(self._data[index])
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
