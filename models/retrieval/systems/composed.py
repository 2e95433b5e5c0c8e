"""Rows and features of composed query encoders, for the files of their systems."""

from __future__ import annotations

from typing import Any, Final

from models.retrieval.features import COMPOSED, Feature
from models.retrieval.method_records import Method, everywhere

NO_FOLDER: Final = (
    "no trained network is named; train one (cirflow run train-composed --set system={name} --set "
    "triplets=FILE) or name one of yours (--set composed.{name}=FOLDER)"
)


def composed_features(name: str, title: str) -> tuple[Feature, Feature]:
    """A system's query feature, called by its name, and its gallery feature `NAME_image`."""
    need = (f"{COMPOSED}{name}",)
    return (
        Feature(name, f"{title}'s query: reference image and text in one vector.", need),
        Feature(f"{name}_image", f"{title}'s gallery side: the image alone.", need),
    )


def composed_method(name: str, title: str, paper: str, description: str, **more: Any) -> Method:
    """A method that ranks by a system's own vectors.

    Args:
        name: Of the system in `models.composed.registry`, and of the method.
        title: Name in tables.
        paper: Where it was published.
        description: One sentence on how the query is made.
        more: Other attributes of the row.
    """
    return Method(
        name=name,
        title=title,
        group="trained",
        paper=paper,
        description=description,
        make=everywhere({name: 1.0}, gallery=f"{name}_image"),
        status="needs_checkpoint",
        reason=NO_FOLDER.format(name=name),
        **more,
    )
