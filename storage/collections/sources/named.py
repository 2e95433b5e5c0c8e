"""Records of named sources."""

from __future__ import annotations

from dataclasses import dataclass


class LabelFault(ValueError):
    """A label file is absent, or does not say what such a file says."""


@dataclass(frozen=True)
class Named:
    """An image that a label file names.

    Attributes:
        path: Where it lies, or should lie, below the source.
        meta_class: Its class; "" where there is one class only.
        said_by: The label file.
    """

    path: str
    meta_class: str
    said_by: str
