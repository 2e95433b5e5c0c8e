"""What every stage has in common, and the sets of images that stages run over."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
from PIL import Image
from pydantic import Field

from models.settings import Settings
from storage.collections.collection import Collection
from storage.collections.decoding import ImageProblem, decode_image
from storage.locations.location import Location
from storage.tables.keys import content_key
from storage.tables.schemas import OK
from storage.tables.table import IncompleteTable, Table, load_table, open_table
from tasks.query_sets import BenchmarkRef, load_query_set

Tick = Callable[[int], None]
"""Called with the number of rows just made, for progress."""


class Stage(Settings):
    """A table to be filled. Subclasses say with what."""

    table_name: ClassVar[str]
    producer: ClassVar[str]
    """Name and version of the code that makes the rows; raised when the rows change."""

    root: str = Field(description="Where tables are kept.")
    shard_size: int = Field(512, ge=1, description="Rows made and published together.")

    @property
    @abstractmethod
    def title(self) -> str:
        """A few words for progress lines and summaries."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything besides the producer that changes the rows' bytes."""

    @abstractmethod
    def planned(self) -> list[str]:
        """The keys that the table should hold."""

    @abstractmethod
    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Make one row for each member, failed ones included."""

    @property
    def location(self) -> Location:
        """The root as a location."""
        return Location(self.root)

    def spec(self) -> dict[str, Any]:
        """The spec of the stage's table."""
        return {"producer": self.producer, **self.identity()}

    @property
    def spec_key(self) -> str:
        """The key of the stage's table; nothing is opened for it."""
        return content_key(self.spec())

    def table(self) -> Table:
        """The stage's table."""
        return open_table(self.location, self.table_name, self.spec())

    def existing_table(self) -> Table:
        """The stage's table, without making one: for those who only read.

        Raises:
            IncompleteTable: nobody has begun to fill it.
        """
        try:
            return load_table(self.location, self.table_name, self.spec_key)
        except FileNotFoundError as error:
            raise IncompleteTable(f"{self.title}: nothing was made yet") from error


class ImageSet(Settings):
    """Some images of a collection: all, or those a benchmark uses."""

    collection: str = Field(description="Name of an ingested collection.")
    benchmark: BenchmarkRef | None = Field(None, description="Restrict to this benchmark.")
    part: Literal["all", "references", "gallery"] = Field("all", description="Which of them.")

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return self.collection if self.part == "all" else f"{self.collection} {self.part}"

    def ids(self, root: str) -> list[str]:
        """Sorted distinct image ids."""
        if self.benchmark is None:
            return Collection.open(Location(root), self.collection).image_ids()
        query_set = load_query_set(root, self.benchmark)
        return {
            "all": query_set.all_ids,
            "references": query_set.reference_ids,
            "gallery": query_set.gallery_ids,
        }[self.part]()

    def read(self, root: str, ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Stream (id, bytes) of some images."""
        return Collection.open(Location(root), self.collection).read_images(ids)


def decoded(
    images: Iterator[tuple[str, bytes]], problems: dict[str, ImageProblem]
) -> Iterator[tuple[str, Image.Image]]:
    """Decode a stream; what cannot be decoded is noted in `problems` and left out."""
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
        """`ok`, or what is wrong with the image, of each that was asked for."""
        problems = [self._problems.get(index) for index in range(len(self))]
        return [problem.status if problem else OK for problem in problems]

    @property
    def reasons(self) -> list[str]:
        """Why, in words; empty where nothing is wrong."""
        problems = [self._problems.get(index) for index in range(len(self))]
        return [problem.reason if problem else "" for problem in problems]
