"""METHOD+weights: a method whose query parts are weighed for each query by a trained gate."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from models.retrieval.cvsi_settings import CvsiSettings
from models.retrieval.method_records import Recipe, late_fusion
from models.retrieval.systems.cvsi import CVSI_METHOD, cvsi_recipe
from models.retrieval.systems.instructcir import (
    INSTRUCTCIR_WEIGHTS,
    NO_NETWORK,
)
from models.retrieval.systems.instructcir import METHODS as _INSTRUCTCIR_METHODS

WEIGHTS: Final = "+weights"
"""Ends the name of a method whose parts are weighed for each query."""
GATE: Final = "gate:"
"""Begins the need of a trained gate; the method whose parts it weighs follows."""

NO_GATE: Final = (
    "no trained gate is named; train one (cirflow run train-weights --set method={name} --set "
    "triplets=FILE) or name one of yours (--set query_weights.{name}=FOLDER)"
)


def every_part(family: str, settings: CvsiSettings) -> Recipe:
    """CVSI with all parts of its query, also those that its own weights leave out: a gate decides.

    The weights here stand for nothing but that a part is there.
    """
    own = cvsi_recipe(family, settings)
    return Recipe(
        query=dict.fromkeys(settings.query_weights(family), 1.0),
        gallery=own.gallery,
        norms=own.norms,
        similarity=own.similarity,
    )


_BY_NAME: Final = {row.name: row for row in _INSTRUCTCIR_METHODS}

_CVSI: Final = replace(
    CVSI_METHOD,
    name=f"cvsi{WEIGHTS}",
    title="CVSI + weights",
    paper="this project",
    description="CVSI with weights of its query parts predicted for each query, without labels.",
    make=every_part,
    status="needs_checkpoint",
    reason=NO_GATE.format(name="cvsi"),
    weighs="cvsi",
)

METHODS: Final = (
    _CVSI,
    replace(
        _BY_NAME["cvsi-instructcir"],
        name=f"cvsi-instructcir{WEIGHTS}",
        title="CVSI + InstructCIR + weights",
        description="The parts of both methods, weighed for each query, without labels.",
        make=late_fusion(_CVSI, _BY_NAME["instructcir"], INSTRUCTCIR_WEIGHTS),
        reason=f"{NO_NETWORK}; {NO_GATE.format(name='cvsi-instructcir')}",
        blends=(_CVSI.name, "instructcir"),
        weighs="cvsi-instructcir",
    ),
)
"""Where a gate decides, both methods of a late fusion have equal shares: both must be there."""

WEIGHED: Final = tuple(row.weighs for row in METHODS)
"""The methods whose parts a gate may weigh."""
