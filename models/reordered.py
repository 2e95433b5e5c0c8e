"""Views of sequences that decode nothing themselves: in another order, or by a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

T = TypeVar("T")
Name = TypeVar("Name")


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


class Fetched(Sequence[T]):
    """What a function gives for each of some names, when it is asked for."""

    def __init__(self, names: Sequence[Name], fetch: Callable[[Name], T]) -> None:
        """Show `fetch(names[i])` at place i."""
        self._names = names
        self._fetch: Callable[[Any], T] = fetch

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Fetched[T]: ...
    def __getitem__(self, index: int | slice) -> T | Fetched[T]:
        if isinstance(index, slice):
            return Fetched(self._names[index], self._fetch)
        return self._fetch(self._names[index])
