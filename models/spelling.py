"""Names and numbers in messages: the nearest known name, the first of many, ``1 image``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


def unknown(what: str, given: str, known: Iterable[str], also: Iterable[str] = ()) -> str:
    """A message for a name that is not among the known ones.

    Args:
        what: Kind of the name, such as "method".
        given: The name as it was given.
        known: Allowed names, in the order to list them in.
        also: Further allowed names, too many to list.
    """
    names, given = list(known), brief(given)
    hint = did_you_mean(given, [*names, *also])
    return f"unknown {what} {given!r}; {hint}known: {', '.join(names) or 'none yet'}"


def brief(given: str) -> str:
    """The first 80 characters of what was given; a longer text ends in three dots."""
    return given if len(given) <= 80 else f"{given[:77]}..."


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Asks for the known name that is most like the given one; empty where none is."""
    lower = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(given.casefold(), lower, n=1)
    return f"did you mean {lower[found[0]]!r}? " if found else ""


def some_of(names: Sequence[str], limit: int = 8) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(sorted(names)[:limit]) + more


def counted(number: int, one: str, many: str = "") -> str:
    """A number with what it counts, such as ``1 image``, ``2 queries`` or ``4,181 classes``.

    Args:
        number: How many.
        one: Words for one.
        many: Words for any other number, as for `agreed`.
    """
    return f"{number:,} {agreed(number, one, many)}"


def agreed(number: float, one: str, many: str = "") -> str:
    """The words that agree with a number: ``image`` with 1, ``images`` with 0, 2 or 1.5.

    Args:
        number: How many.
        one: Words for one, such as ``query``, ``is`` or ``image lacks``.
        many: Words for any other number; empty: the plural of ``one``, a regular noun.
    """
    if number == 1:
        return one
    return many or (f"{one[:-1]}ies" if re.search("[^aeiou]y$", one) else f"{one}s")
