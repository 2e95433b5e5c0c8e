"""Words that agree with a number: `agreed` of `models.spelling`, to which storage is a stranger."""

from __future__ import annotations

import re


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
