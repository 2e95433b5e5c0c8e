"""A view of a sequence in another order, which decodes nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class Reordered(Sequence[T]):
    """The members of a sequence in an order of choice; each is fetched when it is asked for."""

    def __init__(self, members: Sequence[T], order: Sequence[int]) -> None:
        """Show `members[order[i]]` at place i."""
        self._members = members
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Reordered[T]: ...
    def __getitem__(self, index: int | slice) -> T | Reordered[T]:
        if isinstance(index, slice):
            return Reordered(self._members, self._order[index])
        return self._members[self._order[index]]
